"""What is kept of newest output for followers: in order, once, never with a hole, never more than there is room."""

from __future__ import annotations

import random

from jupyter_gpu_platform.control.store import recent
from jupyter_gpu_platform.control.store.output_log import Chunk
from jupyter_gpu_platform.control.store.recent import Recent


def chunk(first: int, count: int, size: int = 1) -> Chunk:
    return Chunk(first + count - 1, count, 1, 0, b"x" * size)


def test_a_reader_who_takes_what_is_there_and_reads_the_rest_elsewhere_misses_nothing() -> None:
    chance = random.Random(3)
    kept, last, position = Recent(), 0, 0
    with kept.kept("a"):
        for _ in range(2000):
            count = chance.randint(1, 5)
            if chance.random() < 0.9:
                kept.add("a", [chunk(last + 1, count)])  # else another replica has committed it
            last += count
            if chance.random() < 0.3:
                for taken in kept.take("a", position):
                    assert taken.first <= position + 1 <= taken.last
                    position = taken.last
            if chance.random() < 0.05:
                position = chance.randint(position, last)  # read from the database
            assert position <= last
        while found := kept.take("a", position):
            position = found[-1].last
        assert position <= last


def test_what_nobody_follows_is_not_kept() -> None:
    kept = Recent()
    kept.add("a", [chunk(1, 2)])
    with kept.kept("a"):
        assert kept.take("a", 0) == []
        kept.add("a", [chunk(3, 2)])
        assert kept.take("a", 0) == []
        assert kept.take("a", 2) == [chunk(3, 2)]
        assert kept.take("a", 2) == []
        kept.add("a", [chunk(5, 2)])
    with kept.kept("a"):
        assert kept.take("a", 4) == []


def test_one_who_follows_anew_before_the_last_one_has_left_keeps_what_is_there() -> None:
    kept = Recent()
    first, second = kept.kept("a"), kept.kept("a")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    kept.add("a", [chunk(1, 1)])
    assert kept.take("a", 0) == [chunk(1, 1)]
    second.__exit__(None, None, None)


def test_a_deleted_log_is_forgotten() -> None:
    kept = Recent()
    with kept.kept("a"), kept.kept("b"):
        kept.add("a", [chunk(1, 1)])
        kept.add("b", [chunk(1, 1)])
        kept.forget("a", "unknown")
        assert (kept.take("a", 0), kept.take("b", 0)) == ([], [chunk(1, 1)])


def test_nobody_who_stalls_fills_the_memory() -> None:
    kept, size = Recent(), recent.ROOM // 8
    with kept.kept("stalled"), kept.kept("read"):
        for number in range(1, 50):
            kept.add("stalled", [chunk(number, 1, size)])
        taken = [one for after in range(50) for one in kept.take("stalled", after)]
        assert 0 < sum(one.size for one in taken) <= recent.ROOM
        kept.add("read", [chunk(1, 1, size)])
        assert kept.take("read", 0) == [chunk(1, 1, size)]
