"""Values on their way between people, the control service and agents, over real sockets."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from jupyter_gpu_agent.executors import AttemptKey

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.model.jobs import Cell, Job, ObjectRef
from jupyter_gpu_platform.model.resources import Resources

from .conftest import ADA, FakeAgent, Platform, eventually, opened

pytestmark = pytest.mark.anyio

VALUE = b"a value " * 400_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def named(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def upload(platform: Platform, data: bytes = VALUE) -> ObjectRef:
    ref, _ = await platform.first.services.objects.put(ADA, named(data), pieces(data))
    return ref


async def cell(platform: Platform, ref: ObjectRef) -> Job:
    source = Cell(code="1", values=ref)
    return await platform.submit(source=source, resources=Resources())


async def fetched(agent: FakeAgent, key: AttemptKey, digest: str) -> bytes:
    async with agent.core.fetch(key, digest) as (size, parts):
        data = b"".join([part async for part in parts])
    assert len(data) == size
    return data


async def kept(platform: Platform, data: bytes) -> bytes:
    objects = platform.first.services.objects
    return b"".join([part async for part in objects.read(await objects.find(ADA, named(data)))])


async def test_a_value_goes_in_and_another_comes_out(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await cell(platform, await upload(platform))
        key = AttemptKey(job.id, 1)
        await eventually(lambda: key in agent.executor.held)
        # Before the claim: the worker starts while its values come.
        assert await fetched(agent, key, named(VALUE)) == VALUE
        assert await agent.claim(job.id)
        result = VALUE[::-1]
        await agent.core.store(key, "inc", named(result), len(result), pieces(result))
        assert await kept(platform, result) == result
        # Told again, as by a runner that lost the answer, it is the same object.
        await agent.core.store(key, "inc", named(result), len(result), pieces(result))
        assert len(list((tmp_path / "objects").iterdir())) == 2


async def test_an_attempt_gets_only_what_its_spec_names(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        await upload(platform, b"another value")
        job = await cell(platform, await upload(platform))
        key = AttemptKey(job.id, 1)
        await eventually(lambda: key in agent.executor.held)
        for attempt, digest in ((key, named(b"another value")), (AttemptKey(job.id, 2), named(VALUE))):
            with pytest.raises(errors.NotFound):
                await fetched(agent, attempt, digest)


async def test_another_clusters_agent_gets_and_puts_nothing(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent, other = await platform.add_agent("c1"), await platform.add_agent("c2")
        ref = await upload(platform)
        source = Cell(code="1", values=ref)
        job = await platform.running(agent, source=source)
        key = AttemptKey(job.id, 1)
        with pytest.raises(errors.NotFound):
            await fetched(other, key, ref.digest)
        with pytest.raises(errors.ClaimLost):
            await other.core.store(key, "inc", named(b"x"), 1, pieces(b"x"))
        assert len(list((tmp_path / "objects").iterdir())) == 1


@pytest.mark.parametrize("ended", [False, True])
async def test_only_the_incarnation_that_holds_the_attempt_puts(database_url: str, tmp_path: Path, ended: bool) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        key = AttemptKey(job.id, 1)
        if ended:
            await agent.end(job.id)
        with pytest.raises(errors.ClaimLost):
            await agent.core.store(key, "inc" if ended else "another", named(b"x"), 1, pieces(b"x"))
        with pytest.raises(errors.NotFound):
            await kept(platform, b"x")


async def test_a_claim_lost_while_the_bytes_come_leaves_nothing(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)

        async def slow() -> AsyncIterator[bytes]:
            yield b"1"
            await eventually(lambda: any((tmp_path / "objects").glob("*")))
            await agent.end(job.id)
            yield b"2"

        with pytest.raises(errors.ClaimLost):
            await agent.core.store(AttemptKey(job.id, 1), "inc", named(b"12"), 2, slow())
        assert list((tmp_path / "objects").iterdir()) == []


async def test_a_wrong_digest_is_the_makers_mistake(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        with pytest.raises(errors.DigestMismatch):
            await agent.core.store(AttemptKey(job.id, 1), "inc", named(b"12"), 2, pieces(b"21"))


async def test_without_a_service_transfers_wait_for_another_try(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as platform:
        agent = await platform.add_agent()
        job = await platform.running(agent)
        await agent.stop()
        with pytest.raises(errors.Unavailable):
            await fetched(agent, AttemptKey(job.id, 1), named(b"x"))
