"""A user's mistake gets an answer that says what to do, and never a 500."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx
import pytest

from .conftest import COMMAND, Service

SOURCE = b'"source":{"type":"command","argv":["true"]}'


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    found: dict[str, str] = answer.json()
    assert found["code"] == code
    assert found["detail"]
    assert found["request_id"] == answer.headers["X-Request-Id"]
    return found


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}",
        b"\xff\xfe",
        b"NaN",
        b"[" * 5000,
        b'{"source":' * 2000,
        b'{"source":{"type":"nonsense"}}',
        b"{" + SOURCE + b',"resources":{"gpus":-1}}',
        b"{" + SOURCE + b',"resources":{"gpus":"two"}}',
        b"{" + SOURCE + b',"retries":1e400}',
        b"{" + SOURCE + b',"priority":123456789012345678901234567890}',
        b"{" + SOURCE + b',"name":"a\\u0000b"}',
        b"{" + SOURCE + b',"name":"\\ud800"}',
        b"{" + SOURCE + b',"name":"\\udc00 x"}',
        b"{" + SOURCE + b',"name":"\\ud800\\u0041"}',
        b"{" + SOURCE + b',"env":{"A\\u0000B":"x"}}',
        b"{" + SOURCE + b',"env":{"A B":"x"}}',
        b"{" + SOURCE + b',"project":"../etc"}',
        b"{" + SOURCE + b',"frobnicate":1}',
        b"{" + SOURCE + b',"parent":"j000000000000000000"}',
    ],
)
def test_a_bad_body_is_a_400(client: httpx.Client, body: bytes) -> None:
    found = problem(client.post("/api/v1/jobs", content=body), 400, "invalid_request")
    assert found["hint"]


def test_the_place_of_the_mistake_is_named(client: httpx.Client) -> None:
    answer = client.post("/api/v1/jobs", json=COMMAND | {"resources": {"gpus": "two"}})
    assert "resources.gpus" in problem(answer, 400, "invalid_request")["detail"]


def test_an_escaped_backslash_before_u0000_is_text_like_any_other(client: httpx.Client) -> None:
    body = b"{" + SOURCE + b',"name":"\\\\u0000"}'
    assert client.post("/api/v1/jobs", content=body).json()["spec"]["name"] == "\\u0000"


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("limt=5", "'limit'"),
        ("phases=queued", "'phase'"),
        ("limit=0", ""),
        ("limit=1001", ""),
        ("limit=ten", ""),
        ("limit=", ""),
        ("limit=1&limit=2", ""),
        ("phase=flying", ""),
        ("label=nothing", ""),
        ("name=%00", ""),
        ("name=%ff", ""),
        ("name=%ed%a0%80", ""),
    ],
)
def test_a_bad_query_is_a_400(client: httpx.Client, query: str, hint: str) -> None:
    assert hint in problem(client.get(f"/api/v1/jobs?{query}"), 400, "invalid_request")["hint"]


@pytest.mark.parametrize(
    "url",
    [
        "/api/v1/jobs?after=nonsense",
        "/api/v1/jobs?after=%27%20or%201",
        "/api/v1/jobs/{job}/output?after=zz",
        "/api/v1/jobs/{job}/output?after=c-1",
    ],
)
def test_a_cursor_of_another_kind_is_refused(service: Service, client: httpx.Client, url: str) -> None:
    problem(client.get(url.format(job=service.job())), 400, "invalid_cursor")


@pytest.mark.parametrize(
    "path",
    ["/api/v1/jobs/x", "/api/v1/jobs/%00", "/api/v1/jobs/j%27--", "/api/v1/nothing", "/", "/api/v1/jobs/", "/%2e%2e/x"],
)
def test_what_does_not_exist_is_a_404(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code in ({400} if "%00" in path else {404})


@pytest.mark.parametrize("path", ["/api/v1/jobs/%ff", "/api/v1/jobs/%ed%a0%80", "/api/v1/clusters/%00"])
def test_a_path_that_is_no_text_is_a_400(client: httpx.Client, path: str) -> None:
    problem(client.get(path), 400, "invalid_request")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"])
def test_another_method_is_a_405_that_names_the_right_ones(client: httpx.Client, method: str) -> None:
    answer = client.request(method, "/api/v1/jobs")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, POST"


def test_too_large_a_body_is_a_413_however_it_is_sent(service: Service, client: httpx.Client) -> None:
    big = b"x" * 300_000
    problem(client.post("/api/v1/jobs", content=big), 413, "body_too_large")
    problem(client.post("/api/v1/jobs", content=iter([big[:100_000]] * 3)), 413, "body_too_large")
    # … and the service takes the next call.
    assert client.get("/api/v1/status").status_code == 200


def test_a_huge_announced_body_is_not_awaited(service: Service) -> None:
    place = urlsplit(service.url)
    with socket.create_connection((place.hostname, place.port), 10) as sock:
        sock.sendall(b"POST /api/v1/agents/join HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000000\r\n\r\n")
        sock.sendall(b"x" * 900_000)
        assert sock.recv(100).startswith(b"HTTP/1.1 413")


def test_a_refused_caller_can_send_his_body_and_read_the_refusal(service: Service) -> None:
    with service.client("anonymous") as client:
        assert client.post("/api/v1/jobs", content=b"x" * 400_000).status_code == 401


def test_a_caller_who_leaves_in_the_middle_of_his_body_leaves_nothing_behind(service: Service) -> None:
    place = urlsplit(service.url)
    with socket.create_connection((place.hostname, place.port), 10) as sock:
        head = f"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.tokens['user']}\r\n"
        sock.sendall(head.encode() + b"Content-Length: 50\r\n\r\n{")
    assert service.call(service.server.activity.drained(10))


@pytest.mark.parametrize("key", ["", "x" * 201, "a\tb"])
def test_a_bad_idempotency_key_is_a_400(client: httpx.Client, key: str) -> None:
    problem(client.post("/api/v1/jobs", json=COMMAND, headers={"Idempotency-Key": key}), 400, "invalid_request")


def test_a_batch_is_bounded_and_all_or_none(client: httpx.Client) -> None:
    before = client.get("/api/v1/jobs").json()["log_position"]
    problem(client.post("/api/v1/job-batches", json={"jobs": []}), 400, "invalid_request")
    problem(client.post("/api/v1/job-batches", json={"jobs": [COMMAND] * 1001}), 400, "invalid_request")
    bad = COMMAND | {"parent": "j000000000000000000"}
    problem(client.post("/api/v1/job-batches", json={"jobs": [COMMAND, bad]}), 400, "invalid_request")
    assert client.get("/api/v1/jobs").json()["log_position"] == before
