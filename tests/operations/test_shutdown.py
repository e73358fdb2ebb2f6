"""SIGTERM: calls in flight end, streams go on elsewhere, leases are given back, nothing accepted is lost."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from jupyter_gpu_platform.client import Client, Endpoint
from jupyter_gpu_platform.control import leases
from jupyter_gpu_platform.control.app import CALLS_CUT_OFF
from jupyter_gpu_platform.control.overdue import CLOSED_BY_FORCE
from jupyter_gpu_platform.control.store.database import Database
from jupyter_gpu_platform.control.store.transaction import Transaction

from .conftest import JOB, TOKEN, Program, Start, eventually


class Caller(threading.Thread):
    """Submits again and again, without ever trying one again, until nobody listens."""

    def __init__(self, service: Program) -> None:
        super().__init__()
        self._service = service
        self.accepted: list[str] = []
        self.others: list[httpx.Response] = []
        self.start()

    def run(self) -> None:
        with self._service.client() as client:
            while True:
                try:
                    answer = client.post("/api/v1/jobs", json=JOB)
                except httpx.TransportError:
                    return
                if answer.status_code == 201:
                    self.accepted.append(answer.json()["id"])
                else:
                    self.others.append(answer)


class Follower(threading.Thread):
    """Follows the change log with the client that people use, from one replica to the next."""

    def __init__(self, service: Program, wanted: str) -> None:
        super().__init__()
        self._client = Client(service.url, TOKEN, resolve=lambda: Endpoint(service.url, TOKEN))
        self._wanted = wanted
        self.ids: list[int] = []
        self.start()

    def run(self) -> None:
        with self._client as client:
            for change in client.changes(0, follow=True):
                self.ids.append(change.id)
                if change.payload.get("spec", {}).get("name") == self._wanted:
                    return


def test_calls_and_streams_in_flight(start: Start, database_url: str) -> None:
    service = start("--Limits.shutdown_seconds=30", database_url=database_url)
    callers = [Caller(service) for _ in range(8)]
    followers = [Follower(service, "last") for _ in range(3)]
    eventually(lambda: all(len(caller.accepted) > 5 for caller in callers), "calls to be in flight")
    eventually(lambda: all(follower.ids for follower in followers), "streams to be read")
    assert service.end() == 0
    for caller in callers:
        caller.join()
        # Each was answered, or not taken at all.
        assert all((answer.status_code, answer.headers["Retry-After"]) == (503, "1") for answer in caller.others)
    assert _planner(service) is None
    service.start()
    with service.client() as client:
        last = client.post("/api/v1/jobs", json=JOB | {"name": "last"}).json()["id"]
        assert all(
            client.get(f"/api/v1/jobs/{job}").status_code == 200 for caller in callers for job in caller.accepted
        )
        assert last
    for follower in followers:
        follower.join(30)
        assert not follower.is_alive()
        assert follower.ids == sorted(set(follower.ids))
    assert len({len(follower.ids) for follower in followers}) == 1
    assert service.end() == 0


def _planner(service: Program) -> str | None:
    """Return who holds the planner's lease."""
    database = Database.open(service.database_url)
    try:
        with database.read() as connection:
            lease = Transaction(connection, lambda: 0.0).lease(leases.PLANNER)
            return lease.holder_id if lease is not None and lease.expires > 0 else None
    finally:
        database.close()


def test_a_call_that_takes_too_long_is_cut_off_and_the_exit_code_says_so(start: Start) -> None:
    service = start("--Limits.shutdown_seconds=0.2")
    upload = f"PUT /api/v1/objects/{'0' * 64} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    with service.connection() as connection:
        connection.sendall(f"{upload}Content-Length: 1000\r\n\r\n1".encode())
        eventually(lambda: service.figure('jgp_admitted{what="uploads"}') == 1, "the upload to begin")
        assert service.end() == CALLS_CUT_OFF
    assert "1 calls were cut off" in service.log.read_text()


def test_connections_that_are_kept_alive_keep_nothing_up(start: Start) -> None:
    service = start()
    request = f"GET /api/v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(service.connection()) for _ in range(16)]
        for number, connection in enumerate(kept):
            if number % 2:  # the others have never asked for anything
                connection.sendall(request)
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert service.end() == 0
        for connection in kept:
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(65536):
                    pass


def test_a_store_that_hangs_is_named_and_left(start: Start) -> None:
    service = start("--Limits.close_seconds=0.5")
    other = sqlite3.connect(service.folder / "state" / "control.db", isolation_level=None)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        assert service.end() == CLOSED_BY_FORCE
    log = service.log.read_text()
    assert "ended by force" in log
    assert "release_lease" in log or "end_replica" in log or "_transact" in log


def test_an_agent_is_told_to_reconnect(start: Start, tmp_path: Path) -> None:
    service = start()
    with service.client() as client:
        token = client.post("/api/v1/clusters", json={"name": "lab"}).json()["join_token"]
    (tmp_path / "join").write_text(token)
    command = [sys.executable, "-m", "jupyter_gpu_agent", f"--url={service.url}", f"--state-dir={tmp_path / 'agent'}"]
    with (tmp_path / "agent.log").open("wb") as log:
        agent = subprocess.Popen([*command, f"--join-token-file={tmp_path / 'join'}"], stdout=log, stderr=log)
    try:
        eventually(lambda: service.figure("jgp_agents_connected") == 1, "the agent to connect")
        assert service.end() == 0
        eventually(lambda: "restarting" in (tmp_path / "agent.log").read_text(), "the agent to hear of it")
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0
    finally:
        agent.kill()
        agent.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_mean_the_same(start: Start, number: int) -> None:
    service = start()
    service.process.send_signal(number)
    assert service.process.wait(30) == 0
