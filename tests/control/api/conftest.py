"""A real control service on loopback, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import pytest

from jupyter_gpu_platform.control.identity import Principal
from jupyter_gpu_platform.control.limits import Limits
from jupyter_gpu_platform.control.server import Server, Settings
from jupyter_gpu_platform.control.services import Services
from jupyter_gpu_platform.control.store.rows import Cluster
from jupyter_gpu_platform.control.store.transaction import Transaction
from jupyter_gpu_platform.model import lifecycle
from jupyter_gpu_platform.model.jobs import Job
from jupyter_gpu_platform.model.records import StreamKey

T = TypeVar("T")

COMMAND = {"source": {"type": "command", "argv": ["true"]}}
TOKENS = {name: f"{name}-token-of-the-tests" for name in ("admin", "user", "other", "viewer")}
CLUSTER = "lab"
INCARNATION = "boot-1-1"


class Service:
    """A running service, its clients, and a hand on the other side of its agents' work."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server: Server = self.call(Server.open(settings))
        self.tokens = dict(TOKENS)
        for name, token in TOKENS.items():
            role: Any = "user" if name == "other" else name
            self.services.identity.add_fixed(token, Principal(user=name, role=role))
        self.write(lambda tx: tx.put_cluster(Cluster(name=CLUSTER, created=1.0)))
        _, self.tokens["agent"] = self.call(self.services.identity.create_agent(CLUSTER))

    @property
    def services(self) -> Services:
        return self.server.services

    @property
    def url(self) -> str:
        return self.server.url

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def write(self, operation: Callable[[Transaction], T]) -> T:
        return self.call(self.services.writer.run(operation))

    def client(self, name: str = "user") -> httpx.Client:
        token = self.tokens.get(name)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False)

    def job(self, name: str = "user", **spec: Any) -> str:
        with self.client(name) as client:
            answer = client.post("/api/v1/jobs", json=COMMAND | spec)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def run(self, job_id: str) -> None:
        """Place the job and have it claimed."""

        def operation(tx: Transaction) -> None:
            job = tx.job(job_id)
            assert job is not None
            placed = lifecycle.place(job, cluster=CLUSTER, now=1.0)
            claimed = lifecycle.claim(placed.job, placed.attempt, cluster=CLUSTER, incarnation=INCARNATION, now=2.0)
            tx.put_job(claimed.job)
            tx.put_attempt(claimed.attempt)

        self.write(operation)
        self.call(self.services.output.open_stream(StreamKey(job_id, 1), INCARNATION, CLUSTER, 2**20))

    def append(self, job_id: str, first: int, *records: dict[str, Any]) -> None:
        lines = b"".join(
            msgspec.json.encode({"seq": first + number, "time": 1.0, **record}) + b"\n"
            for number, record in enumerate(records)
        )
        key = StreamKey(job_id, 1)
        self.call(self.services.output.append(key, INCARNATION, CLUSTER, first, len(records), lines))

    def end(self, job_id: str) -> None:
        def operation(tx: Transaction) -> Job:
            job, attempt = tx.job(job_id), tx.attempt(job_id, 1)
            assert job is not None
            assert attempt is not None
            report = lifecycle.Report(job=job_id, attempt=1, incarnation=INCARNATION, exit_code=0)
            ended = lifecycle.end(job, attempt, report, cluster=CLUSTER, now=3.0)
            tx.put_job(ended.job)
            tx.put_attempt(ended.attempt)
            return ended.job

        assert self.write(operation).phase.ended

    def close(self) -> None:
        self.call(self.server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def settings_at(directory: Path, **more: Any) -> Settings:
    more.setdefault("limits", Limits(max_body_bytes=200_000))
    more.setdefault("database_url", f"sqlite:///{directory / 'control.db'}")
    return Settings(
        segments_url=(directory / "segments").as_uri(),
        objects_url=(directory / "objects").as_uri(),
        **more,
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(settings_at(tmp_path_factory.mktemp("service")))
    yield running
    running.close()


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services that a test has for itself."""
    started: list[Service] = []

    def start(**settings: Any) -> Service:
        directory = tmp_path / str(len(started))
        directory.mkdir()
        started.append(Service(settings_at(directory, **settings)))
        return started[-1]

    yield start
    for running in started:
        running.close()


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


@pytest.fixture
def admin(service: Service) -> Iterator[httpx.Client]:
    with service.client("admin") as client:
        yield client
