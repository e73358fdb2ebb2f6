"""Telling when jobs end, to any number of those who wait, sync or async.

One thread follows the change log for all of a client's waits: a thousand of them cost one connection and no polling,
and a wait is a `concurrent.futures.Future`, which a thread blocks on and a coroutine awaits. The thread is there only
while somebody waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import msgspec

from .. import errors
from ..model.jobs import Job
from .protocol import Change

if TYPE_CHECKING:
    from .sync import Client

_log = logging.getLogger(__name__)

#: So many jobs are looked up one by one; more of them in the list, a thousand at a time.
_FEW = 5
_PAGE = 1000


class Endings:
    """The waits of one client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._waiting: dict[str, Future[Job]] = {}
        self._followed = False

    def of(self, job_ids: Iterable[str]) -> list[Future[Job]]:
        """Return, in order, what gives each job once it has ended; those that have are given at once.

        A future fails with `errors.NotFound` where the job is deleted meanwhile, and with what else keeps the change
        log from being read.

        :raises NotFound: there is no such job.
        """
        ids = list(job_ids)
        with self._lock:
            futures = [self._future(job_id) for job_id in ids]
            begin, self._followed = not self._followed, True
        if begin:
            threading.Thread(target=self._follow, name="gpu-job-endings", daemon=True).start()
        else:
            # The thread has read past the ends of jobs that nobody waited for then.
            self._look(ids)
        return futures

    def _future(self, job_id: str) -> Future[Job]:
        future = self._waiting.get(job_id)
        if future is None:
            future = self._waiting[job_id] = Future()
            # From here on nobody can cancel it: others may wait for it too.
            future.set_running_or_notify_cancel()
        return future

    def _follow(self) -> None:
        try:
            while self._wanted():
                # The position first: a change between the two is then seen twice, never missed.
                position = self._client.jobs(limit=1).log_position
                with self._lock:
                    waiting = list(self._waiting)
                self._look(waiting)
                try:
                    for change in self._client.changes(position, follow=True, stopped=lambda: not self._waiting):
                        self._read(change)
                        if not self._waiting:
                            break
                except errors.Gone:
                    continue  # fell behind the trimmed end of the log: look at all anew
        except Exception as error:  # noqa: BLE001 - the thread's edge: those who wait raise it
            _log.debug("following the change log: %s", error)
            with self._lock:
                self._followed = False
                left, self._waiting = self._waiting, {}
            for future in left.values():
                future.set_exception(error)

    def _wanted(self) -> bool:
        with self._lock:
            self._followed = bool(self._waiting)
            return self._followed

    def _look(self, job_ids: list[str]) -> None:
        """Give those of the jobs that have ended already."""
        if len(job_ids) <= _FEW:
            for job_id in job_ids:
                try:
                    self._give(self._client.job(job_id))
                except errors.NotFound as error:
                    self._fail(job_id, error)
            return
        wanted, after = set(job_ids), ""
        while wanted:
            page = self._client.jobs(limit=_PAGE, after=after)
            for job in page.items:
                if job.id in wanted:
                    wanted.discard(job.id)
                    self._give(job)
            if not page.next:
                break
            after = page.next
        for job_id in wanted:
            self._fail(job_id, errors.NotFound(f"there is no job {job_id}", hint="gpu.jobs() lists your jobs."))

    def _read(self, change: Change) -> None:
        if change.object_id not in self._waiting:
            return
        if change.kind == "job":
            # The job as it was after the change.
            self._give(msgspec.convert(change.payload, Job))
        elif change.kind == "job.deleted":
            self._fail(change.object_id, errors.NotFound(f"job {change.object_id} was deleted"))

    def _give(self, job: Job) -> None:
        if job.phase.ended and (future := self._taken(job.id)):
            future.set_result(job)

    def _fail(self, job_id: str, error: errors.GpuPlatformError) -> None:
        if future := self._taken(job_id):
            future.set_exception(error)

    def _taken(self, job_id: str) -> Future[Job] | None:
        with self._lock:
            return self._waiting.pop(job_id, None)
