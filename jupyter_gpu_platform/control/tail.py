"""The newest rows of the change log, read once for all who follow it.

A thousand streaming clients cost one read of each commit, one encoding of each row, and a look at who may see it. Only
who comes from further back reads the database, until he has caught up.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .. import errors
from .heads import KEEP_ALIVE
from .metrics import counted

if TYPE_CHECKING:
    from .metrics import Metrics
    from .store.feed import ChangeFeed
    from .store.reader import Reader
    from .store.rows import ChangeFilter, ChangeRow

log = logging.getLogger(__name__)

#: So many rows are kept, and so many of their bytes; who is further behind reads the database.
KEPT_ROWS = 5_000
KEPT_BYTES = 16 * 2**20
#: Rows read at a time.
PAGE = 1000
#: Seconds between two rounds for each follower: whatever the changes, half of the time is left for other calls.
PACE = 0.00005


class _Entry:
    """A row, and its line once somebody has needed it."""

    def __init__(self, row: ChangeRow) -> None:
        self.row = row
        self.line = b""


class ChangeTail:
    """Follows the change log while somebody wants it.

    :param render: makes a row's line.
    """

    def __init__(
        self, reader: Reader, feed: ChangeFeed, metrics: Metrics, render: Callable[[ChangeRow], bytes]
    ) -> None:
        self._reader = reader
        self._feed = feed
        self._metrics = metrics
        self._render = render
        self._entries: list[_Entry] = []
        self._bytes = 0
        #: the rows after this position, up to `position`, are here
        self._begin = 0
        self.position = -1
        self.followers = 0
        self._wanted = asyncio.Event()
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="change tail")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @contextlib.contextmanager
    def follow(self) -> Iterator[None]:
        """Have the log read for as long as this lasts."""
        self.followers += 1
        self._wanted.set()
        try:
            yield
        finally:
            self.followers -= 1
            if not self.followers:
                self._wanted.clear()

    def covers(self, position: int) -> bool:
        """Whether all rows after *position* that were read so far are here."""
        return self._begin <= position <= self.position

    def after(self, position: int, limit: int, allowed: ChangeFilter) -> tuple[list[bytes], int]:
        """Return the lines of what may be seen of the rows after a covered position, and where that ends."""
        first = bisect.bisect_right(self._entries, position, key=lambda entry: entry.row.id)
        entries = self._entries[first : first + limit]
        lines = [self._line(entry) for entry in entries if allowed.admits(entry.row)]
        return lines, entries[-1].row.id if len(entries) == limit else self.position

    async def news(self, position: int) -> bool:
        """Return True once there is more than *position*, False when there was nothing for `KEEP_ALIVE` seconds.

        All wait for one event, and none is timed for himself: that would cost as much as writing his lines.
        """
        if self.position <= position:
            await self._moved.wait()
        return self.position > position

    def _line(self, entry: _Entry) -> bytes:
        if not entry.line:
            entry.line = self._render(entry.row)
        return entry.line

    async def _run(self) -> None:
        loop = self._metrics.loop("change_tail")
        while True:
            try:
                if not self.followers:
                    self._forget()  # by the time that somebody comes, all of it will be old
                    await self._wanted.wait()
                with counted(loop):
                    more = await self._read()
                if more:
                    await asyncio.sleep(PACE * self.followers)
                elif not await self._feed.wait(self.position, KEEP_ALIVE):
                    self._wake()
            except errors.Gone:
                self._forget()
            except errors.GpuPlatformError as error:
                log.warning("the change log can't be followed now: %s", error.message)
                self._wake()
                await asyncio.sleep(1.0)
            except Exception:  # a bug in one round must not leave all followers asleep
                self._metrics.mistakes.labels("change tail").inc()
                log.exception("following the change log failed")
                self._forget()
                await asyncio.sleep(1.0)

    def _forget(self) -> None:
        self._entries, self._bytes, self.position = [], 0, -1

    async def _read(self) -> bool:
        before = self.position
        if before < 0:
            self._begin = self.position = await self._reader.position()
        page = await self._reader.changes(self.position, PAGE)
        self._entries += map(_Entry, page.items)
        self._bytes += sum(len(row.payload) for row in page.items)
        self._drop()
        self.position = page.next
        # The first time, too: what was committed while somebody came is nobody's news.
        if self.position > before:
            self._wake()
        return bool(page.items)

    def _wake(self) -> None:
        """Wake all who wait: they hold the old event, and who comes later waits for the next one."""
        self._moved.set()
        self._moved = asyncio.Event()

    def _drop(self) -> None:
        drop = max(0, len(self._entries) - KEPT_ROWS)
        left = self._bytes - sum(len(entry.row.payload) for entry in self._entries[:drop])
        while left > KEPT_BYTES:
            left -= len(self._entries[drop].row.payload)
            drop += 1
        if drop:
            self._begin = self._entries[drop - 1].row.id
            del self._entries[:drop]
        self._bytes = left
