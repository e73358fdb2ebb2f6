"""One read of the store for all who follow a job at its head.

Whoever has read all that he knows of asks the job's `Head` for more. While one read is under way nobody begins another,
so a thousand followers of one job cost the store as much as one; how the job is doing is asked once for all of them,
too. A head reads only when it is asked: followers who are slower than the job fall behind what it keeps, and read for
themselves until they have caught up.

All who wait share one event, and nothing is set up or timed for each of them: with a thousand followers, ten batches a
second wake ten thousand.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from .. import errors
from ..model.records import encode_cursor

if TYPE_CHECKING:
    from ..model.jobs import Job
    from .store.output import OutputLane
    from .store.reader import Reader
    from .store.rows import OutputPage
    from .watch import JobWatch

#: seconds after which a quiet stream sends a blank line, so that proxies and readers know that it lives
KEEP_ALIVE = 10.0
#: bytes that are kept of a job for followers who are a little later than the first
KEPT = 4 * 2**20
#: small pieces are joined up to so many bytes: a thousand followers who stall hold this each
AT_ONCE = 256 * 2**10


def spliced(position: int, attempt: int, replica: int, line: bytes) -> bytes:
    """Add where a record stands to its line, without decoding it: it is one JSON object, so it ends with a brace."""
    end = line.rindex(b"}")
    return b'%b,"cursor":"%b","attempt":%d,"replica":%d}\n' % (
        line[:end],
        encode_cursor(position).encode(),
        attempt,
        replica,
    )


def rendered(page: OutputPage) -> bytes:
    """Give records as readers get them."""
    return b"".join([spliced(*record) for record in page.records])


class _Piece(NamedTuple):
    """Records ``first … last`` of a log, rendered."""

    first: int
    last: int
    lines: bytes

    def after(self, position: int) -> bytes:
        skipped = position + 1 - self.first
        return self.lines.split(b"\n", skipped)[skipped] if skipped > 0 else self.lines


class _Moved(asyncio.Event):
    """What all who wait are woken by, once; who comes later waits for the next one."""

    #: why nothing was read
    error: BaseException | None = None


class Head:
    """The newest output of one job that somebody follows."""

    def __init__(self, job: str, lane: OutputLane, reader: Reader, watch: JobWatch) -> None:
        self._job = job
        self._lane = lane
        self._reader = reader
        self._pieces: list[_Piece] = []
        self._size = 0
        self._reading: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[tuple[Job | None, int]] | None = None
        self._moved = _Moved()
        self._watching = asyncio.create_task(self._watch(watch), name=f"watch over {job}")
        #: up to where it has read: the next read goes on from here
        self.position = 0
        #: grows with each change of the job, and every `KEEP_ALIVE` seconds: look again
        self.version = 0
        self.followers = 0

    def after(self, position: int) -> tuple[int, bytes]:
        """Return what is kept after *position*, if it is, and the position that it reaches; not all at once."""
        pieces = self._pieces
        if not pieces or not pieces[0].first - 1 <= position < self.position:
            return position, b""
        # Most who ask want the newest piece and nothing else.
        newest = len(pieces) - 1
        first = newest if pieces[newest].first <= position + 1 else bisect.bisect_right(pieces, position, key=_last)
        found = [pieces[first].after(position)]
        size, reached = len(found[0]), pieces[first].last
        for piece in itertools.islice(pieces, first + 1, None):
            size += len(piece.lines)
            if size > AT_ONCE:
                break
            reached = piece.last
            found.append(piece.lines)
        if self.followers == 1 and reached == self.position:
            self._forget()
        return reached, b"".join(found)

    def behind(self, position: int) -> bool:
        """Whether a follower at *position*, which the log has, must read for himself.

        Who comes first, or has overtaken the others, moves the head to where he is.
        """
        if position > self.position and self._reading is None:
            self._forget()
            self.position = position
        return position < self.position

    async def look(self, position: int) -> tuple[Job | None, int]:
        """Return the job and how many records its log has: asked once in each version, for all followers.

        :param position: where the log is known to end at the earliest; a look that found it shorter is an old one.
        """
        job, length = await self._last_look()
        if length < position:
            self._looking = None
            job, length = await self._last_look()
        return job, length

    async def _last_look(self) -> tuple[Job | None, int]:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name=f"look at {self._job}")
        try:
            return await asyncio.shield(self._looking)
        except errors.GpuPlatformError as error:
            raise _own(error) from None

    async def more(self) -> None:
        """Wait until something was read, or there is a new version."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name=f"head of {self._job}")
        await self.news()

    async def news(self) -> None:
        """Wait until there is a new version, or something was read for another follower."""
        moved = self._moved
        await moved.wait()
        if moved.error is not None:
            raise _own(moved.error)

    async def _look(self) -> tuple[Job | None, int]:
        try:
            # In this order: all records are stored before a job ends, so an ended one's log has all of them.
            job = await self._reader.job(self._job)
            length, _ = await self._lane.size(self._job)
        except BaseException:
            self._looking = None
            raise
        return job, length

    async def _read(self) -> None:
        """Read what comes next, as soon as there is something."""
        try:
            page = await self._lane.next(self._job, self.position)
            piece = _Piece(self.position + 1, page.next, rendered(page))
        except Exception as error:  # noqa: BLE001 -- those who wait raise it
            self._reading = None
            self._wake(error)
            return
        self._pieces.append(piece)
        self._size += len(piece.lines)
        self.position = page.next
        while self._size > KEPT and len(self._pieces) > 1:
            self._size -= len(self._pieces.pop(0).lines)
        self._reading = None
        self._wake()

    async def _watch(self, watch: JobWatch) -> None:
        with watch.follow(self._job) as changed, self._lane.following(self._job):
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(KEEP_ALIVE):
                        await changed.wait()
                changed.clear()
                self.version += 1
                self._looking = None
                self._wake()

    def _wake(self, error: BaseException | None = None) -> None:
        moved, self._moved = self._moved, _Moved()
        moved.error = error
        moved.set()

    def _forget(self) -> None:
        self._pieces.clear()
        self._size = 0

    def close(self) -> None:
        for task in (self._reading, self._looking, self._watching):
            if task is not None:
                task.cancel()


def _last(piece: _Piece) -> int:
    return piece.last


def _own(error: BaseException) -> errors.GpuPlatformError:
    """Make one follower's own error of a shared one: raised by all of them, it would mix their traces."""
    if isinstance(error, errors.GpuPlatformError):
        return type(error)(error.message, hint=error.hint)
    own = errors.InternalError("the output could not be read")
    own.__cause__ = error
    return own


class Heads:
    """The heads of all jobs that are followed here."""

    def __init__(self, lane: OutputLane, reader: Reader, watch: JobWatch) -> None:
        self._lane = lane
        self._reader = reader
        self._watch = watch
        self._heads: dict[str, Head] = {}

    @contextlib.contextmanager
    def follow(self, job: str) -> Iterator[Head]:
        head = self._heads.get(job)
        if head is None:
            head = self._heads[job] = Head(job, self._lane, self._reader, self._watch)
        head.followers += 1
        try:
            yield head
        finally:
            head.followers -= 1
            if not head.followers:
                del self._heads[job]
                head.close()
