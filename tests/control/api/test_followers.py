"""Many followers of one job: each gets each record once and in order, wherever and whenever he begins."""

from __future__ import annotations

import asyncio
import contextlib
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.control.heads import KEPT, Head
from jupyter_gpu_platform.control.store import OutputLane
from jupyter_gpu_platform.control.store.rows import OutputPage
from jupyter_gpu_platform.model.records import encode_cursor

from .conftest import Service


def text(size: int) -> dict[str, Any]:
    return {"type": "stream", "name": "stdout", "text": "x" * size}


def followed(service: Service, job: str, **params: Any) -> list[dict[str, Any]]:
    """Follow a job to the end of the answer; keep-alives are left out."""
    with (
        service.client() as client,
        client.stream("GET", f"/api/v1/jobs/{job}/output", params={"follow": 1, **params}) as answer,
    ):
        return [msgspec.json.decode(line) for line in answer.iter_lines() if line]


def test_followers_from_any_cursor_at_any_time_get_the_same_log(service: Service) -> None:
    job, chance, written = service.job(), random.Random(11), 0
    service.run(job)
    with ThreadPoolExecutor(16) as pool:
        begun = []
        for _ in range(16):
            position = chance.randint(0, written)
            begun.append((position, pool.submit(followed, service, job, after=encode_cursor(position))))
            for _ in range(chance.randint(1, 4)):
                count = chance.randint(1, 40)
                service.append(job, written + 1, *[text(chance.choice((1, 50, 900))) for _ in range(count)])
                written += count
        service.end(job)
        for position, future in begun:
            *records, end = future.result(30)
            assert [record["seq"] for record in records] == list(range(position + 1, written + 1))
            assert [record["cursor"] for record in records] == [encode_cursor(record["seq"]) for record in records]
            assert end == {"type": "eof", "cursor": encode_cursor(written), "phase": "succeeded", "ended": True}


def test_a_limit_ends_what_is_followed(service: Service) -> None:
    job = service.job()
    service.run(job)
    service.append(job, 1, *[text(5) for _ in range(10)])
    *records, end = followed(service, job, limit=3)
    assert [record["seq"] for record in records] == [1, 2, 3]
    assert (end["cursor"], end["ended"]) == (encode_cursor(3), False)
    *records, end = followed(service, job, after=end["cursor"], limit=7)
    assert [record["seq"] for record in records] == [4, 5, 6, 7, 8, 9, 10]
    service.end(job)


def test_a_cursor_ahead_of_the_log_waits_and_misleads_nobody(service: Service, client: httpx.Client) -> None:
    job = service.job()
    service.run(job)
    service.append(job, 1, text(1), text(1))
    with ThreadPoolExecutor(2) as pool:
        ahead = pool.submit(followed, service, job, after=encode_cursor(4))
        usual = pool.submit(followed, service, job)
        service.append(job, 3, *[text(1) for _ in range(4)])
        service.end(job)
        assert [record.get("seq") for record in ahead.result(30)] == [5, 6, None]
        assert [record.get("seq") for record in usual.result(30)] == [1, 2, 3, 4, 5, 6, None]


class _Log(OutputLane):
    """A log in memory that counts how often it is read."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.reads = 0
        self.grown = asyncio.Event()

    def following(self, job: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def grow(self, count: int, size: int) -> None:
        self.lines += [msgspec.json.encode(text(size)) + b"\n"] * count
        self.grown.set()
        self.grown = asyncio.Event()

    async def next(self, job: str, after: int) -> OutputPage:
        self.reads += 1
        while len(self.lines) <= after:
            await self.grown.wait()
        found = [(position, 1, 0, self.lines[position - 1]) for position in range(after + 1, len(self.lines) + 1)]
        return OutputPage(found, len(self.lines))


async def _follow(head: Head, until: int) -> int:
    """Follow from the beginning; return how many lines came."""
    position = came = 0
    while position < until:
        before = position
        position, lines = head.after(position)
        assert lines.count(b"\n") == position - before
        came += position - before
        if position == before:
            assert not head.behind(position)
            await asyncio.wait_for(head.more(), 20)
    return came


def _head(service: Service, log: _Log, followers: int) -> Head:
    head = Head("j", log, service.services.reader, service.services.watch)
    head.followers = followers
    return head


async def _many_follow(service: Service, readers: int, batches: int) -> tuple[list[int], int]:
    log = _Log()
    head = _head(service, log, readers)
    following = [asyncio.create_task(_follow(head, batches * 3)) for _ in range(readers)]
    for _ in range(batches):
        log.grow(3, 10)
        while head.position < len(log.lines):
            await asyncio.wait_for(head.more(), 20)
    came = await asyncio.gather(*following)
    head.close()
    return came, log.reads


def test_readers_at_the_head_share_each_read(service: Service) -> None:
    came, reads = service.call(_many_follow(service, 200, 10))
    assert came == [30] * 200
    assert 10 <= reads <= 11


def test_what_a_head_keeps_is_bounded(service: Service) -> None:
    async def grow() -> tuple[bool, bool]:
        log = _Log()
        head = _head(service, log, 2)
        for _ in range(3):
            log.grow(1, KEPT)
            await asyncio.wait_for(head.more(), 20)
        head.close()
        return head.after(0) == (0, b"") and head.behind(0), head.after(2)[0] == 3

    assert service.call(grow()) == (True, True)


def test_an_old_look_keeps_nobody_who_has_read_beyond_it(service: Service) -> None:
    """One follower's look is shared; a second one comes back to a log that has grown since."""
    job = service.job()
    service.run(job)
    service.append(job, 1, text(1))
    path = f"/api/v1/jobs/{job}/output"
    with service.client() as client, client.stream("GET", path, params={"follow": 1}) as one:
        first = (msgspec.json.decode(line) for line in one.iter_lines() if line)
        assert next(first)["seq"] == 1
        service.append(job, 2, text(1), text(1))
        with client.stream("GET", path, params={"follow": 1, "after": encode_cursor(2)}) as other:
            # A blank line first would say that he was made to wait.
            assert msgspec.json.decode(next(other.iter_lines()))["seq"] == 3
        service.end(job)
        assert [record.get("seq") for record in first] == [2, 3, None]


async def _error_of(head: Head) -> errors.GpuPlatformError:
    try:
        await head.more()
    except errors.GpuPlatformError as error:
        return error
    raise AssertionError("it read something")


def test_a_read_that_fails_is_told_to_each_follower_by_an_error_of_his_own(service: Service) -> None:
    class Broken(_Log):
        async def next(self, job: str, after: int) -> OutputPage:
            raise errors.Unavailable("the store is away")

    async def read() -> list[errors.GpuPlatformError]:
        head = _head(service, Broken(), 3)
        told = await asyncio.gather(*(_error_of(head) for _ in range(3)))
        head.close()
        return told

    told = service.call(read())
    assert [type(error) for error in told] == [errors.Unavailable] * 3
    assert len({id(error) for error in told}) == 3


def test_a_line_that_is_no_record_leaves_nobody_waiting(service: Service) -> None:
    async def read() -> errors.GpuPlatformError:
        log = _Log()
        log.lines = [b"no record\n"]
        head = _head(service, log, 1)
        told = await _error_of(head)
        head.close()
        return told

    assert isinstance(service.call(read()), errors.InternalError)
