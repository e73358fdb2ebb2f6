"""Many agents that dial in one moment: a bounded number is worked on, the rest comes back, and nobody is left out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import pytest
from msgspec.structs import replace

from jupyter_gpu_platform.control.limits import Limits
from jupyter_gpu_platform.control.server import Server, Settings
from jupyter_gpu_platform.control.store import Cluster, JobFilter, Transaction

from .conftest import ADA, Platform, eventually, opened

pytestmark = pytest.mark.anyio

AGENTS = 40
AT_ONCE = 5
OTHERS = 3000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def _call_all_the_while(server: Server, used: list[int]) -> None:
    """Call as a person does, until cancelled, and note how many hellos are worked on."""
    while True:
        await server.services.jobs.find(JobFilter(), 10, None, ADA)
        used.append(server.services.admission.hellos.used)


async def test_all_of_a_flood_of_hellos_are_welcomed_a_few_at_a_time(database_url: str, tmp_path: Path) -> None:
    platform = Platform(database_url, tmp_path)
    segments, objects = (tmp_path / "segments").as_uri(), (tmp_path / "objects").as_uri()
    limits = Limits(max_hellos=AT_ONCE)
    server = await Server.open(
        Settings(database_url=database_url, segments_url=segments, objects_url=objects, limits=limits)
    )
    platform.replicas.append(server)
    try:
        for number in range(AGENTS):
            await platform.add_agent(f"c{number}", start=False)
        used: list[int] = []
        calling = asyncio.create_task(_call_all_the_while(server, used))
        await asyncio.gather(*(agent.start() for agent in platform.agents))
        calling.cancel()
        assert len(server.gateway.connected()) == AGENTS
        assert 1 < max(used) <= AT_ONCE
        assert server.services.admission.hellos.refused > 0
        # Whoever was sent away and came back is as good as the others: each gets its job.
        jobs = await asyncio.gather(*(platform.submit() for _ in range(AGENTS)))
        await eventually(
            lambda: {key.job for agent in platform.agents for key in agent.executor.held} >= {job.id for job in jobs}
        )
    finally:
        await platform.close()


async def test_who_is_welcomed_during_a_look_at_the_leases_is_not_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a restart all clusters count as away until their hello is taken, and the look may be older than that."""
    caplog.set_level(logging.INFO)
    async with opened(f"sqlite:///{tmp_path}/control.db", tmp_path) as platform:
        for number in range(AGENTS // 4):
            await platform.add_agent(f"c{number}", start=False)

        def all_away(tx: Transaction) -> None:
            for cluster in tx.clusters():
                tx.put_cluster(replace(cluster, state="away"))
            for number in range(OTHERS):  # which make the look take as long as a welcome
                tx.put_cluster(Cluster(name=f"other{number}", created=0.0))

        await platform.first.services.writer.run(all_away)

        async def look_all_the_while() -> None:
            while True:
                await asyncio.gather(*(platform.first.gateway._check_leases(None) for _ in range(4)))
                await asyncio.sleep(0)

        looking = asyncio.create_task(look_all_the_while())
        await asyncio.gather(*(agent.start() for agent in platform.agents))
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
        assert "connected:" in caplog.text
        assert "given_up" not in caplog.text
