"""A control service or two on real sockets, and agents whose executor runs nothing but plays a runner's part."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from jupyter_gpu_agent.connection import Connection, Endpoint
from jupyter_gpu_agent.core import Core
from jupyter_gpu_agent.executors import AttemptKey

from jupyter_gpu_platform.control.identity import Principal
from jupyter_gpu_platform.control.server import Server, Settings
from jupyter_gpu_platform.control.store.rows import Cluster
from jupyter_gpu_platform.model.jobs import Command, Job, JobSpec, Phase
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.model.records import StreamKey
from jupyter_gpu_platform.model.resources import Capacity, Gpu, Resources
from jupyter_gpu_platform.wire.messages import Desired, Owned

ADA = Principal(user="ada", role="user")


class FakeExecutor:
    """Holds attempts in memory; a test says when one claims, writes and ends."""

    def __init__(self, core: Core, gpus: int = 2) -> None:
        self.core = core
        self.held: dict[AttemptKey, str] = {}
        self.applied: dict[AttemptKey, Desired] = {}
        self.stopped: list[AttemptKey] = []
        self.forgotten: list[AttemptKey] = []
        self._gpus = tuple(Gpu(index=n, uuid=f"GPU-{n}", model="FAKE", memory=2**30, fake=True) for n in range(gpus))

    async def start(self) -> None:
        """Nothing to adopt."""

    async def close(self) -> None:
        """Nothing to let go."""

    async def apply(self, desired: Desired) -> None:
        key = AttemptKey(desired.job, desired.attempt)
        self.applied.setdefault(key, desired)
        self.held.setdefault(key, "")

    async def stop(self, key: AttemptKey, grace: float) -> None:
        self.stopped.append(key)

    async def forget(self, key: AttemptKey) -> None:
        self.forgotten.append(key)
        self.held.pop(key, None)

    def owned(self) -> list[Owned]:
        return [Owned(job=job, attempt=n, incarnation=name) for (job, n), name in self.held.items()]

    async def capacity(self) -> Capacity:
        return Capacity(gpus=self._gpus, cpus=4.0, memory=2**33)

    async def spooled(self) -> int:
        return 0

    async def keep(self, name: str) -> None:
        """Nothing lasts."""


class FakeAgent:
    """The real agent's core and connection over a `FakeExecutor`."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.core = Core()
        self.executor = FakeExecutor(self.core)
        self.endpoints = endpoints
        self.started = False
        self._turn = 0
        self._task: asyncio.Task[None] | None = None

    def _resolve(self) -> Endpoint | None:
        self._turn += 1
        return self.endpoints[self._turn % len(self.endpoints)] if self.endpoints else None

    async def prepare(self) -> None:
        """Start all but the connection."""
        if not self.started:
            self.started = True
            await self.core.start(self.executor)

    async def start(self) -> None:
        await self.prepare()
        self._task = asyncio.create_task(Connection(self.core, self._resolve, longest_pause=0.2).run())
        await eventually(lambda: self.core.session.live)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def claim(self, job: str, incarnation: str = "inc", attempt: int = 1) -> bool:
        result = await self.core.claim(job, attempt, 0, incarnation)
        if result.granted:
            self.executor.held[AttemptKey(job, attempt)] = incarnation
        return result.granted

    async def write(self, job: str, first: int, count: int, incarnation: str = "inc", attempt: int = 1) -> None:
        """Hand records over as a runner does."""
        lines = b"".join(
            json.dumps({"seq": seq, "time": 0.0, "type": "stream", "name": "stdout", "text": f"{seq}\n"}).encode()
            + b"\n"
            for seq in range(first, first + count)
        )
        await self.core.append(StreamKey(job, attempt), incarnation, first, count, lines)

    async def end(self, job: str, incarnation: str = "inc", attempt: int = 1, exit_code: int = 0) -> None:
        await self.core.ended(Report(job=job, attempt=attempt, incarnation=incarnation, exit_code=exit_code))


async def eventually(look: Callable[[], object] | Callable[[], Awaitable[object]], patience: float = 20.0) -> None:
    """Look, now and then, until there is something to see."""
    async with asyncio.timeout(patience):
        while True:
            seen = look()
            if asyncio.iscoroutine(seen):
                seen = await seen
            if seen:
                return
            await asyncio.sleep(0.02)


class Platform:
    """Replicas of one store."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self.replicas: list[Server] = []
        self.agents: list[FakeAgent] = []

    async def add_replica(self) -> Server:
        segments, objects = (self.directory / "segments").as_uri(), (self.directory / "objects").as_uri()
        server = await Server.open(Settings(database_url=self.url, segments_url=segments, objects_url=objects))
        self.replicas.append(server)
        return server

    async def close_replica(self, server: Server) -> None:
        self.replicas.remove(server)
        await server.close()

    @property
    def first(self) -> Server:
        return self.replicas[0]

    async def credential(self, cluster: str = "c1") -> tuple[str, str]:
        services = self.first.services

        def operation(tx: object) -> None:
            if tx.cluster(cluster) is None:  # type: ignore[attr-defined]  # a Transaction
                tx.put_cluster(Cluster(name=cluster, created=services.now()))  # type: ignore[attr-defined]  # a Transaction

        await services.writer.run(operation)
        agent, credential = await services.identity.create_agent(cluster)
        return agent.id, credential

    async def add_agent(self, cluster: str = "c1", *, start: bool = True) -> FakeAgent:
        agent_id, credential = await self.credential(cluster)
        agent = FakeAgent([Endpoint(replica.url, agent_id, credential) for replica in self.replicas])
        self.agents.append(agent)
        if start:
            await agent.start()
        return agent

    async def submit(self, **spec: object) -> Job:
        plain = {"source": Command(argv=("true",)), "resources": Resources(gpus=1)}
        full = JobSpec(**{**plain, **spec})  # type: ignore[arg-type]  # a spec's fields have many types
        return (await self.first.services.jobs.create([full], ADA, None))[0]

    async def running(self, agent: FakeAgent, incarnation: str = "inc", **spec: object) -> Job:
        """Submit a job and have it claimed."""
        job = await self.submit(**spec)
        await eventually(lambda: AttemptKey(job.id, 1) in agent.executor.held)
        assert await agent.claim(job.id, incarnation)
        return await self.job(job.id)

    async def job(self, job_id: str) -> Job:
        job = await self.replicas[-1].services.reader.job(job_id)
        assert job is not None
        return job

    async def phase(self, job_id: str) -> Phase:
        return (await self.job(job_id)).phase

    async def texts(self, job_id: str) -> list[str]:
        page = await self.replicas[-1].services.output.read(job_id, 0, 10_000, 2**24)
        return [json.loads(line)["text"] for _, _, _, line in page.records]

    async def close(self) -> None:
        for agent in self.agents:
            await agent.stop()
            if agent.started:
                await agent.core.close()
        for server in list(self.replicas):
            await self.close_replica(server)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/control.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@asynccontextmanager
async def opened(url: str, directory: Path, replicas: int = 1) -> AsyncIterator[Platform]:
    platform = Platform(url, directory)
    try:
        for _ in range(replicas):
            await platform.add_replica()
        yield platform
    finally:
        await platform.close()
