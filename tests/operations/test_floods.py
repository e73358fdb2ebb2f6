"""Back-pressure: whoever floods the service is refused, its memory stays where it is, and what it accepted is there."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

from .conftest import JOB, Program, Start, eventually

MIB = 2**20


class Peak:
    """The most memory that a program had while this was open."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.before = self.most = program.memory

    def _look(self) -> None:
        while not self._closed.wait(0.01):
            self.most = max(self.most, self._program.memory)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        return self.most - self.before


def test_a_flood_of_large_bodies_is_refused_and_takes_no_memory(start: Start) -> None:
    service = start("--Limits.max_body_bytes=4194304", "--Limits.max_buffered_bytes=8388608")
    body = json.dumps({"jobs": [JOB | {"env": {"LARGE": "x" * 30_000}}] * 100}).encode()
    accepted: list[str] = []
    refused: list[str] = []

    def send(number: int) -> None:
        with service.client() as client:
            for turn in range(3):
                headers = {"Idempotency-Key": f"{number}-{turn}"}
                answer = client.post("/api/v1/job-batches", content=body, headers=headers)
                if answer.is_success:
                    accepted.append(answer.json()["jobs"][-1]["id"])
                else:
                    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests"), answer.text[:300]
                    refused.append(answer.headers["Retry-After"])

    with service.client() as client:
        client.post("/api/v1/job-batches", content=body).raise_for_status()  # what one takes is there before
    with Peak(service) as peak, ThreadPoolExecutor(32) as pool:
        list(pool.map(send, range(32)))
    assert len(accepted) + len(refused) == 32 * 3
    assert refused
    # 288 MiB were sent.
    assert peak.growth < 120 * MIB, f"{peak.growth / MIB:.0f} MiB"
    with service.client() as client:
        assert all(client.get(f"/api/v1/jobs/{job}").status_code == 200 for job in accepted)
    assert service.figure('jgp_admitted{what="body_bytes"}') == 0
    assert service.figure('jgp_refused_total{what="body_bytes"}') == len(refused)


def test_a_flood_of_submissions_fills_the_queue_and_no_accepted_one_is_lost(start: Start) -> None:
    service = start("--Limits.max_waiting_writes=8")
    accepted: list[str] = []
    refused: list[str] = []
    body = json.dumps(JOB).encode()

    def send(_: int) -> None:
        with service.client() as client:
            for _ in range(20):
                answer = client.post("/api/v1/jobs", content=body)
                if answer.status_code == 201:
                    accepted.append(answer.json()["id"])
                else:
                    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1"), answer.text
                    refused.append(answer.headers["Retry-After"])

    with Peak(service) as peak, ThreadPoolExecutor(32) as pool:
        list(pool.map(send, range(32)))
    assert refused
    assert peak.growth < 100 * MIB, f"{peak.growth / MIB:.0f} MiB"
    with service.client() as client:
        assert all(client.get(f"/api/v1/jobs/{job}").status_code == 200 for job in accepted)
        assert client.get("/metrics").status_code == 200
    assert service.figure('jgp_queue_refused_total{queue="writer"}') == len(refused)
    # The service's own writes were not turned away: it plans on, under the same lease.
    assert service.figure('jgp_loop_failures_total{loop="planner"}') == 0
    assert service.figure("jgp_planner_epoch") == 1


def test_connections_over_the_limit_are_told_to_come_back(start: Start) -> None:
    service = start("--Limits.max_connections=20")
    held = [service.connection() for _ in range(20)]
    eventually(lambda: _refused(service), "a connection to be refused")
    for connection in held:
        connection.close()
    eventually(lambda: not _refused(service), "connections to be taken again")
    assert service.figure("jgp_http_connections_refused_total") >= 1


def _refused(service: Program) -> bool:
    with service.client() as client:
        answer = client.get("/healthz")
    if answer.status_code == 200:
        return False
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, "unavailable", "1")
    return True


def test_a_thousand_idle_connections_cost_little(start: Start) -> None:
    service = start()
    with Peak(service) as peak:
        held = [service.connection() for _ in range(1000)]
        eventually(lambda: service.figure("jgp_http_connections") >= 1000, "all to be open")
    for connection in held:
        connection.close()
    assert peak.growth < 60 * MIB, f"{peak.growth / MIB:.0f} MiB"
    eventually(lambda: service.figure("jgp_http_connections") < 10, "all to be closed")
