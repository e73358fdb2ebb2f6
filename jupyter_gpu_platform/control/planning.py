"""The planner: gives queued jobs to clusters, says why the others wait, and notices clusters that fell silent.

One replica plans at a time, under a lease. It reads all that waits and runs once, when it takes the lease, and follows
the change log from there: its `Board` is what the log says up to one position. So a look costs what it decides, not
what waits. What it writes is checked again in the writing transaction, the lease's epoch first, so a planner that lost
its lease while it thought changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from .. import errors
from ..model import lifecycle, placement
from ..model.board import Board
from ..model.jobs import Attempt, Job
from . import leases
from .metrics import counted
from .store.reader import changes_of
from .store.rows import ChangeFilter, ChangeRow, Cluster

if TYPE_CHECKING:
    from .services import Services
    from .store.transaction import Transaction

log = logging.getLogger(__name__)

#: Seconds between looks that nothing woke: for limits that run out, and clusters that fall silent.
SLOW_TICK = 5.0
#: Seconds between looks of a standby at whether the one that plans is gone; they ask no database.
STANDBY_LOOK = 0.5
#: So many times longer a service that has just started waits for silent agents while others are being welcomed: to
#: note a thousand clusters as lost would only keep them waiting.
GREETING = 4
#: This many placements, expiries and reasons go into one transaction.
BATCH = 200


#: Rows of the change log read at a time.
PAGE = 1000
_KINDS = ChangeFilter(kinds=("job", "job.deleted", "attempt", "cluster", "cluster.deleted"))
_job = msgspec.json.Decoder(Job).decode
_attempt = msgspec.json.Decoder(Attempt).decode
_cluster = msgspec.json.Decoder(Cluster).decode


class _Thought(NamedTuple):
    """What a look came to."""

    plan: placement.Plan
    #: versions of the jobs that it decides on
    versions: dict[str, int]
    expiring: list[str]
    revision: int


class _Follower:
    """Keeps a board in step with the change log."""

    def __init__(self) -> None:
        self.board = Board()
        self.revision = -1

    def catch_up(self, tx: Transaction) -> None:
        """Read what is new; all of it the first time, and when the log was trimmed meanwhile."""
        try:
            if self.revision >= 0:
                self._follow(tx)
                return
        except errors.Gone:
            pass
        self.board, self.revision = Board(), -1
        for cluster in tx.clusters():
            self.board.put_cluster(_view(cluster))
        for job in tx.jobs_open():
            self.board.put_job(job)
        for attempt in tx.attempts_open():
            self.board.put_attempt(attempt)
        self.revision = tx.revision()  # of the same snapshot

    def _follow(self, tx: Transaction) -> None:
        newest = tx.revision()
        while self.revision < newest:
            page = changes_of(tx, self.revision, PAGE, _KINDS)
            for row in page.items:
                self._take(row)
            self.revision = page.next

    def _take(self, row: ChangeRow) -> None:
        match row.kind:
            case "job":
                self.board.put_job(_job(row.payload))
            case "job.deleted":
                self.board.remove_job(row.object_id)
            case "attempt":
                self.board.put_attempt(_attempt(row.payload))
            case "cluster":
                self.board.put_cluster(_view(_cluster(row.payload)))
            case "cluster.deleted":
                self.board.remove_cluster(row.object_id)


def _view(cluster: Cluster) -> placement.ClusterView:
    return placement.ClusterView(
        name=cluster.name,
        capacity=cluster.capacity,
        reachable=cluster.state == "connected",
        drained=cluster.drained,
        capabilities=cluster.capabilities,
    )


class Planner:
    """Plans while this replica holds the lease; stands by otherwise."""

    def __init__(self, services: Services, *, tick: float = SLOW_TICK, ttl: float = leases.TTL) -> None:
        self._services = services
        self._tick = tick
        self._ttl = ttl
        self._task: asyncio.Task[None] | None = None
        self.epoch: int | None = None
        #: the last look placed a job
        self._placed = False
        #: kept while this replica plans
        self._follower: _Follower | None = None
        #: a service that has just started gives its agents this long to dial before it calls them silent
        self._patience_until = 0.0

    def start(self) -> None:
        self._patience_until = self._services.now() + self._ttl
        self._task = asyncio.create_task(self._run(), name="planner")

    async def stop(self) -> None:
        """Stop planning and let another replica begin at once."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self.epoch = None
        replica = self._services.replica_id
        with contextlib.suppress(errors.GpuPlatformError):
            await self._services.writer.run(lambda tx: tx.release_lease(leases.PLANNER, replica), own=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        position, swept = 0, -self._tick
        while True:
            begun = loop.time()
            due = self.epoch is None and self._services.database.first
            slow = due or begun - swept >= self._tick
            try:
                if slow:
                    swept = begun
                with counted(self._services.metrics.loop("planner")):
                    position = await self._round(position, slow=slow)
            except errors.GpuPlatformError as error:
                log.warning("planning was put off: %s", error)
                self.epoch = None
            except Exception:  # the planner must not end by a bug in one pass
                self._services.metrics.mistakes.labels("planner").inc()
                log.exception("a planning pass failed")
                self._follower = None  # whatever it was, the next pass reads all anew
            # At most half of the time is spent placing, and a fifth saying why jobs wait, however fast changes come.
            await asyncio.sleep(min(1.0, (loop.time() - begun) * (1 if self._placed else 4)))
            left = max(0.0, self._tick - (loop.time() - swept))
            if self.epoch is None:
                await self._stand_by(left)
            else:
                await self._services.feed.wait(position, left)

    async def _round(self, position: int, *, slow: bool) -> int:
        if slow:
            await self._hold()
            if self.epoch is not None:
                await self._sweep()
        return position if self.epoch is None else await self.plan(refresh=slow)

    async def _stand_by(self, seconds: float) -> None:
        """Wait for the next look at the lease, or until the replica that planned is gone."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            await asyncio.sleep(min(STANDBY_LOOK, max(until - loop.time(), 0.0)))
            if loop.time() >= until or self._services.database.first:
                return

    async def _hold(self) -> None:
        """Take the lease, or renew it."""
        services = self._services

        def operation(tx: Transaction) -> int | None:
            # A store in a file has one service at a time, by its lock: a lease in it is a dead one's, not worth a wait.
            # And of replicas, the one whose connection holds the lock needs no patience either: who planned is gone,
            # or has lost touch with the store; the new epoch fences what it may still write.
            alone = self.epoch is None and (services.database.is_sqlite or services.database.first)
            lease = tx.acquire_lease(
                leases.PLANNER, services.replica_url, services.replica_id, self._ttl, services.now(), force=alone
            )
            return None if lease is None else lease.epoch

        epoch = await services.writer.run(operation, own=True)
        if epoch is not None and self.epoch is None:
            log.info("this replica plans (epoch %d)", epoch)
        self.epoch = epoch
        if epoch is None:
            self._follower = None

    def _check(self, tx: Transaction) -> None:
        """Refuse to write under a lease that another replica has taken."""
        lease = tx.lease(leases.PLANNER)
        if lease is None or lease.holder_id != self._services.replica_id or lease.epoch != self.epoch:
            raise errors.Conflict("another replica plans by now")

    # --- placing -----------------------------------------------------------------------------------------------

    async def plan(self, *, refresh: bool = False) -> int:
        """Make one plan and write it; returns the revision that it was made from.

        :param refresh: also write reasons of which only the numbers changed.
        """
        if self._follower is None:
            self._follower = _Follower()
        thought = await self._services.reader.run(partial(self._think, self._follower, refresh=refresh))
        self._placed = bool(thought.plan.placed)
        if thought.plan.placed or thought.plan.waiting or thought.expiring:
            await self._write(thought)
        # Where a look ended at its limit, the next one follows at once.
        return -1 if thought.plan.more or len(thought.expiring) >= BATCH else thought.revision

    def _think(self, follower: _Follower, tx: Transaction, *, refresh: bool) -> _Thought:
        follower.catch_up(tx)
        board = follower.board
        if not board.queued:
            return _Thought(placement.Plan((), {}), {}, [], follower.revision)
        unknown: dict[str, set[str]] = {}
        for row in tx.unknown():
            unknown.setdefault(row.job, set()).add(row.cluster)
        held_back = {job_id: why for job_id, on in unknown.items() if (why := lifecycle.hold_back(on))}
        plan = board.plan(BATCH, held_back, refresh=refresh)
        decided = [*(place.job for place in plan.placed), *plan.waiting]
        versions = {job_id: board.queued[job_id].version for job_id in decided}
        return _Thought(plan, versions, board.expiring(self._services.now(), BATCH), follower.revision)

    async def _write(self, thought: _Thought) -> None:
        now = self._services.now()
        retried: list[bool] = []
        placed, waiting, expiring = thought.plan.placed, thought.plan.waiting, thought.expiring

        def operation(tx: Transaction) -> None:
            self._check(tx)
            retried.clear()
            found = tx.jobs([*thought.versions, *expiring])
            jobs = {
                job_id: job for job_id, job in found.items() if job.version == thought.versions.get(job_id, job.version)
            }
            above = tx.newest_attempts([place.job for place in placed])
            drained = {cluster.name: cluster.drained for cluster in tx.clusters()} if placed else {}
            for place in placed:
                job = jobs.get(place.job)
                if job is not None and drained.get(place.cluster) is False:
                    rows = lifecycle.place(
                        job, cluster=place.cluster, now=now, gpus=place.gpus, above=above.get(job.id, 0)
                    )
                    retried.append(rows.attempt.number > 1)
                    tx.put_job(rows.job)
                    tx.put_attempt(rows.attempt)
                    tx.event(job.id, "placed", f"attempt {rows.attempt.number} was given to {place.cluster}")
            for job_id, reason in waiting.items():
                job = jobs.get(job_id)
                if job is not None and (told := lifecycle.wait(job, reason)) is not job:
                    tx.put_job(told)
            for job_id in expiring:
                job = tx.job(job_id)
                if job is not None and (ended := lifecycle.expire(job, now=now)) is not job:
                    tx.put_job(ended)
                    tx.event(job.id, "failed", ended.reason.message if ended.reason else "")

        await self._services.writer.run(operation, own=True)
        for retry in retried:
            self._services.metrics.placements.labels(str(retry).lower()).inc()

    # --- silence -----------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Mark the jobs of clusters whose agent has not been heard for a while."""
        if self._services.now() < self._patience_until + (GREETING * self._ttl if self._greeting() else 0.0):
            return

        def silent(tx: Transaction) -> list[str]:
            heard = leases.heard(tx, self._services.now())
            quiet = {cluster.name: cluster.state for cluster in tx.clusters() if cluster.name not in heard}
            open_on = tx.clusters_in_use() if "away" in quiet.values() else set()
            return [
                name for name, state in quiet.items() if state == "connected" or (state == "away" and name in open_on)
            ]

        # One at a time: where a thousand fall silent together, other writers have their turn between them.
        for name in await self._services.reader.run(silent):
            await self._services.writer.run(lambda tx, name=name: self._lose(tx, name), own=True)  # type: ignore[misc]  # mypy can't type a lambda's default

    def _greeting(self) -> bool:
        """Whether agents have dialled to this replica and wait for their welcome."""
        return self._services.admission.hellos.used > 0

    def _lose(self, tx: Transaction, name: str) -> None:
        self._check(tx)
        now, cluster = self._services.now(), tx.cluster(name)
        if cluster is None or name in leases.heard(tx, now, name):
            return
        tx.put_cluster(replace(cluster, state="away"))
        attempts = tx.attempts_of(name)
        jobs = tx.jobs({attempt.job for attempt in attempts})
        for attempt in attempts:
            job = jobs.get(attempt.job)
            if job is None or job.attempt != attempt.number:
                continue
            gone = lifecycle.lose_contact(job, now=now)
            if gone is not job:
                tx.put_job(gone)
                tx.event(job.id, "unreachable", f"{name} can't be heard; the job goes on", attempt.number)
