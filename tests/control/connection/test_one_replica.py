"""An agent and a control service over real sockets, with the real store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from jupyter_gpu_agent.connection import Endpoint
from jupyter_gpu_agent.executors import AttemptKey
from msgspec.structs import replace
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.control.store import Transaction
from jupyter_gpu_platform.model.jobs import Limits, Phase, Reason
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.model.records import StreamKey
from jupyter_gpu_platform.model.resources import Resources
from jupyter_gpu_platform.wire import codec
from jupyter_gpu_platform.wire.messages import Hello, Refused, Started
from jupyter_gpu_platform.wire.session import Close, Effect

from .conftest import ADA, eventually, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_job_is_placed_claimed_written_and_ended(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        assert job.phase is Phase.RUNNING
        desired = agent.executor.applied[AttemptKey(job.id, 1)]
        assert len(desired.gpus) == 1
        await agent.write(job.id, 1, 3)
        await agent.end(job.id)
        ended = await platform.job(job.id)
        assert (ended.phase, ended.exit_code) == (Phase.SUCCEEDED, 0)
        await eventually(lambda: AttemptKey(job.id, 1) in agent.executor.forgotten)

        async def forgotten() -> bool:
            (attempt,) = await platform.first.services.reader.attempts(job.id)
            return attempt.forgotten

        await eventually(forgotten)

        async def written() -> bool:
            return await platform.texts(job.id) == ["1\n", "2\n", "3\n"]

        await eventually(written)


async def test_of_two_incarnations_one_wins(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.submit()
        await eventually(lambda: AttemptKey(job.id, 1) in agent.executor.held)
        granted = await asyncio.gather(*(agent.claim(job.id, f"inc{n}") for n in range(5)))
        assert sum(granted) == 1
        winner = f"inc{granted.index(True)}"
        assert await agent.claim(job.id, winner)  # asked again, its answer may have been lost
        loser = f"inc{(granted.index(True) + 1) % 5}"
        with pytest.raises(errors.ClaimLost):
            await agent.write(job.id, 1, 1, loser)
        await agent.end(job.id, loser, exit_code=1)
        assert await platform.phase(job.id) is Phase.RUNNING


async def test_another_clusters_agent_has_no_say(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        mine = await platform.add_agent("c1")
        job = await platform.running(mine)
        other = await platform.add_agent("c2")
        assert not await other.claim(job.id)
        await other.end(job.id, exit_code=1)
        await other.write(job.id, 1, 1)
        await eventually(lambda: other.core.fenced(AttemptKey(job.id, 1)))
        assert await platform.phase(job.id) is Phase.RUNNING
        assert await platform.texts(job.id) == []


async def test_output_is_there_once_however_often_the_connection_is_cut(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        for part in range(6):
            await agent.write(job.id, part * 50 + 1, 50)
            for socket in list(platform.first.gateway._opened):
                socket.close("cut")
            await agent.write(job.id, part * 50 + 1, 50)  # the runner is in doubt, and sends again
        await eventually(lambda: agent.core.durable(StreamKey(job.id, 1)) == 301)
        assert await platform.texts(job.id) == [f"{n}\n" for n in range(1, 301)]


async def test_an_end_reported_while_the_service_is_away_is_committed_later(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        await agent.stop()
        ending = asyncio.create_task(agent.end(job.id))
        await eventually(lambda: agent.core.session.unacknowledged == 1)
        assert await platform.phase(job.id) is Phase.RUNNING
        await agent.start()
        await ending
        assert await platform.phase(job.id) is Phase.SUCCEEDED


async def test_cancelling_reaches_the_agent_and_ends_on_its_proof(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        await platform.first.services.jobs.cancel(job.id, ADA)
        await eventually(lambda: AttemptKey(job.id, 1) in agent.executor.stopped)
        assert await platform.phase(job.id) is Phase.RUNNING
        await agent.core.ended(Report(job=job.id, attempt=1, incarnation="inc", exit_code=143))
        assert await platform.phase(job.id) is Phase.CANCELLED


async def test_interrupts_reach_the_parked_runner(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        parked = asyncio.create_task(agent.core.wait_wanted(StreamKey(job.id, 1), 1, 10**6, 0, 20.0))
        await platform.first.services.jobs.interrupt(job.id, ADA)
        wanted = await parked
        assert (wanted.action, wanted.interrupts) == ("run", 1)


async def test_what_was_claimed_and_is_gone_is_reported(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        await agent.stop()
        agent.executor.held.clear()
        await agent.start()

        async def failed() -> bool:
            return await platform.phase(job.id) is Phase.FAILED

        await eventually(failed)
        reason = (await platform.job(job.id)).reason
        assert reason is not None
        assert reason.code == "lost"


async def test_a_revoked_agent_is_closed_at_once_and_refused_after(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        endpoint = agent.endpoints[0]
        await platform.first.services.identity.revoke_agent(endpoint.agent_id)
        await eventually(lambda: not platform.first.gateway.connected(), patience=3.0)
        with pytest.raises(HTTPClientError) as caught:
            await dial(endpoint)
        assert caught.value.code == 401


async def dial(endpoint: Endpoint, lane: str = "control") -> WebSocketClientConnection:
    url = f"ws{endpoint.url.removeprefix('http')}/api/v1/agents/{endpoint.agent_id}/{lane}"
    return await websocket_connect(HTTPRequest(url, headers={"Authorization": f"Bearer {endpoint.credential}"}))


async def test_an_agent_of_another_protocol_is_told_why(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent(start=False)
        socket = await dial(agent.endpoints[0])
        await socket.write_message(
            codec.encode(Hello(protocol=99, version="9.0", capabilities=(), boot_id="b")), binary=True
        )
        answer = codec.decode_from_service(await socket.read_message() or b"")
        assert isinstance(answer, Refused)
        assert "protocol 99" in answer.message
        assert await socket.read_message() is None
        socket.close()


async def test_a_newer_connection_closes_the_older(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent(start=False)
        first, second = await dial(agent.endpoints[0]), await dial(agent.endpoints[0])
        for socket in (first, second):
            hello = Hello(protocol=1, version="0", capabilities=(), boot_id="b")
            await socket.write_message(codec.encode(hello), binary=True)
            await socket.read_message()
        answer = codec.decode_from_service(await first.read_message() or b"")
        assert isinstance(answer, Refused)
        assert answer.code == "superseded"
        first.close()
        second.close()


async def test_unknown_attempts_are_kept_until_an_admin_decides(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent(start=False)
        stray = AttemptKey("jstray", 4)
        await agent.prepare()
        agent.executor.held[stray] = "inc"
        await agent.start()
        services = platform.first.services
        (row,) = await services.reader.unknown("c1")
        assert (row.job, row.attempt, row.incarnation) == ("jstray", 4, "inc")
        assert agent.core.session.welcome is not None
        assert [item.job for item in agent.core.session.welcome.unknown] == ["jstray"]
        assert agent.executor.stopped == agent.executor.forgotten == []
        await platform.first.gateway.forget_unknown("c1", "jstray", 4)
        await eventually(lambda: stray in agent.executor.forgotten)

        async def decided() -> bool:
            return not await services.reader.unknown("c1")

        await eventually(decided)


async def test_progress_is_the_jobs_reason_until_it_runs(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.submit()
        await eventually(lambda: AttemptKey(job.id, 1) in agent.executor.held)
        pulling = Reason(code="pulling", message="pulling the image")
        agent.core.progress(Started(job=job.id, attempt=1, reason=pulling))

        async def told() -> bool:
            return (await platform.job(job.id)).reason == pulling

        await eventually(told)
        assert await agent.claim(job.id)
        assert (await platform.job(job.id)).reason is None


async def test_gpus_are_never_given_twice_and_the_rest_waits_with_a_reason(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        jobs = [await platform.running(agent) for _ in range(2)]
        given = {agent.executor.applied[AttemptKey(job.id, 1)].gpus for job in jobs}
        assert given == {("GPU-0",), ("GPU-1",)}
        third = await platform.submit()

        async def reason() -> str:
            found = (await platform.job(third.id)).reason
            return found.code if found else ""

        async def waits() -> bool:
            return await reason() == "gpus_busy"

        await eventually(waits)
        await agent.end(jobs[0].id)
        await eventually(lambda: AttemptKey(third.id, 1) in agent.executor.held)


async def test_a_job_that_waits_too_long_fails(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        job = await platform.submit(limits=Limits(max_queue_seconds=0.01), resources=Resources())

        async def failed() -> bool:
            return await platform.phase(job.id) is Phase.FAILED

        await eventually(failed)


async def test_an_inspection_shows_what_the_agent_holds(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        found = await platform.first.gateway.inspect(agent.endpoints[0].agent_id)
        assert [(item.job, item.incarnation) for item in found.owned] == [(job.id, "inc")]
        with pytest.raises(errors.Unavailable):
            await platform.first.gateway.inspect("anobody")


async def test_a_service_that_starts_on_a_file_places_nothing_before_the_agent_has_spoken(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/control.db"
    async with opened(url, tmp_path) as platform:
        agent = await platform.add_agent()
        await agent.stop()
        await platform.close_replica(platform.first)
        # The store was left, or copied, while the agent was connected.
        again = await platform.add_replica()
        cluster = (await again.services.reader.clusters())[0]
        assert cluster.state == "away"
        job = await platform.submit()

        async def waits_for_the_cluster() -> bool:
            reason = (await platform.job(job.id)).reason
            return reason is not None and reason.code == "cluster_away"

        await eventually(waits_for_the_cluster)
        agent.endpoints = [endpoint._replace(url=again.url) for endpoint in agent.endpoints]
        await agent.start()
        await eventually(lambda: AttemptKey(job.id, 1) in agent.executor.held)


async def test_an_agent_that_was_given_up_while_it_was_connected_says_hello_again(
    database_url: str, tmp_path: Path
) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        server = platform.first
        await eventually(lambda: bool(server.gateway.connected()))

        def give_up(tx: Transaction) -> None:
            cluster = tx.cluster("c1")
            assert cluster is not None
            tx.put_cluster(replace(cluster, state="away"))

        await server.services.writer.run(give_up)
        job = await platform.running(agent)
        assert job.cluster == "c1"


async def test_what_an_agent_counts_is_among_the_services_figures(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        server = platform.first

        def figure(name: str) -> float | None:
            return server.services.metrics.registry.get_sample_value(f"jgp_cluster_{name}", {"cluster": "c1"})

        agent = await platform.add_agent()
        job = await platform.running(agent)
        assert not await agent.claim(job.id, "another")
        for socket in list(server.gateway._opened):
            socket.close("cut")
        # Told anew on each connection.
        await eventually(lambda: (figure("connections_total") or 0) >= 2)
        assert figure("connection_failures_total") == 1
        assert figure("calls_refused_total") == 1
        assert figure("action_failures_total") == figure("reports_waiting") == 0
        await agent.stop()
        await eventually(lambda: figure("connections_total") is None)


async def test_an_agent_stops_in_the_moment_in_which_its_session_fails(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/control.db", tmp_path) as platform:
        agent = await platform.add_agent()
        running = agent._task
        assert running is not None

        def tick(now: float) -> list[Effect]:
            running.cancel()
            return [Close("superseded", "there is a newer connection", 0.0)]

        agent.core.session.tick = tick  # type: ignore[method-assign]  # both in one step of the loop
        await eventually(running.done)
        assert running.cancelled()
