"""One reader of the change log for all who follow it: each sees every row that is theirs once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from jupyter_gpu_platform.control import tail as tails
from jupyter_gpu_platform.control.metrics import Metrics
from jupyter_gpu_platform.control.store import ChangeFeed, ChangeFilter, Database, Reader, Writer
from jupyter_gpu_platform.control.store.transaction import Transaction
from jupyter_gpu_platform.control.tail import ChangeTail
from jupyter_gpu_platform.model.jobs import Command, Job, JobSpec, new_job_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[tuple[Writer, Reader, ChangeTail]]:
    database = Database.open(f"sqlite:///{tmp_path}/control.db")
    writer, reader = Writer(database), Reader(database)
    tail = ChangeTail(reader, ChangeFeed(database), Metrics(), lambda row: row.object_id.encode())
    tail.start()
    yield writer, reader, tail
    await tail.stop()
    await writer.close()
    await reader.close()
    database.close()


def _insert(owner: str) -> tuple[bytes, Callable[[Transaction], None]]:
    spec = JobSpec(source=Command(argv=("true",)))
    job = Job(id=new_job_id(), spec=spec, owner=owner, project="p", organisation="o", created=1.0)
    return job.id.encode(), lambda tx: tx.insert_job(job)


async def _seen(reader: Reader, tail: ChangeTail, allowed: ChangeFilter, wanted: int) -> list[bytes]:
    """Follow as the API does: from the database until the tail has what is next."""
    found: list[bytes] = []
    position = 0
    with tail.follow():
        while len(found) < wanted:
            if tail.covers(position):
                lines, position = tail.after(position, 3, allowed)
            else:
                page = await reader.changes(position, 3, allowed)
                lines, position = [row.object_id.encode() for row in page.items], page.next
            found += lines
            if not lines:
                await tail.news(position)
    return found


@pytest.mark.parametrize("kept", [4, 5000])
async def test_each_follower_sees_every_row_of_his_once_in_order(
    store: tuple[Writer, Reader, ChangeTail], monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(tails, "KEPT_ROWS", kept)
    writer, reader, tail = store
    made = [(owner, *_insert(owner)) for number in range(60) for owner in ("ada", "eve")[: 1 + number % 2]]
    theirs = {owner: [job for whose, job, _ in made if whose == owner] for owner in ("ada", "eve")}
    for _, _, operation in made[:20]:
        await writer.run(operation)
    following = [
        asyncio.create_task(_seen(reader, tail, ChangeFilter(owner=owner), len(theirs[owner])))
        for owner in ("ada", "eve") * 5
    ]
    everything = asyncio.create_task(_seen(reader, tail, ChangeFilter(), len(made)))
    for _, _, operation in made[20:]:
        await writer.run(operation)
    assert [*await asyncio.gather(*following)] == [theirs["ada"], theirs["eve"]] * 5
    assert await everything == [job for _, job, _ in made]


async def test_what_is_committed_while_a_follower_comes_wakes_him(store: tuple[Writer, Reader, ChangeTail]) -> None:
    writer, reader, tail = store
    position = await reader.position()
    await writer.run(_insert("ada")[1])
    with tail.follow():
        assert await tail.news(position)
