"""One read of the store for all who follow a job at its head.

Whoever has read all that he knows of asks the job's `Head` for more. While one read is under way nobody begins another,
so a thousand followers of one job cost the store as much as one. A head reads only when it is asked: followers who are
slower than the job fall behind what it keeps, and read for themselves until they have caught up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import errors
from ..model.records import encode_cursor

if TYPE_CHECKING:
    from .store.output import OutputLane
    from .store.rows import OutputPage

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


class Head:
    """The newest output of one job that somebody follows."""

    def __init__(self, job: str, lane: OutputLane) -> None:
        self._job = job
        self._lane = lane
        self._pieces: deque[_Piece] = deque()
        self._size = 0
        self._reading: asyncio.Task[None] | None = None
        #: up to where it has read: the next read goes on from here
        self.position = 0
        self.followers = 0

    def after(self, position: int) -> tuple[int, bytes]:
        """Return what is kept after *position*, if it is, and the position that it reaches; not all at once."""
        if not self._pieces or not self._pieces[0].first - 1 <= position < self.position:
            return position, b""
        reached, size = position, 0
        found: list[bytes] = []
        for piece in self._pieces:
            if piece.last > position:
                size += len(piece.lines)
                if found and size > AT_ONCE:
                    break
                reached = piece.last
                found.append(piece.after(position))
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

    async def more(self, change: asyncio.Future[Any], timeout: float) -> bool:
        """Wait until something was read, or *change* is done; False when neither came within *timeout* seconds."""
        reading = self._reading
        if reading is None:
            reading = self._reading = asyncio.create_task(self._read(), name=f"head of {self._job}")
        done, _ = await asyncio.wait({reading, change}, return_when=asyncio.FIRST_COMPLETED, timeout=timeout)
        if reading in done:
            _raise_own(reading.exception())
        return bool(done)

    async def _read(self) -> None:
        """Read what comes next, as soon as there is something."""
        try:
            page = await self._lane.next(self._job, self.position)
            piece = _Piece(self.position + 1, page.next, rendered(page))
            self._pieces.append(piece)
            self._size += len(piece.lines)
            self.position = page.next
            while self._size > KEPT and len(self._pieces) > 1:
                self._size -= len(self._pieces.popleft().lines)
        finally:
            self._reading = None

    def _forget(self) -> None:
        self._pieces.clear()
        self._size = 0

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()


def _raise_own(error: BaseException | None) -> None:
    """Raise the error of a read; one exception that is raised by all followers would mix their traces."""
    if isinstance(error, errors.GpuPlatformError):
        raise type(error)(error.message, hint=error.hint)
    if error is not None:
        raise errors.InternalError("the output could not be read") from error


class Heads:
    """The heads of all jobs that are followed here."""

    def __init__(self, lane: OutputLane) -> None:
        self._lane = lane
        self._heads: dict[str, Head] = {}

    @contextlib.contextmanager
    def follow(self, job: str) -> Iterator[Head]:
        head = self._heads.get(job)
        if head is None:
            head = self._heads[job] = Head(job, self._lane)
        head.followers += 1
        try:
            yield head
        finally:
            head.followers -= 1
            if not head.followers:
                del self._heads[job]
                head.close()
