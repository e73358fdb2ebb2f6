"""Moving the output of ended jobs into sealed segments.

One replica does it, the one that plans. It follows the change log for jobs that end, and waits a while with each, since
a job's output is read most just after its end. What ended while nobody sealed is found once, when a replica takes over.

Small outputs stay in the database: a file of its own would cost each of them more than all its rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from .. import errors
from ..model.jobs import Job
from .metrics import counted
from .store.rows import ChangeFilter

if TYPE_CHECKING:
    from .services import Services

log = logging.getLogger(__name__)

#: seconds that output stays in the database after its job's end
HOT_SECONDS = 60.0
#: output shorter than this stays where it is (bytes, as it was written)
LEAST = 256 * 2**10
#: seconds between looks that nothing woke: for the lease, and for what is due
TICK = 5.0
PAGE = 500

_JOBS_ONLY = ChangeFilter(kinds=("job",))


class Sealer:
    """Seals the output of ended jobs while *leads* says that this replica is the one to do it."""

    def __init__(
        self, services: Services, leads: Callable[[], bool], *, hot_seconds: float = HOT_SECONDS, least: int = LEAST
    ) -> None:
        self._services = services
        self._leads = leads
        self._hot = hot_seconds
        self._least = least
        self._task: asyncio.Task[None] | None = None
        #: (when it may be sealed, job)
        self._due: list[tuple[float, str]] = []
        #: position in the change log; None while another replica seals
        self._position: int | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="sealer")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                with counted(self._services.metrics.loop("sealer")):
                    await self._step()
            except errors.Gone:
                self._position = None
            except errors.GpuPlatformError as error:
                log.warning("sealing was put off: %s", error)
                self._position = None  # what was due is found again
                await asyncio.sleep(TICK)
            except Exception:  # the sealer must not end by a bug in one pass
                self._services.metrics.mistakes.labels("sealer").inc()
                log.exception("a sealing pass failed")
                self._position = None
                await asyncio.sleep(TICK)

    async def _step(self) -> None:
        if not self._leads():
            self._position = None
            await asyncio.sleep(TICK)
            return
        if self._position is None:
            self._position = await self._take_over()
        page = await self._services.reader.changes(self._position, PAGE, _JOBS_ONLY)
        for row in page.items:
            self._note(msgspec.json.decode(row.payload, type=Job))
        self._position = page.next
        await self._seal_due()
        if not page.items:
            await self._services.feed.wait(self._position, TICK)

    async def _take_over(self) -> int:
        """List what is still in the database; return the position from which changes tell the rest."""
        position = await self._services.reader.position()
        self._due.clear()
        for job_id in await self._services.output.unsealed(self._least):
            job = await self._services.reader.job(job_id)
            if job is not None:
                self._note(job)
        return position

    def _note(self, job: Job) -> None:
        if job.phase.ended and job.ended is not None:
            heapq.heappush(self._due, (job.ended + self._hot, job.id))

    async def _seal_due(self) -> None:
        due: list[str] = []
        while self._due and self._due[0][0] <= self._services.now():
            due.append(heapq.heappop(self._due)[1])
        for start in range(0, len(due), PAGE):
            sizes = await self._services.output.sizes(due[start : start + PAGE])
            for job_id, size in sizes.items():
                # It may have been tried again or deleted meanwhile.
                job = await self._services.reader.job(job_id) if size >= self._least else None
                if job is not None and job.phase.ended:
                    await self._services.output.seal(job_id)
