"""The bulk socket's two ends as state machines: numbered streams of records, each with a window of its own.

The agent's end is a bounded buffer without a disk: what it took and lost is sent again by the runner, whose spool is
the truth. A window is bytes beyond what is committed; a stream whose records the service is slow to commit fills its
own window only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..model.records import StreamKey
from .messages import MAX_MESSAGE, Append, Appended, AppendRefused, BulkHello, Message
from .session import HEARTBEAT, Effect, Got, Liveness, Send, common_effects, refuse

#: bytes a stream may have in flight before its first answer, and the most it is ever given
FIRST_WINDOW = 256 * 2**10
WINDOW = 4 * 2**20
#: what a crowded service still gives to each stream
LEAST_WINDOW = 64 * 2**10
#: bytes that one agent's streams hold together before new records have to wait
AGENT_CAP = 64 * 2**20
#: the most that one append carries
MAX_APPEND = MAX_MESSAGE - 2**16


def stream_of(message: Append | Appended | AppendRefused) -> StreamKey:
    return StreamKey(message.job, message.attempt, message.replica, message.execution)


@dataclass(frozen=True)
class Chunk:
    first: int
    count: int
    lines: bytes


@dataclass
class _Stream:
    incarnation: str
    #: what the next record taken must be numbered; 0: any will do, nothing is known of the stream
    next: int = 0
    #: the next seq that is not committed
    durable: int = 1
    credit: int = FIRST_WINDOW
    #: taken and not committed; the first *sent* of them are in flight
    chunks: deque[Chunk] = field(default_factory=deque)
    sent: int = 0
    size: int = 0
    in_flight: int = 0

    def clear(self) -> None:
        self.chunks.clear()
        self.sent = self.size = self.in_flight = 0


class AgentStreams:
    """The agent's end, over all its connections."""

    def __init__(self, *, cap: int = AGENT_CAP, window: int = WINDOW) -> None:
        self._streams: dict[StreamKey, _Stream] = {}
        self._refused: dict[tuple[str, int], str] = {}
        self._cap = cap
        self._window = window
        self._size = 0

    @property
    def buffered(self) -> int:
        """Bytes taken and not committed, of all streams."""
        return self._size

    def open(self, key: StreamKey, incarnation: str) -> None:
        """A claim was granted: this incarnation, and no other, writes the stream."""
        stream = self._streams.get(key)
        if stream is None or stream.incarnation != incarnation:
            self._drop(key)
            self._streams[key] = _Stream(incarnation)

    def belongs(self, key: StreamKey, incarnation: str) -> bool:
        """Whether *incarnation* may write; true for a stream that this agent knows nothing of."""
        stream = self._streams.get(key)
        return stream is None or stream.incarnation == incarnation

    def refusal(self, job: str, attempt: int) -> str | None:
        """Why the service takes nothing more of an attempt; None while it does."""
        return self._refused.get((job, attempt))

    def expected(self, key: StreamKey) -> int | None:
        stream = self._streams.get(key)
        return stream.next if stream is not None and stream.next else None

    def durable(self, key: StreamKey) -> int:
        stream = self._streams.get(key)
        return stream.durable if stream is not None else 1

    def has_room(self, key: StreamKey, size: int) -> bool:
        """Whether *size* bytes can be taken now. A stream that holds nothing may always give one chunk."""
        stream = self._streams.get(key)
        if stream is None or not stream.chunks:
            return True
        return stream.size + size <= self._window and self._size + size <= self._cap

    def accept(self, key: StreamKey, incarnation: str, first: int, count: int, lines: bytes) -> int | None:
        """Take records; returns None, or the seq to send from where they would leave a hole.

        What was taken before is trimmed: a runner sends again from its durable position whenever it is in doubt.
        """
        stream = self._streams.setdefault(key, _Stream(incarnation))
        if not stream.next:
            stream.next = first
        if first > stream.next:
            return stream.next
        known = min(stream.next - first, count)
        if known:
            first, count, lines = first + known, count - known, _skip(lines, known)
        if count:
            stream.chunks.append(Chunk(first, count, lines))
            stream.next = first + count
            stream.size += len(lines)
            self._size += len(lines)
        return None

    def reconnected(self) -> None:
        """A new socket: nothing counts as sent, and no window was given yet."""
        for stream in self._streams.values():
            stream.sent = stream.in_flight = 0
            stream.credit = FIRST_WINDOW

    def sendable(self) -> Iterator[Append]:
        """What may be sent now, a chunk of each stream in turn."""
        active = [key for key, stream in self._streams.items() if stream.sent < len(stream.chunks)]
        while active:
            going = []
            for key in active:
                append = self._next(key)
                if append is not None:
                    yield append
                    going.append(key)
            active = going

    def _next(self, key: StreamKey) -> Append | None:
        # The shell may wait between two messages, and the stream be gone meanwhile.
        stream = self._streams.get(key)
        if stream is None or stream.sent >= len(stream.chunks):
            return None
        chunk = stream.chunks[stream.sent]
        if stream.in_flight and stream.in_flight + len(chunk.lines) > stream.credit:
            return None
        stream.sent += 1
        stream.in_flight += len(chunk.lines)
        return Append(**key._asdict(), incarnation=stream.incarnation, **vars(chunk))

    def receive(self, message: Appended | AppendRefused) -> StreamKey:
        """Take an answer of the service; returns the stream it was about."""
        key = stream_of(message)
        if isinstance(message, AppendRefused):
            self._refused[key.job, key.attempt] = message.message
            self._drop(key)
        elif (stream := self._streams.get(key)) is not None:
            self._appended(stream, message)
        return key

    def _appended(self, stream: _Stream, answer: Appended) -> None:
        stream.credit = min(answer.credit, self._window)
        stream.durable = answer.next_seq
        while stream.chunks and stream.chunks[0].first + stream.chunks[0].count <= answer.next_seq:
            chunk = stream.chunks.popleft()
            stream.size -= len(chunk.lines)
            self._size -= len(chunk.lines)
            if stream.sent:
                stream.sent -= 1
                stream.in_flight -= len(chunk.lines)
        begins = stream.chunks[0].first if stream.chunks else stream.next
        if answer.next_seq < begins:
            # The service lacks what came before: only the runner has it.
            self._size -= stream.size
            stream.clear()
            stream.next = answer.next_seq
        stream.next = max(stream.next, answer.next_seq)

    def forget(self, job: str, attempt: int) -> None:
        """Nothing is left of the attempt."""
        for key in [key for key in self._streams if (key.job, key.attempt) == (job, attempt)]:
            self._drop(key)
        self._refused.pop((job, attempt), None)

    def _drop(self, key: StreamKey) -> None:
        stream = self._streams.pop(key, None)
        if stream is not None:
            self._size -= stream.size


