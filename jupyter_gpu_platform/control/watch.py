"""Waking those who follow single jobs, and hearing of revoked tokens.

One task per process reads the change log and wakes whoever waits for just that job: with a thousand followers, a
commit costs one read instead of a thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .. import errors
from .metrics import counted
from .store.rows import ChangeFilter, ChangePage

if TYPE_CHECKING:
    from .metrics import Metrics
    from .store.feed import ChangeFeed
    from .store.reader import Reader

log = logging.getLogger(__name__)

_WATCHED = ChangeFilter(kinds=("job", "job.deleted", "agent", "token.deleted"))
#: rows of the log read at a time
PAGE = 1000
#: in an agent's row
_REVOKED = b'"revoked":true'


class JobWatch:
    """Follows the change log on behalf of all followers of single jobs.

    :param revoked: called when a token or an agent may have been revoked, here or at another replica.
    """

    def __init__(
        self,
        reader: Reader,
        feed: ChangeFeed,
        metrics: Metrics,
        *,
        now: Callable[[], float],
        revoked: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._feed = feed
        self._metrics = metrics
        self._now = now
        self._revoked = revoked
        #: how far the log was read; None where that isn't known
        self.position: int | None = None
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def followers(self) -> int:
        return sum(map(len, self._waiting.values()))

    @contextlib.contextmanager
    def follow(self, job_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set on each change of the job. Read the job after this, and nothing is missed."""
        event = asyncio.Event()
        self._waiting.setdefault(job_id, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting[job_id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[job_id]

    def _wake(self, job_id: str) -> None:
        for event in self._waiting.get(job_id, ()):
            event.set()

    def _wake_all(self) -> None:
        for job_id in list(self._waiting):
            self._wake(job_id)

    async def _run(self) -> None:
        loop = self._metrics.loop("job_watch")
        while True:
            try:
                with counted(loop):
                    page = await self._read()
                if len(page.items) < PAGE:
                    await self._feed.wait(page.next, 30.0)
            except errors.Gone:
                self.position = None
            except errors.GpuPlatformError as error:
                log.warning("the change log can't be followed now: %s", error.message)
                await asyncio.sleep(1.0)
            except Exception:  # a bug in one round must not leave all followers asleep
                self._metrics.mistakes.labels("job watch").inc()
                log.exception("following the change log failed")
                await asyncio.sleep(1.0)

    async def _read(self) -> ChangePage:
        if self.position is None:
            self.position = await self._reader.position()
            # What happened until here was not seen by this task.
            self._wake_all()
            self._revoked()
        page = await self._reader.changes(self.position, PAGE, _WATCHED)
        for row in page.items:
            if row.kind in ("job", "job.deleted"):
                self._wake(row.object_id)
            elif row.kind == "token.deleted" or _REVOKED in row.payload:
                self._revoked()
        if page.items:
            self._metrics.feed_delay.observe(max(self._now() - page.items[-1].time, 0.0))
        self.position = page.next
        return page
