"""The change log: nobody who follows it skips or repeats a row, whoever writes, and followers wake at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psycopg
import pytest

from jupyter_gpu_platform.control.store import ChangeFeed, Cluster, Database, Reader, Transaction, Writer
from jupyter_gpu_platform.model.jobs import Job

pytestmark = pytest.mark.anyio
MakeJob = Callable[..., Job]

_WRITERS, _EACH = 8, 60


def put(name: str) -> Callable[[Transaction], None]:
    return lambda transaction: transaction.put_cluster(Cluster(name=name, created=1.0))


async def follow(database: Database, total: int) -> list[tuple[int, str]]:
    reader, feed = Reader(database), ChangeFeed(database)
    seen: list[tuple[int, str]] = []
    position = 0
    while len(seen) < total:
        # Small pages, so that the cursor moves while the writers write.
        page = await reader.changes(position, limit=7)
        seen += [(row.id, row.object_id) for row in page.items]
        position = page.next
        if not page.items:
            assert await feed.wait(position, 30.0)
    await reader.close()
    return seen


async def test_no_reader_skips_or_repeats_a_row(database_url: str) -> None:
    # Replicas share a PostgreSQL; a SQLite file belongs to one process.
    replicas = 1 if database_url.startswith("sqlite") else 2
    databases = [Database.open(database_url) for _ in range(replicas)]
    writers = [Writer(database) for database in databases]

    async def write(number: int) -> None:
        writer = writers[number % replicas]
        for count in range(_EACH):
            await writer.run(put(f"{number}-{count}"))

    following = [asyncio.create_task(follow(database, _WRITERS * _EACH)) for database in databases * 2]
    await asyncio.gather(*(write(number) for number in range(_WRITERS)))
    expected = {f"{number}-{count}" for number in range(_WRITERS) for count in range(_EACH)}
    logs = await asyncio.gather(*following)
    for seen in logs:
        assert seen == logs[0]
        assert [row_id for row_id, _ in seen] == sorted({row_id for row_id, _ in seen})
        assert len(seen) == len(expected)
        assert {name for _, name in seen} == expected
    for writer in writers:
        await writer.close()
    for database in databases:
        database.close()


async def test_two_contenders_of_a_lease_have_one_winner(database_url: str) -> None:
    replicas = 1 if database_url.startswith("sqlite") else 2
    databases = [Database.open(database_url) for _ in range(replicas)]
    writers = [Writer(databases[number % replicas]) for number in range(2)]
    for turn in range(10):
        now = turn * 100.0
        won = await asyncio.gather(
            *(
                writer.run(lambda t, who=f"{turn}-{number}", now=now: t.acquire_lease("planner", "", who, 50.0, now))
                for number, writer in enumerate(writers)
            )
        )
        assert [lease.epoch for lease in won if lease] == [turn + 1]
    for writer in writers:
        await writer.close()
    for database in databases:
        database.close()


async def test_list_then_follow_misses_nothing(writer: Writer, reader: Reader) -> None:
    names: set[str] = set()

    async def write() -> None:
        for count in range(100):
            await writer.run(put(f"c{count}"))

    writing = asyncio.create_task(write())
    listed, position = await reader.run(lambda t: (t.clusters(), t.revision()))
    names |= {cluster.name for cluster in listed}
    await writing
    followed = [row.object_id for row in (await reader.changes(position)).items]
    assert not names & set(followed)
    assert names | set(followed) == {f"c{count}" for count in range(100)}


async def test_a_follower_wakes_at_once_and_a_quiet_one_times_out(
    database: Database, writer: Writer, reader: Reader
) -> None:
    feed = ChangeFeed(database)
    position = await reader.position()
    assert await feed.wait(position, 0.05) is False
    waiting = asyncio.create_task(feed.wait(position, 60.0))
    await asyncio.sleep(0)
    began = time.monotonic()
    await writer.run(put("east"))
    assert await waiting is True
    assert time.monotonic() - began < 2.0
    assert await feed.wait(position, 0.0) is True


async def test_a_lost_listening_connection_comes_back(postgres_url: str) -> None:
    one, two = Database.open(postgres_url), Database.open(postgres_url)
    writer, feed = Writer(one), ChangeFeed(two)
    await writer.run(put("before"))
    assert await feed.wait(0, 30.0)
    position = two.changes.newest
    plain = postgres_url.replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(plain, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'jupyter-gpu-listener'"
        )
        assert await cursor.fetchone() == (2,)
    await writer.run(put("while nobody listened"))
    assert await feed.wait(position, 30.0)
    await writer.close()
    one.close()
    two.close()
