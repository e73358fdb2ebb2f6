"""What somebody types where a job's code asks: through either replica to the runner, and into no log and no store."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
import pytest
from jupyter_gpu_agent import core as agent_core
from jupyter_gpu_agent.executors import AttemptKey, InputAnswer, Wanted

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.client import AsyncClient
from jupyter_gpu_platform.control.server import Server
from jupyter_gpu_platform.model.records import StreamKey
from jupyter_gpu_platform.wire import session

from .conftest import ADA, FakeAgent, eventually, opened

pytestmark = pytest.mark.anyio

TOKEN = "token-of-ada-in-this-test"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client(replica: Server) -> AsyncClient:
    replica.services.identity.add_fixed(TOKEN, ADA)
    return AsyncClient(replica.url, TOKEN)


def everything_below(directory: Path) -> list[bytes]:
    return [file.read_bytes() for file in directory.rglob("*") if file.is_file()]


async def heard(agent: FakeAgent, job: str, known: int = 0, patience: float = 20.0) -> Wanted:
    return await agent.core.wait_wanted(StreamKey(job, 1), 10**6, 10**6, known, patience)


async def test_an_answer_reaches_the_runner_that_waits(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        parked = asyncio.create_task(heard(agent, job.id))
        async with client(platform.first) as ada:
            await ada.answer(job.id, 1, "forty-two")
            assert (await parked).inputs == (InputAnswer(1, "forty-two"),)
            # Until the runner says that it has it, it is told again; a repetition changes nothing.
            await ada.answer(job.id, 1, "forty-three")
            assert (await heard(agent, job.id)).inputs == (InputAnswer(1, "forty-two"),)
            assert (await heard(agent, job.id, known=1, patience=0.01)).inputs == ()
            await ada.answer(job.id, 2, "")
            assert (await heard(agent, job.id, known=1)).inputs == (InputAnswer(2, ""),)


async def test_it_is_passed_on_by_the_replica_that_does_not_hold_the_agent(postgres_url: str, tmp_path: Path) -> None:
    async with opened(postgres_url, tmp_path, replicas=2) as platform:
        agent = await platform.add_agent(start=False)
        agent.endpoints = agent.endpoints[:1]
        await agent.start()
        job = await platform.running(agent)
        async with client(platform.replicas[1]) as ada:
            await ada.answer(job.id, 1, "far")
        assert (await heard(agent, job.id)).inputs == (InputAnswer(1, "far"),)


async def test_nothing_of_it_is_stored_or_logged(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "correct horse battery staple"
    caplog.set_level(logging.DEBUG)
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        async with client(platform.first) as ada:
            await ada.answer(job.id, 1, secret)
        assert (await heard(agent, job.id)).inputs[0].value == secret
        events = await platform.first.services.reader.events(job.id)
        changes = await platform.first.services.reader.changes(0)
        assert secret not in repr(events) + repr(changes)
    assert not any(secret.encode() in content for content in everything_below(tmp_path))
    assert secret not in caplog.text


async def test_nobody_asks_before_the_claim_and_after_the_end(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.submit()
        await eventually(lambda: AttemptKey(job.id, 1) in agent.executor.held)
        async with client(platform.first) as ada:
            with pytest.raises(errors.Conflict, match="nothing runs"):
                await ada.answer(job.id, 1, "early")
            assert await agent.claim(job.id)
            await agent.end(job.id)
            with pytest.raises(errors.Conflict, match="nothing runs"):
                await ada.answer(job.id, 1, "late")


async def test_an_agent_that_never_said_it_could_is_not_told(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CAPABILITIES", ("interrupt", "inspect"))
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        async with client(platform.first) as ada:
            with pytest.raises(errors.Conflict, match="can't be answered"):
                await ada.answer(job.id, 1, "x")


async def test_an_answer_may_have_64_kib(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        async with client(platform.first) as ada:
            await ada.answer(job.id, 1, "x" * 65_536)
            with pytest.raises(errors.InvalidRequest):
                await ada.answer(job.id, 2, "x" * 65_537)
        assert len((await heard(agent, job.id)).inputs[0].value) == 65_536


async def test_only_the_newest_answers_are_kept(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        async with httpx.AsyncClient(base_url=platform.first.url, trust_env=False) as http:
            platform.first.services.identity.add_fixed(TOKEN, ADA)
            for request in range(1, agent_core.ANSWERS + 3):
                body = {"request": request, "value": str(request)}
                headers = {"Authorization": f"Bearer {TOKEN}"}
                answer = await http.post(f"/api/v1/jobs/{job.id}/input", json=body, headers=headers)
                assert (answer.status_code, answer.content) == (202, b"")
        last = agent_core.ANSWERS + 2

        async def newest() -> bool:
            inputs = (await heard(agent, job.id)).inputs
            return [answer.request for answer in inputs] == list(range(3, last + 1))

        await eventually(newest)