def _skip(lines: bytes, count: int) -> bytes:
    """Leave out the first *count* lines."""
    position = 0
    for _ in range(count):
        position = lines.find(b"\n", position) + 1
        if not position:
            return b""
    return lines[position:]


class AgentBulk:
    """The agent's end of one bulk socket; what it carries is kept in `AgentStreams`."""

    def __init__(self, streams: AgentStreams, now: float, heartbeat: float = HEARTBEAT) -> None:
        self._streams = streams
        self._liveness = Liveness(heartbeat)
        self._liveness.begin(now)

    def connect(self, boot_id: str, epoch: int) -> list[Effect]:
        self._streams.reconnected()
        return [Send(BulkHello(boot_id=boot_id, epoch=epoch))]

    def receive(self, message: Message, now: float) -> list[Effect]:
        self._liveness.heard(now)
        common = common_effects(message)
        if common is not None:
            return common
        if isinstance(message, Appended | AppendRefused):
            self._streams.receive(message)
            return [Got(message)]
        return refuse("unexpected", f"{type(message).__name__} is not for a bulk socket")

    def tick(self, now: float) -> list[Effect]:
        return self._liveness.tick(now)


class ServiceBulk:
    """The service's end of one bulk socket. The shell answers each `Append` in its stream's order, once committed."""

    def __init__(self, now: float, heartbeat: float = HEARTBEAT, *, window: int = WINDOW, cap: int = AGENT_CAP) -> None:
        self.hello: BulkHello | None = None
        self._liveness = Liveness(heartbeat)
        self._liveness.begin(now)
        self._window = window
        self._cap = cap
        self._queued: dict[StreamKey, int] = {}
        self._total = 0

    def receive(self, message: Message, now: float) -> list[Effect]:
        self._liveness.heard(now)
        common = common_effects(message)
        if common is not None:
            return common
        if self.hello is None:
            if not isinstance(message, BulkHello):
                return refuse("unexpected", f"a bulk session begins with its hello, not with {type(message).__name__}")
            self.hello = message
            return [Got(message)]
        if isinstance(message, Append):
            return self._append(message)
        return refuse("unexpected", f"{type(message).__name__} is not for a bulk socket")

    def _append(self, append: Append) -> list[Effect]:
        key, size = stream_of(append), len(append.lines)
        queued = self._queued.get(key, 0)
        # An agent that was told of a hole sends anew while what it sent before is still queued here: hence twice.
        if queued and queued + size > 2 * self._window:
            return refuse("window", f"{append.job}: more was sent than its window allows")
        self._queued[key] = queued + size
        self._total += size
        return [Got(append)]

    def _done(self, append: Append) -> None:
        key = stream_of(append)
        left = self._queued.get(key, 0) - len(append.lines)
        self._total -= len(append.lines)
        if left > 0:
            self._queued[key] = left
        else:
            self._queued.pop(key, None)

    def appended(self, append: Append, next_seq: int) -> list[Effect]:
        """Everything of the stream before *next_seq* is committed."""
        self._done(append)
        credit = self._window if self._total < self._cap // 2 else LEAST_WINDOW
        return [Send(Appended(**stream_of(append)._asdict(), next_seq=next_seq, credit=credit))]

    def refused(self, append: Append, code: str, message: str) -> list[Effect]:
        """Nothing more of the stream is taken."""
        self._done(append)
        return [Send(AppendRefused(**stream_of(append)._asdict(), code=code, message=message))]

    def tick(self, now: float) -> list[Effect]:
        return self._liveness.tick(now)
