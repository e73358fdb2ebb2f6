"""Two control services on one PostgreSQL: one hop between them, one planner, and agents that move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from jupyter_gpu_agent.connection import Endpoint
from jupyter_gpu_agent.executors import AttemptKey
from tornado.httpclient import AsyncHTTPClient

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.control import leases
from jupyter_gpu_platform.control.planning import Planner
from jupyter_gpu_platform.control.relay import PREFIX, Relay
from jupyter_gpu_platform.model.jobs import Phase

from .conftest import ADA, FakeAgent, Platform, eventually, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def platform(postgres_url: str, tmp_path: Path) -> AsyncIterator[Platform]:
    async with opened(postgres_url, tmp_path, replicas=2) as platform:
        yield platform


async def agent_at_first(platform: Platform) -> FakeAgent:
    """An agent that begins at the first replica."""
    agent = await platform.add_agent(start=False)
    both = agent.endpoints
    agent.endpoints = both[:1]
    await agent.start()
    agent.endpoints = both
    return agent


async def test_a_question_goes_through_the_hop(platform: Platform) -> None:
    agent = await agent_at_first(platform)
    job = await platform.running(agent)
    second = platform.replicas[1]
    agent_id = agent.endpoints[0].agent_id
    assert agent_id not in second.gateway.connected()
    found = await second.gateway.inspect(agent_id)
    assert [item.job for item in found.owned] == [job.id]


async def test_what_one_replica_accepts_reaches_the_agent_of_the_other(platform: Platform) -> None:
    agent = await agent_at_first(platform)
    job = await platform.running(agent)
    await platform.replicas[1].services.jobs.cancel(job.id, ADA)
    await eventually(lambda: AttemptKey(job.id, 1) in agent.executor.stopped)


async def test_an_unsigned_question_is_refused(platform: Platform) -> None:
    agent = await agent_at_first(platform)
    path = f"{PREFIX}/{agent.endpoints[0].agent_id}/inspect"
    answer = await AsyncHTTPClient().fetch(platform.first.url + path, method="POST", body=b"", raise_error=False)
    assert answer.code == 401
    stranger = Relay(b"another key", platform.first.services.now)
    with pytest.raises(errors.Unauthenticated):
        await stranger.ask(platform.first.url, path, b"")


async def test_an_old_signature_is_refused(platform: Platform) -> None:
    relay = platform.first.gateway.relay()
    headers = Relay(relay._key, lambda: platform.first.services.now() - 3600).sign("POST", "/x", b"")
    with pytest.raises(errors.Unauthenticated):
        relay.verify("POST", "/x", b"", headers)


async def test_an_agent_moves_when_its_replica_goes(platform: Platform) -> None:
    agent = await agent_at_first(platform)
    job = await platform.running(agent)
    await agent.write(job.id, 1, 5)
    await platform.close_replica(platform.replicas[0])
    await agent.write(job.id, 6, 5)
    second = platform.replicas[0]
    await eventually(lambda: agent.endpoints[0].agent_id in second.gateway.connected())
    await eventually(lambda: agent.core.streams.buffered == 0)
    await agent.end(job.id)
    assert await platform.phase(job.id) is Phase.SUCCEEDED
    assert await platform.texts(job.id) == [f"{n}\n" for n in range(1, 11)]
    again = await platform.submit()
    await eventually(lambda: AttemptKey(again.id, 1) in agent.executor.held)


async def test_a_newer_connection_elsewhere_closes_the_older(platform: Platform) -> None:
    agent = await agent_at_first(platform)
    endpoint = agent.endpoints[0]
    twin = FakeAgent([Endpoint(platform.replicas[1].url, endpoint.agent_id, endpoint.credential)])
    platform.agents.append(twin)
    agent.endpoints = []
    await twin.start()
    await eventually(lambda: endpoint.agent_id not in platform.first.gateway.connected())
    assert endpoint.agent_id in platform.replicas[1].gateway.connected()


async def test_one_replica_plans(platform: Platform) -> None:
    # The one whose connection holds the lock may take the lease over; the other one learns it at its next look.
    planners = [replica.planner for replica in platform.replicas]
    await eventually(lambda: sum(planner.epoch is not None for planner in planners) == 1)


async def test_a_planner_that_lost_its_lease_writes_nothing(platform: Platform) -> None:
    services = platform.first.services
    stale = Planner(services)
    stale.epoch = 0
    for replica in platform.replicas:
        await replica.planner.stop()
    job = await platform.submit()
    now = services.now()
    await services.writer.run(lambda tx: tx.acquire_lease(leases.PLANNER, "", "somebody", 60.0, now, force=True))
    with pytest.raises(errors.Conflict):
        await stale.plan()
    assert (await platform.job(job.id)).reason == job.reason


async def test_planning_goes_on_when_the_planner_goes(platform: Platform) -> None:
    agent = await platform.add_agent()
    await eventually(lambda: sum(replica.planner.epoch is not None for replica in platform.replicas) == 1)
    (planning,) = [replica for replica in platform.replicas if replica.planner.epoch is not None]
    await platform.close_replica(planning)
    job = await platform.submit()
    await eventually(lambda: AttemptKey(job.id, 1) in agent.executor.held)


async def test_silence_is_shown_and_ends_with_the_agents_return(postgres_url: str, tmp_path: Path) -> None:
    async with opened(postgres_url, tmp_path) as platform:
        services, first = platform.first.services, platform.first
        agent = await platform.add_agent()
        job = await platform.running(agent)
        await agent.stop()
        await eventually(lambda: not first.gateway.connected())
        await asyncio.gather(*first.gateway._background)
        await first.planner.stop()
        later = services.now() + leases.TTL + 1
        services.now = lambda: later
        await first.gateway._keep_replica()
        watcher = Planner(services, tick=0.05, ttl=0.0)
        watcher._patience_until = 0.0
        await watcher._hold()
        await watcher._sweep()
        lost = await platform.job(job.id)
        assert (lost.phase, lost.unreachable_since) == (Phase.RUNNING, later)
        await agent.start()
        back = await platform.job(job.id)
        assert (back.phase, back.unreachable_since) == (Phase.RUNNING, None)
