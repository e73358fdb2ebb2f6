"""Output crosses exactly once, in order, whatever breaks, and no stream takes another's room."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_gpu_platform.model.records import StreamKey
from jupyter_gpu_platform.wire.messages import Append, Appended, AppendRefused, BulkHello
from jupyter_gpu_platform.wire.session import Close, Effect, Got, Send
from jupyter_gpu_platform.wire.streams import FIRST_WINDOW, WINDOW, AgentStreams, ServiceBulk

KEY, OTHER = StreamKey("j1", 1), StreamKey("j2", 1)


def lines(first: int, count: int, size: int = 1) -> bytes:
    return b"".join(b"%d%s\n" % (seq, b"x" * size) for seq in range(first, first + count))


def appended(key: StreamKey, next_seq: int, credit: int = WINDOW) -> Appended:
    return Appended(job=key.job, attempt=key.attempt, next_seq=next_seq, credit=credit)


def test_a_hole_is_refused_and_overlap_is_trimmed() -> None:
    streams = AgentStreams()
    assert streams.accept(KEY, "i", 1, 3, lines(1, 3)) is None
    assert streams.accept(KEY, "i", 5, 1, lines(5, 1)) == 4
    assert streams.accept(KEY, "i", 2, 3, lines(2, 3)) is None
    assert [(a.first, a.count, a.lines) for a in streams.sendable()] == [(1, 3, lines(1, 3)), (4, 1, lines(4, 1))]
    assert streams.accept(KEY, "i", 1, 2, lines(1, 2)) is None  # all of it is known
    assert list(streams.sendable()) == []


def test_window_holds_a_stream_back_and_no_other() -> None:
    streams = AgentStreams()
    half = FIRST_WINDOW // 2 + 10
    for first in (1, 2):
        streams.accept(KEY, "i", first, 1, b"x" * half + b"\n")
    streams.accept(OTHER, "i", 1, 1, b"y\n")
    assert [(a.job, a.first) for a in streams.sendable()] == [("j1", 1), ("j2", 1)]
    streams.receive(appended(KEY, 2))
    assert [a.first for a in streams.sendable()] == [2]


def test_buffer_is_bounded_for_a_stream_and_in_all() -> None:
    streams = AgentStreams(cap=1000, window=600)
    streams.accept(KEY, "i", 1, 1, b"x" * 500 + b"\n")
    assert not streams.has_room(KEY, 200)
    streams.accept(OTHER, "i", 1, 1, b"x" * 450 + b"\n")
    assert not streams.has_room(OTHER, 100)
    assert streams.has_room(StreamKey("j3", 1), 100)  # each may give one chunk
    streams.receive(appended(KEY, 2))
    assert streams.has_room(KEY, 200)


def test_what_is_not_committed_is_sent_again_after_a_cut() -> None:
    streams = AgentStreams()
    streams.accept(KEY, "i", 1, 2, lines(1, 2))
    streams.accept(KEY, "i", 3, 1, lines(3, 1))
    list(streams.sendable())
    streams.receive(appended(KEY, 3))
    streams.reconnected()
    assert [a.first for a in streams.sendable()] == [3]


def test_agent_without_memory_learns_where_to_go_on() -> None:
    streams = AgentStreams()
    streams.accept(KEY, "i", 110, 1, lines(110, 1))
    list(streams.sendable())
    streams.receive(appended(KEY, 81))
    assert (streams.expected(KEY), streams.durable(KEY), streams.buffered) == (81, 81, 0)
    assert streams.accept(KEY, "i", 111, 1, lines(111, 1)) == 81


def test_refused_stream_takes_nothing_more_until_forgotten() -> None:
    streams = AgentStreams()
    streams.accept(KEY, "i", 1, 1, lines(1, 1))
    streams.receive(AppendRefused(job="j1", attempt=1, code="claim_lost", message="fenced"))
    assert streams.refusal("j1", 1) == "fenced"
    assert streams.buffered == 0
    streams.forget("j1", 1)
    assert streams.refusal("j1", 1) is None


def test_only_the_claimed_incarnation_writes() -> None:
    streams = AgentStreams()
    streams.open(KEY, "winner")
    assert streams.belongs(KEY, "winner")
    assert not streams.belongs(KEY, "loser")


def greeted() -> ServiceBulk:
    bulk = ServiceBulk(0.0, window=1000)
    bulk.receive(BulkHello(boot_id="b", epoch=1), 0.0)
    return bulk


def append(first: int, size: int, key: StreamKey = KEY) -> Append:
    return Append(job=key.job, attempt=key.attempt, incarnation="i", first=first, count=1, lines=b"x" * size)


def test_service_refuses_who_ignores_the_window() -> None:
    bulk = greeted()
    assert bulk.receive(append(1, 1500), 0.0) == [Got(append(1, 1500))]
    assert isinstance(bulk.receive(append(2, 1500), 0.0)[-1], Close)


def test_service_wants_the_hello_first() -> None:
    assert isinstance(ServiceBulk(0.0).receive(append(1, 1), 0.0)[-1], Close)


def test_a_stalled_stream_leaves_the_others_windows_alone() -> None:
    bulk = greeted()
    bulk.receive(append(1, 900), 0.0)
    other = append(1, 900, OTHER)
    assert bulk.receive(other, 0.0) == [Got(other)]


@pytest.mark.parametrize("window", [40, WINDOW])
@settings(max_examples=150)
@given(data=st.data())
def test_exactly_once_whatever_breaks(window: int, data: st.DataObject) -> None:
    """A runner with a spool, an agent without a disk and a store: cuts, agent restarts, and every record once."""
    total = data.draw(st.integers(1, 30))
    streams, bulk = AgentStreams(window=window), ServiceBulk(0.0, window=window)
    bulk.receive(BulkHello(boot_id="b", epoch=1), 0.0)
    there: deque[Append] = deque()
    queued: deque[Append] = deque()
    back: deque[Effect] = deque()
    store: list[bytes] = []
    sent_to_agent = 0

    def step(name: str) -> None:
        nonlocal streams, bulk, sent_to_agent
        if name == "run" and sent_to_agent < total:
            count = min(3, total - sent_to_agent)
            batch = lines(sent_to_agent + 1, count)
            if streams.has_room(KEY, len(batch)):
                expected = streams.accept(KEY, "i", sent_to_agent + 1, count, batch)
                sent_to_agent = sent_to_agent + count if expected is None else expected - 1
        elif name == "pump":
            there.extend(streams.sendable())
        elif name == "deliver" and there:
            for effect in bulk.receive(there.popleft(), 0.0):
                assert isinstance(effect, Got)
                assert isinstance(effect.message, Append)
                queued.append(effect.message)
        elif name == "commit" and queued:
            message = queued.popleft()
            skip = len(store) + 1 - message.first
            if skip >= 0:
                store.extend(message.lines.splitlines(keepends=True)[skip:])
            back.extend(bulk.appended(message, len(store) + 1))
        elif name == "return" and back:
            effect = back.popleft()
            assert isinstance(effect, Send)
            streams.receive(effect.message)  # type: ignore[arg-type]  # a stream's own
        elif name in ("cut", "restart"):
            for queue in (there, queued, back):
                queue.clear()
            bulk = ServiceBulk(0.0, window=window)
            bulk.receive(BulkHello(boot_id="b", epoch=1), 0.0)
            if name == "restart":
                # The runner sees its own connection break, and begins again from what it knows to be durable.
                sent_to_agent = streams.durable(KEY) - 1
                streams = AgentStreams(window=window)
            streams.reconnected()
        assert store == lines(1, len(store)).splitlines(keepends=True)

    names = ["run", "pump", "deliver", "commit", "return", "cut", "restart"]
    for name in data.draw(st.lists(st.sampled_from(names), max_size=80)):
        step(name)
    for _ in range(40 * total):
        for name in ("run", "pump", "deliver", "commit", "return"):
            step(name)
        if streams.durable(KEY) == total + 1:
            break
        if streams.expected(KEY) is not None and sent_to_agent >= (streams.expected(KEY) or 0):
            sent_to_agent = streams.durable(KEY) - 1
    assert store == lines(1, total).splitlines(keepends=True)
