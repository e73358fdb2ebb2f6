"""What ages out: ended jobs with their output and objects, the change log, remembered answers, and what was left over.

One replica does it, the one that plans. All of it goes in steps of some milliseconds, and after each the store has
several times as long for everybody else. A job that was ended a moment ago stays, whatever the limits say: somebody
may still be reading it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter as Counts
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import Counter, Gauge
from traitlets import Float, Int
from traitlets.config import Configurable

from .. import errors
from .metrics import counted
from .store import aging
from .store.aging import Ended

if TYPE_CHECKING:
    from .services import Services
    from .store.transaction import Transaction

log = logging.getLogger(__name__)

T = TypeVar("T")

#: seconds before the first pass, at most: a service that starts has better things to do
FIRST = 60.0
#: this many jobs, changes, answers and pages of a file go in one step: few enough that nobody waits for them, and so
#: many that all that a busy service writes can go as fast as it comes
JOBS = 100
CHANGES = 5000
ROWS = 1000
PAGES = 256
#: after each step the store rests so many times as long as the step took; in a pass that lasts longer than the time
#: between two, less: what comes meanwhile must go as fast
REST, REST_WHEN_LATE = 4.0, 1.0
#: seconds between sweeps of objects, which list their directory
SWEEP = 3600.0
#: seconds that tokens and leases are kept after they ran out
LEFTOVER = 86_400.0


#: the settings that say how much is kept; the others say how that is seen to
KEPT = ("days", "jobs", "output_bytes", "object_bytes", "change_hours", "changes", "key_hours")


class Retention(Configurable):
    """How long things are kept. The strictest limit counts; 0 is no limit."""

    days = Float(
        30.0,
        min=0,
        help="Days for which ended jobs are kept, with their output, events and values (default: 30). After that they "
        "are gone for good.",
    ).tag(config=True)
    jobs = Int(
        1_000_000,
        min=0,
        help="Ended jobs that are kept (default: 1000000, which take about 3 GB without their output). Beyond it those "
        "that ended first go.",
    ).tag(config=True)
    output_bytes = Int(
        20 * 2**30,
        min=0,
        help="Bytes of output that are kept, as they were written, before compression (default: 20 GiB). Beyond it the "
        "jobs that ended first go, unless they have no output.",
    ).tag(config=True)
    object_bytes = Int(
        20 * 2**30,
        min=0,
        help="Bytes of values that jobs hold (default: 20 GiB). Beyond it the jobs that hold values and ended first "
        "go; a day later so do their values, unless another job holds them or somebody has used them.",
    ).tag(config=True)
    change_hours = Float(
        24.0,
        min=0,
        help="Hours for which the change log is kept (default: 24). A reader that was away for longer lists again.",
    ).tag(config=True)
    changes = Int(
        1_000_000,
        min=0,
        help="Rows of the change log that are kept (default: 1000000, about 1 GB). A reader that is further behind "
        "lists again.",
    ).tag(config=True)
    key_hours = Float(
        24.0,
        min=0,
        help="Hours for which the answer to an Idempotency-Key is remembered (default: 24). After that the same key "
        "makes new jobs.",
    ).tag(config=True)
    settled_minutes = Float(
        10.0,
        min=0,
        help="Minutes for which a job that has ended stays, whatever the other limits say (default: 10): somebody may "
        "still be reading it.",
    ).tag(config=True)
    pass_minutes = Float(
        5.0,
        min=0.01,
        help="Minutes between two looks for what is to go (default: 5). Between them the store holds so much more than "
        "the limits allow.",
    ).tag(config=True)


class Keeper:
    """Removes what is old while *leads* says that this replica is the one to do it."""

    def __init__(self, services: Services, leads: Callable[[], bool], policy: Retention) -> None:
        self._services = services
        self._leads = leads
        self._policy = policy
        self._task: asyncio.Task[None] | None = None
        self._swept = 0.0
        self._longest = 0.0
        self._begun = 0.0
        #: what the pass has removed so far
        self._gone: Counts[str] = Counts()
        registry = services.metrics.registry
        self._removed = Counter(
            "jgp_retention_removed", "What has aged out: jobs, rows, objects, bytes.", ["what"], registry=registry
        )
        self._step_seconds = Gauge(
            "jgp_retention_longest_step_seconds", "Longest step of the last pass.", registry=registry
        )
        self._passed = Gauge("jgp_retention_last_pass_seconds", "When the last pass ended.", registry=registry)
        self._bytes = Gauge("jgp_store_bytes", "Size of the databases.", ["part"], registry=registry)
        self._free = Gauge("jgp_store_free_bytes", "Of it, what is free to use again.", ["part"], registry=registry)
        self._wal = Gauge("jgp_store_wal_bytes", "Size of SQLite's write-ahead logs.", registry=registry)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="retention")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        every = self._policy.pass_minutes * 60
        await asyncio.sleep(min(FIRST, every))
        while True:
            try:
                if self._leads():
                    with counted(self._services.metrics.loop("retention")):
                        await self.run_once()
            except errors.GpuPlatformError as error:
                log.warning("retention was put off: %s", error)
            except Exception:  # it must not end by a bug in one pass
                self._services.metrics.mistakes.labels("retention").inc()
                log.exception("a pass of retention failed")
            await asyncio.sleep(every)

    async def run_once(self) -> None:
        """Remove all that is due now."""
        self._longest = 0.0
        self._begun = time.monotonic()
        self._gone.clear()
        for part in (
            self._jobs_by_age,
            self._jobs_by_number,
            self._jobs_by_output,
            self._jobs_by_objects,
            self._lost_output,
            self._answers,
            self._changes,
            self._leftovers,
            self._objects,
            self._files,
        ):
            await part()
        if self._gone:
            gone = ", ".join(f"{number} {what.replace('_', ' ')}" for what, number in self._gone.items())
            log.info("aged out: %s", gone)
        self._step_seconds.set(self._longest)
        self._passed.set(self._services.now())

    # --- jobs --------------------------------------------------------------------------------------------------

    @property
    def _settled(self) -> float:
        return self._services.now() - self._policy.settled_minutes * 60

    async def _jobs_by_age(self) -> None:
        if not self._policy.days:
            return
        before = min(self._settled, self._services.now() - self._policy.days * 86_400)
        while jobs := await self._ask(lambda tx: aging.ended(tx, before, JOBS)):
            if not await self._remove(jobs):
                return

    async def _jobs_by_number(self) -> None:
        if not self._policy.jobs:
            return
        over = await self._ask(aging.count_ended) - self._policy.jobs
        while over > 0:
            number = min(over, JOBS)
            jobs = await self._ask(lambda tx, number=number: aging.ended(tx, self._settled, number))  # type: ignore[misc]  # mypy can't type a lambda's default
            if not await self._remove(jobs):
                return
            over -= len(jobs)

    async def _jobs_by_output(self) -> None:
        """Remove jobs with output, the one that ended first at the front, until the others' output fits."""
        if not self._policy.output_bytes:
            return
        output = self._services.output
        over = await output.look(aging.output_bytes) - self._policy.output_bytes
        place = aging.OLDEST
        while over > 0:
            jobs = await self._ask(lambda tx, place=place: aging.ended(tx, self._settled, JOBS, place))  # type: ignore[misc]  # mypy can't type a lambda's default
            if not jobs:
                return
            place = jobs[-1]
            ids = [job.id for job in jobs]
            sizes = await output.sizes(ids)
            going = []
            for job in jobs:
                if over > 0 and sizes.get(job.id):
                    going.append(job)
                    over -= sizes[job.id]
            await self._remove(going)

    async def _jobs_by_objects(self) -> None:
        """Remove jobs until the objects that the others hold fit: several may hold one, so each step looks anew."""
        limit = self._policy.object_bytes
        while limit and await self._ask(aging.held_bytes) > limit:
            jobs = await self._ask(lambda tx: aging.ended_with_objects(tx, self._settled, JOBS))
            if not await self._remove(jobs):
                return

    async def _remove(self, jobs: list[Ended]) -> int:
        if not jobs:
            return 0
        ids = [job.id for job in jobs]
        sizes = await self._services.output.sizes(ids)
        gone = await self._step(self._services.writer.run(lambda tx: aging.delete_jobs(tx, jobs)))
        # The rows go first, as when a person deletes a job; output that is left behind by a crash is found later.
        await self._step(self._services.output.delete(*gone))
        self._count("jobs", len(gone))
        self._count("output_bytes", sum(sizes.get(job_id, 0) for job_id in gone))
        return len(gone)

    async def _lost_output(self) -> None:
        """Remove output whose job is gone: a service that was killed had deleted one without the other."""
        after = ""
        while ids := await self._services.output.look(
            lambda connection, after=after: aging.jobs_with_output(connection, after, ROWS)  # type: ignore[misc]  # mypy can't type a lambda's default
        ):
            after = ids[-1]
            if lost := await self._ask(lambda tx, ids=ids: aging.unknown_jobs(tx, ids)):  # type: ignore[misc]  # mypy can't type a lambda's default
                for job_id in sorted(lost):
                    await self._step(self._services.output.delete(job_id))
                self._count("lost_output", len(lost))
            await asyncio.sleep(0)

    # --- rows --------------------------------------------------------------------------------------------------

    async def _answers(self) -> None:
        if not self._policy.key_hours:
            return
        before = self._services.now() - self._policy.key_hours * 3600
        while gone := await self._write(lambda tx: aging.trim_remembered(tx, before, ROWS)):
            self._count("answers", gone)

    async def _changes(self) -> None:
        hours, keep = self._policy.change_hours, self._policy.changes
        before = self._services.now() - hours * 3600 if hours else 0.0

        def trim(tx: Transaction) -> int:
            end = aging.end_of_old_changes(tx, before, keep or 2**62, CHANGES)
            return aging.trim_changes(tx, end + 1)

        while gone := await self._write(trim):
            self._count("changes", gone)

    async def _leftovers(self) -> None:
        before = self._services.now() - LEFTOVER
        self._count("leftovers", await self._write(lambda tx: aging.delete_leftovers(tx, before)))

    async def _objects(self) -> None:
        if self._services.now() - self._swept >= SWEEP:
            self._swept = self._services.now()
            self._count("objects", await self._services.objects.sweep())

    # --- files -------------------------------------------------------------------------------------------------

    async def _files(self) -> None:
        """Give free pages back to the disk and write SQLite's logs back."""
        database, output = self._services.database, self._services.output
        if database.is_sqlite:
            while await self._write(lambda tx: aging.give_back(tx.connection, PAGES)):
                pass
            while await self._step(output.change(lambda connection: aging.give_back(connection, PAGES))):
                pass
            self._wal.set(await asyncio.to_thread(database.checkpoint))
        uses = {"control": await self._ask(lambda tx: aging.file_use(tx.connection))}
        if database.is_sqlite:
            uses["output"] = await output.look(aging.file_use)
        for part, use in uses.items():
            self._bytes.labels(part).set(use.total)
            self._free.labels(part).set(use.free)

    # --- within ------------------------------------------------------------------------------------------------

    async def _ask(self, question: Callable[[Transaction], T]) -> T:
        return await self._services.reader.run(question)

    async def _write(self, operation: Callable[[Transaction], T]) -> T:
        return await self._step(self._services.writer.run(operation))

    async def _step(self, work: Awaitable[T]) -> T:
        """Wait for one step, then leave the store to the others for a while; what found nothing to do took nothing."""
        begun = time.monotonic()
        result = await work
        ended = time.monotonic()
        took = ended - begun
        self._longest = max(self._longest, took)
        late = ended - self._begun > self._policy.pass_minutes * 60
        await asyncio.sleep(0.0 if result == 0 else took * (REST_WHEN_LATE if late else REST))
        return result

    def _count(self, what: str, number: int) -> None:
        if number:
            self._removed.labels(what).inc(number)
            self._gone[what] += number
