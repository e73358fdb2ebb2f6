"""Two replicas on one PostgreSQL: what one must learn of the other at once, not when a time has run out."""

from __future__ import annotations

import asyncio
from pathlib import Path

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.control.server import Server, Settings
from jupyter_gpu_platform.control.store.rows import Cluster

from .conftest import PATIENCE, Start, eventually

#: a control service whose leases last an hour
PATIENT = """
from jupyter_gpu_platform.control import leases
leases.TTL = 3600.0
from jupyter_gpu_platform.control.app import main
main()
"""


def test_a_killed_planner_is_replaced_long_before_its_lease_has_run_out(start: Start, postgres_url: str) -> None:
    code = ("-c", PATIENT)
    first = start(database_url=postgres_url, name="first", code=code)
    eventually(lambda: first.figure("jgp_planner_leads") == 1, "the first to plan")
    second = start(database_url=postgres_url, name="second", code=code)
    assert second.figure("jgp_planner_leads") == 0
    epoch = first.figure("jgp_planner_epoch")
    first.kill()
    eventually(lambda: second.figure("jgp_planner_leads") == 1, "the second to plan")
    assert second.figure("jgp_planner_epoch") > epoch
    assert second.end() == 0


def settings(url: str, directory: Path) -> Settings:
    segments, objects = (directory / "segments").as_uri(), (directory / "objects").as_uri()
    # By this clock no time passes: what is believed for some seconds is believed for ever.
    return Settings(database_url=url, segments_url=segments, objects_url=objects, now=lambda: 1000.0)


def test_what_is_revoked_at_one_replica_is_refused_by_the_other(postgres_url: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        first = await Server.open(settings(postgres_url, tmp_path))
        second = await Server.open(settings(postgres_url, tmp_path))
        here, there = first.services.identity, second.services.identity
        try:
            await first.services.writer.run(lambda tx: tx.put_cluster(Cluster(name="lab", created=1.0)))
            made, secret = await here.create_token("ada", "user", "default", "default", None)
            agent, credential = await here.create_agent("lab")
            for token in (secret, credential):
                assert await there.authenticate(f"Bearer {token}")
            await here.delete_token(made.id)
            await _refused(second, secret)
            assert await there.authenticate(f"Bearer {credential}")
            await here.revoke_agent(agent.id)
            await _refused(second, credential)
        finally:
            await second.close()
            await first.close()

    asyncio.run(scenario())


async def _refused(server: Server, token: str) -> None:
    """Ask until the token is refused."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await server.services.identity.authenticate(f"Bearer {token}")
            except errors.Unauthenticated:
                return
            await asyncio.sleep(0.02)
