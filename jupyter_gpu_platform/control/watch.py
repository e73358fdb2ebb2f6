"""Waking those who follow single jobs.

One task per process reads the change log and wakes whoever waits for just that job: with a thousand followers, a
commit costs one read instead of a thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import errors
from .store.rows import ChangeFilter

if TYPE_CHECKING:
    from .store.feed import ChangeFeed
    from .store.reader import Reader

log = logging.getLogger(__name__)

_JOBS_ONLY = ChangeFilter(kinds=("job", "job.deleted"))


class JobWatch:
    """Follows the change log on behalf of all followers of single jobs."""

    def __init__(self, reader: Reader, feed: ChangeFeed) -> None:
        self._reader = reader
        self._feed = feed
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

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
        position: int | None = None
        while True:
            try:
                if position is None:
                    position = await self._reader.position()
                    self._wake_all()  # what happened until here was not seen by this task
                page = await self._reader.changes(position, 1000, _JOBS_ONLY)
                for row in page.items:
                    self._wake(row.object_id)
                position = page.next
                if not page.items:
                    await self._feed.wait(position, 30.0)
            except errors.Gone:
                position = None
            except errors.GpuPlatformError as error:
                log.warning("the change log can't be followed now: %s", error.message)
                await asyncio.sleep(1.0)
