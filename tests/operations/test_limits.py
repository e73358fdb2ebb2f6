"""Limits on what one caller may hold: streams, uploads, connections of agents, and time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
from collections.abc import Iterator

import httpx
import pytest
from jupyter_gpu_agent.connection import _asked_pause
from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders

from .conftest import JOB, TOKEN, Program, Start, eventually

SLOW = ("--Limits.idle_seconds=1", "--Limits.body_seconds=1", "--Limits.upload_seconds=1", "--Limits.send_seconds=1")
AUTHORIZED = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\n"


@pytest.fixture
def service(start: Start) -> Program:
    return start(*SLOW, "--Limits.max_streams_per_user=2", "--Limits.max_uploads=1", "--Limits.max_agent_sockets=2")


@contextlib.contextmanager
def sending(service: Program, text: str) -> Iterator[socket.socket]:
    with service.connection() as connection:
        connection.sendall(text.encode())
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """Read until the service closes the connection; a test whose connection stays open ends by its timeout."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            found += data
    return found


def follow(client: httpx.Client) -> contextlib.AbstractContextManager[httpx.Response]:
    return client.stream("GET", "/api/v1/changes?follow=1")


def test_streams_over_the_limit_of_one_user_are_refused(service: Program) -> None:
    with service.client() as client:
        with follow(client) as first, follow(client) as second:
            assert (first.status_code, second.status_code) == (200, 200)
            with follow(client) as third:
                third.read()
                assert (third.status_code, third.json()["code"]) == (429, "too_many_requests")
                assert third.headers["Retry-After"] == "1"
            # Another user has streams of their own.
            token = client.post("/api/v1/tokens", json={"user": "ada"}).json()["token"]
            with follow_as(client, token) as other:
                assert other.status_code == 200

        def taken() -> bool:
            with follow(client) as again:
                return again.status_code == 200

        eventually(taken, "a place to be free again")


def follow_as(client: httpx.Client, token: str) -> contextlib.AbstractContextManager[httpx.Response]:
    return client.stream("GET", "/api/v1/changes?follow=1", headers={"Authorization": f"Bearer {token}"})


def test_uploads_over_the_limit_are_refused_and_a_slow_one_is_cut_off(service: Program) -> None:
    digest = hashlib.sha256(b"1234").hexdigest()
    head = f"PUT /api/v1/objects/{digest} HTTP/1.1\r\n{AUTHORIZED}Content-Length: 4\r\n\r\n"
    with sending(service, head + "1") as slow:
        eventually(lambda: service.figure('jgp_admitted{what="uploads"}') == 1, "the upload to begin")
        with service.client() as client:
            answer = client.put(f"/api/v1/objects/{digest}", content=b"1234")
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
            read_all(slow)
            eventually(lambda: service.figure('jgp_admitted{what="uploads"}') == 0, "its place to be free")
            assert client.put(f"/api/v1/objects/{digest}", content=b"1234").status_code == 201


@pytest.mark.parametrize(
    "dribble",
    [
        "",
        "GET /healthz HTTP/1.1\r\nHost",
        f"POST /api/v1/jobs HTTP/1.1\r\n{AUTHORIZED}Content-Length: 100\r\n\r\n{{",
        f"GET /healthz HTTP/1.1\r\nHost: x\r\nLarge: {'x' * 70_000}\r\n\r\n",
    ],
    ids=["silent", "half a header", "half a body", "a header too large"],
)
def test_who_dribbles_loses_the_connection(service: Program, dribble: str) -> None:
    with sending(service, dribble) as connection:
        assert b"200 OK" not in read_all(connection)
    assert service.figure('jgp_admitted{what="body_bytes"}') == 0


def test_who_reads_nothing_of_a_stream_is_cut_off(service: Program) -> None:
    spec = JOB | {"env": {"LARGE": "x" * 100_000}}
    with service.client() as client:
        for _ in range(3):
            client.post("/api/v1/job-batches", json={"jobs": [spec] * 50}).raise_for_status()
    request = f"GET /api/v1/changes?follow=1 HTTP/1.1\r\n{AUTHORIZED}\r\n"
    with service.connection() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request.encode())
        eventually(lambda: service.figure('jgp_admitted{what="streams"}') == 1, "the stream to begin")
        eventually(lambda: service.figure('jgp_admitted{what="streams"}') == 0, "the stream to be cut off")


def test_agents_over_the_limit_are_told_when_to_come_back(service: Program) -> None:
    with service.client() as client:
        made = client.post("/api/v1/clusters", json={"name": "lab"}).json()
        joined = client.post("/api/v1/agents/join", json={"token": made["join_token"]}).json()
    upgrade = (
        f"GET /api/v1/agents/{joined['agent_id']}/control HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {joined['credential']}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with sending(service, upgrade) as first, sending(service, upgrade) as second:
        assert first.recv(12) == second.recv(12) == b"HTTP/1.1 101"
        with sending(service, upgrade) as third:
            answer = read_all(third).decode()
    assert answer.startswith("HTTP/1.1 429")
    assert "Retry-After: 1\r\n" in answer
    problem = json.loads(answer.partition("\r\n\r\n")[2])
    assert problem["code"] == "too_many_requests"
    assert f"X-Request-Id: {problem['request_id']}\r\n" in answer


def test_an_agent_stays_away_for_as_long_as_it_is_asked() -> None:
    request = HTTPRequest("http://x")
    told = HTTPResponse(request, 429, headers=HTTPHeaders({"Retry-After": "7"}))
    assert _asked_pause(HTTPClientError(429, response=told)) == 7.0
    assert _asked_pause(HTTPClientError(429, response=HTTPResponse(request, 429))) == 0.0
    assert _asked_pause(OSError()) == 0.0
