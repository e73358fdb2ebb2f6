"""The output lane: each record once, in order, from whoever holds the claim, and never in the main writer's way."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import zlib
from pathlib import Path

import pytest

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.control.store import Database, OutputLane, Writer
from jupyter_gpu_platform.control.store.output_log import packed, unpacked
from jupyter_gpu_platform.model.records import StreamKey

pytestmark = pytest.mark.anyio

KEY = StreamKey("j1", 1)
PLENTY = 10**9


def record(seq: int, text: str = "x") -> bytes:
    return json.dumps({"seq": seq, "time": 5.0, "type": "stream", "name": "stdout", "text": text}).encode() + b"\n"


def lines(first: int, count: int, text: str = "x") -> bytes:
    return b"".join(record(seq, text) for seq in range(first, first + count))


async def append(lane: OutputLane, first: int, count: int, key: StreamKey = KEY, who: str = "i", at: str = "c") -> int:
    return await lane.append(key, who, at, first, count, lines(first, count))


async def everything(lane: OutputLane, job: str = "j1", limit: int = 1000, size: int = 2**20) -> list[bytes]:
    found: list[bytes] = []
    after = 0
    while True:
        page = await lane.read(job, after, limit, size)
        if not page.records:
            assert page.next == after
            return found
        assert [position for position, *_ in page.records] == list(range(after + 1, page.next + 1))
        found += [line for *_, line in page.records]
        after = page.next


@pytest.fixture
async def opened(lane: OutputLane) -> OutputLane:
    assert await lane.open_stream(KEY, "i", "c", PLENTY) == 1
    return lane


async def test_overlaps_gaps_and_duplicates_change_nothing(opened: OutputLane) -> None:
    assert await append(opened, 1, 3) == 4
    assert await append(opened, 1, 3) == 4
    assert await append(opened, 6, 2) == 4
    assert await append(opened, 2, 4) == 6
    assert await append(opened, 1, 1) == 6
    assert await append(opened, 6, 0) == 6
    assert await opened.stream_end(KEY) == 6
    assert await opened.stream_end(StreamKey("j1", 9)) == 1
    assert await everything(opened) == [record(seq) for seq in range(1, 6)]
    assert await opened.size("j1") == (5, len(lines(1, 5)))
    # To open it again is no new beginning.
    assert await opened.open_stream(KEY, "i", "c", PLENTY) == 6


async def test_any_order_of_delivery_keeps_each_record_once(opened: OutputLane) -> None:
    chance = random.Random(7)
    total, expected = 200, 1
    while expected <= total:
        sends = []
        for _ in range(8):
            first = max(1, expected + chance.randint(-6, 4))
            sends.append(append(opened, first, min(chance.randint(1, 9), total + 1 - min(first, total))))
        expected = max(await asyncio.gather(*sends))
    assert (await everything(opened, limit=17))[:total] == [record(seq) for seq in range(1, total + 1)]


@pytest.mark.parametrize(("count", "body"), [(2, lines(1, 1)), (1, lines(1, 2)), (1, b'{"seq":1}'), (0, b"x")])
async def test_what_is_not_whole_lines_is_refused(opened: OutputLane, count: int, body: bytes) -> None:
    with pytest.raises(errors.InvalidRequest):
        await opened.append(KEY, "i", "c", 1, count, body)
    assert await opened.size("j1") == (0, 0)


async def test_the_fence(opened: OutputLane) -> None:
    await append(opened, 1, 1)
    for key, who, at in (
        (KEY, "another", "c"),
        (KEY, "i", "another"),
        (StreamKey("j1", 1, 1), "i", "c"),
        (StreamKey("nobody", 1), "i", "c"),
    ):
        with pytest.raises(errors.ClaimLost):
            await append(opened, 2, 1, key, who, at)
    with pytest.raises(errors.ClaimLost):
        await opened.open_stream(KEY, "another", "c", PLENTY)
    newer = StreamKey("j1", 2)
    await opened.open_stream(newer, "k", "c", PLENTY)
    with pytest.raises(errors.ClaimLost):
        await append(opened, 2, 1)
    with pytest.raises(errors.ClaimLost):
        await opened.open_stream(KEY, "i", "c", PLENTY)
    with pytest.raises(errors.ClaimLost):
        await opened.open_stream(StreamKey("j1", 1, 1), "i", "c", PLENTY)
    await append(opened, 1, 1, newer, "k")
    assert [found[1] for found in (await opened.read("j1")).records] == [1, 2]


async def test_a_refused_append_hurts_no_neighbour(opened: OutputLane) -> None:
    sends = [append(opened, 1, 1), append(opened, 2, 1, who="another"), append(opened, 2, 1)]
    first, refused, second = await asyncio.gather(*sends, return_exceptions=True)
    assert (first, second) == (2, 3)
    assert isinstance(refused, errors.ClaimLost)


async def test_replicas_share_one_dense_log(opened: OutputLane) -> None:
    other = StreamKey("j1", 1, 1)
    await opened.open_stream(other, "k", "c", PLENTY)
    for seq in range(1, 20):
        await asyncio.gather(append(opened, seq, 1), append(opened, seq, 1, other, "k"))
    records = (await opened.read("j1")).records
    assert [position for position, *_ in records] == list(range(1, 39))
    for replica in (0, 1):
        assert [line for _, _, found, line in records if found == replica] == [record(seq) for seq in range(1, 20)]


async def test_at_its_limit_a_stream_is_cut_with_a_notice_and_keeps_its_end(lane: OutputLane) -> None:
    await lane.open_stream(KEY, "i", "c", len(lines(1, 3)) + 5)
    assert await append(lane, 1, 2) == 3
    assert await append(lane, 3, 4) == 7
    assert await append(lane, 7, 1) == 8
    end = b'{"seq":8,"time":6.0,"type":"exit","exit_code":0}\n'
    assert await lane.append(KEY, "i", "c", 8, 1, end) == 9
    found = await everything(lane)
    assert found[:3] == [record(seq) for seq in (1, 2, 3)]
    assert found[4:] == [end]
    notice = json.loads(found[3])
    assert (notice["type"], notice["code"], notice["seq"], notice["time"]) == ("gap", "output_limit", 4, 5.0)
    assert await lane.stream_end(KEY) == 9


async def test_pages_keep_their_limits_and_make_progress(opened: OutputLane) -> None:
    await opened.append(KEY, "i", "c", 1, 40, lines(1, 40, "y" * 1000))
    page = await opened.read("j1", 0, limit_bytes=5000)
    assert 1 <= len(page.records) <= 5
    assert len((await opened.read("j1", 13, limit_records=4)).records) == 4
    assert len((await opened.read("j1", 13, limit_bytes=1)).records) == 1
    assert (await opened.read("j1", 40)) == ([], 40)
    assert await everything(opened, size=3000) == [record(seq, "y" * 1000) for seq in range(1, 41)]


def test_what_was_packed_before_zstd_was_used_is_still_read() -> None:
    assert unpacked(zlib.compress(lines(1, 3), 1)) == unpacked(packed(lines(1, 3))) == lines(1, 3)


async def test_a_follower_wakes_at_once(opened: OutputLane) -> None:
    waiting = asyncio.create_task(opened.next("j1", 0))
    for _ in range(3):
        await asyncio.sleep(0)
    await append(opened, 1, 2)
    async with asyncio.timeout(4):
        page = await waiting
        assert (page, page.next) == (await opened.next("j1", 0), 2)
        assert [position for position, *_ in (await opened.next("j1", 1)).records] == [2]


async def test_every_replica_reads_wakes_and_appends(postgres_url: str, tmp_path: Path) -> None:
    databases = [Database.open(postgres_url) for _ in range(2)]
    lanes = [OutputLane(database, str(tmp_path)) for database in databases]
    jobs = [f"j{number}" for number in range(6)]
    for job in jobs:
        await lanes[0].open_stream(StreamKey(job, 1), "i", "c", PLENTY)
    waiting = asyncio.create_task(lanes[1].next(jobs[-1], 0))

    async def send(lane: OutputLane, job: str) -> None:
        # Both replicas send everything, as after a reconnect elsewhere.
        for first in range(1, 40, 3):
            await append(lane, first, 3, StreamKey(job, 1))

    await asyncio.gather(*(send(lane, job) for lane in lanes for job in random.sample(jobs, len(jobs))))
    assert (await waiting).next >= 1
    for job in jobs:
        assert await everything(lanes[1], job) == [record(seq) for seq in range(1, 40)]
    for lane in lanes:
        await lane.close()
    for database in databases:
        database.close()


async def test_a_stalled_main_writer_holds_up_no_output(opened: OutputLane, writer: Writer) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def stall(transaction: object) -> None:
        reached.set()
        go_on.wait(60)

    stalling = asyncio.create_task(writer.run(stall))
    await asyncio.to_thread(reached.wait, 30)
    async with asyncio.timeout(10):
        assert await append(opened, 1, 1) == 2
        assert await everything(opened) == [record(1)]
    assert not stalling.done()
    go_on.set()
    await stalling


async def test_sealed_output_reads_the_same(opened: OutputLane, tmp_path: Path, database: Database) -> None:
    other = StreamKey("j1", 1, 1)
    await opened.open_stream(other, "k", "c", PLENTY)
    for first in range(1, 300, 5):
        await append(opened, first, 5)
        await append(opened, first, 5, other, "k")
    before = [await opened.read("j1", after, 13) for after in range(0, 600, 13)]
    size = await opened.size("j1")
    assert await opened.seal("j1") is True
    assert await opened.seal("j1") is False
    (file,) = (tmp_path / "segments").iterdir()
    assert file.stat().st_size < size[1]
    with database.read_output() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM output_chunk").scalar() == 0
    assert [await opened.read("j1", after, 13) for after in range(0, 600, 13)] == before
    assert await opened.size("j1") == size
    assert await opened.stream_end(KEY) == 301


async def test_a_job_that_is_tried_again_goes_on_after_its_sealed_output(opened: OutputLane) -> None:
    await append(opened, 1, 4)
    await opened.seal("j1")
    again = StreamKey("j1", 2)
    await opened.open_stream(again, "k", "c", PLENTY)
    await append(opened, 1, 3, again, "k")
    expected = [record(seq) for seq in (1, 2, 3, 4, 1, 2, 3)]
    assert await everything(opened, limit=2) == await everything(opened) == expected
    assert await opened.seal("j1") is True
    assert await everything(opened, limit=3) == await everything(opened) == expected


async def test_two_who_seal_at_once_lose_nothing(opened: OutputLane) -> None:
    await append(opened, 1, 50)
    done = await asyncio.gather(*(opened.seal("j1") for _ in range(4)))
    assert done.count(True) == 1
    assert await everything(opened) == [record(seq) for seq in range(1, 51)]


async def test_deleted_output_is_gone_and_nothing_more_is_taken(opened: OutputLane, tmp_path: Path) -> None:
    await append(opened, 1, 2)
    await opened.seal("j1")
    await append(opened, 3, 2)
    await opened.delete("j1")
    assert await everything(opened) == []
    assert await opened.size("j1") == (0, 0)
    assert list((tmp_path / "segments").iterdir()) == []
    with pytest.raises(errors.ClaimLost):
        await append(opened, 5, 1)
    await opened.delete("j1")
    assert await opened.seal("j1") is False


async def test_segments_go_to_any_fsspec_url(database: Database) -> None:
    lane = OutputLane(database, f"memory://store-{id(database)}")
    await lane.open_stream(KEY, "i", "c", PLENTY)
    await append(lane, 1, 9)
    await lane.seal("j1")
    assert await everything(lane) == [record(seq) for seq in range(1, 10)]
    await lane.delete("j1")
    assert await everything(lane) == []
    await lane.close()
