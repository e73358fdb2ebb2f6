"""What agents may do to attempts: claim them, report on them, and learn what is wanted of them.

Each call names the cluster of the agent that speaks; nothing here touches an attempt of another cluster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from .. import errors
from ..model import lifecycle
from ..model.jobs import Attempt, AttemptState, Job, Phase
from ..model.lifecycle import Report
from ..model.records import StreamKey
from ..model.resources import Capacity
from ..wire.messages import Claim, ClaimResult, Desired, Hello, Owned, Reports, Started
from . import leases
from .store.reader import changes_of
from .store.rows import ChangeFilter, ChangeRow

if TYPE_CHECKING:
    from .store.output import OutputLane
    from .store.reader import Reader
    from .store.transaction import Transaction
    from .store.writer import Writer

#: Rows of the change log read at a time.
PAGE = 1000
#: Hellos worked on at one time: the others wait, so that a call of a person finds one of the four readers free.
GREETED_AT_ONCE = 3
#: Of an attempt of which nothing new was wanted since it was placed.
FIRST_GENERATION = 1

_attempt = msgspec.json.Decoder(Attempt).decode


class Greeted(NamedTuple):
    """What a hello is answered with."""

    cluster: str
    epoch: int
    revision: int
    desired: list[Desired]
    unknown: list[Owned]


class News(NamedTuple):
    """What a piece of the change log means to agents."""

    #: the revision up to which it goes
    position: int
    #: what is wanted by now of the attempts that changed, by cluster
    desired: dict[str, list[Desired]]
    #: agents of which something changed
    agents: set[str]
    #: cluster → the newest change of an attempt of its
    newest: dict[str, int]


class Holder(NamedTuple):
    """The connection that wants to speak for an agent."""

    holder_id: str
    url: str


def desired(job: Job | None, attempt: Attempt) -> Desired:
    """What the attempt's agent should make true. The spec goes along while the attempt may still have to be started."""
    action: lifecycle.Action = "forget" if job is None else lifecycle.wanted(job, attempt)
    start = action == "run" and attempt.state is AttemptState.PLACED
    return Desired(
        job=attempt.job,
        attempt=attempt.number,
        generation=attempt.generation,
        action=action,
        incarnation=attempt.incarnation,
        interrupts=attempt.interrupts,
        grace=10.0 if job is None else job.spec.limits.grace_seconds,
        spec=job.spec if job is not None and start else None,
        gpus=attempt.gpus,
    )


class Attempts:
    """The agents' side of the domain."""

    def __init__(
        self, writer: Writer, reader: Reader, output: OutputLane, *, now: Callable[[], float] = time.time
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._output = output
        self._now = now
        self._greeting = asyncio.Semaphore(GREETED_AT_ONCE)

    async def hello(self, agent_id: str, hello: Hello, holder: Holder) -> Greeted:
        """Take a connection's hello: it now holds the agent, and is told all that is wanted of its cluster.

        The writer is held for a few rows only: what is wanted of a hundred attempts is read beside it, from a snapshot
        that is newer than the lease. So a thousand agents that come back at once hold up nobody else's commits.

        :raises Unauthenticated: the agent was revoked meanwhile.
        """
        async with self._greeting:
            strange = await self._reader.run(lambda tx: _not_known(tx, agent_id, hello.owned))
            taking = self._writer.run(lambda tx: self._take(tx, agent_id, hello, holder, strange), own=True)
            cluster, epoch, unknown = await taking
            wanted, revision, lost = await self._reader.run(lambda tx: _wanted_of(tx, cluster))
            if lost:
                await self._writer.run(lambda tx: self._regain(tx, lost), own=True)
        return Greeted(cluster, epoch, revision, wanted, unknown)

    def _take(
        self, tx: Transaction, agent_id: str, hello: Hello, holder: Holder, strange: Collection[Owned]
    ) -> tuple[str, int, list[Owned]]:
        now = self._now()
        agent = tx.agent(agent_id)
        cluster = None if agent is None else tx.cluster(agent.cluster)
        if agent is None or agent.revoked or cluster is None:
            raise errors.Unauthenticated("the agent was revoked")
        epoch = leases.connected(tx, agent_id, holder_id=holder.holder_id, url=holder.url, now=now)
        tx.put_agent(replace(agent, version=hello.version, seen=now, boot_id=hello.boot_id))
        tx.put_cluster(
            replace(
                cluster, state="connected", capacity=hello.capacity, capacity_at=now, capabilities=hello.capabilities
            )
        )
        return cluster.name, epoch, self._set_unknown_apart(tx, cluster.name, strange, now)

    def _set_unknown_apart(self, tx: Transaction, cluster: str, owned: Collection[Owned], now: float) -> list[Owned]:
        """Note what the agent holds and this store doesn't know; what it no longer holds needs no decision."""
        unknown = []
        for item in owned:
            attempt = tx.attempt(item.job, item.attempt)
            if attempt is None or attempt.cluster != cluster:
                unknown.append(item)
                tx.put_unknown(cluster, item.job, item.attempt, item.incarnation, now)
        held = {(item.job, item.attempt) for item in unknown}
        for row in tx.unknown(cluster):
            if (row.job, row.attempt) not in held:
                tx.delete_unknown(cluster, row.job, row.attempt)
        return unknown

    def _regain(self, tx: Transaction, attempts: Collection[Attempt]) -> None:
        """Note that these can be heard again."""
        for attempt in attempts:
            job = tx.job(attempt.job)
            if job is not None and job.attempt == attempt.number:
                back = lifecycle.regain_contact(job)
                if back is not job:
                    tx.put_job(back)
                    tx.event(job.id, "regained", "its cluster can be heard again", attempt.number)

    async def claim(self, cluster: str, claim: Claim) -> ClaimResult:
        """Let one incarnation run an attempt; granted means committed, and that its output will be taken."""

        def operation(tx: Transaction) -> lifecycle.Claimed | None:
            job, attempt = tx.job(claim.job), tx.attempt(claim.job, claim.attempt)
            if job is None or attempt is None or claim.replica != 0:
                return None
            claimed = lifecycle.claim(job, attempt, cluster=cluster, incarnation=claim.incarnation, now=self._now())
            if claimed.attempt is not attempt:
                tx.put_attempt(claimed.attempt)
                tx.put_job(claimed.job)
                tx.event(job.id, "running", f"attempt {attempt.number} runs on {cluster}", attempt.number)
            return claimed

        claimed = await self._writer.run(operation, own=True)
        if claimed is None or not claimed.granted:
            why = "there is no such attempt" if claimed is None else claimed.refusal
            return ClaimResult(request=claim.request, granted=False, refusal=why)
        limit = claimed.job.spec.limits.max_output_bytes
        key = StreamKey(claim.job, claim.attempt, claim.replica)
        try:
            await self._output.open_stream(key, claim.incarnation, cluster, limit)
        except errors.ClaimLost as error:
            return ClaimResult(request=claim.request, granted=False, refusal=error.message)
        return ClaimResult(request=claim.request, granted=True, max_output_bytes=limit)

    async def reports(self, cluster: str, several: Collection[Reports]) -> None:
        """Take proofs, progress and carried-out tombstones; returns when they are committed.

        What is old, or of another cluster, changes nothing: it is acknowledged all the same, for asking again would
        not make it new.
        """

        def operation(tx: Transaction) -> None:
            for reports in several:
                for started in reports.progress:
                    self._progress(tx, cluster, started)
                for report in reports.ended:
                    self._ended(tx, cluster, report)
                for owned in reports.forgotten:
                    self._forgotten(tx, cluster, owned)

        await self._writer.run(operation, own=True)

    def _progress(self, tx: Transaction, cluster: str, started: Started) -> None:
        job, attempt = tx.job(started.job), tx.attempt(started.job, started.attempt)
        if job is None or attempt is None or attempt.cluster != cluster or attempt.number != job.attempt:
            return
        if job.phase is Phase.STARTING and not job.cancel_requested and job.reason != started.reason:
            tx.put_job(replace(job, reason=started.reason, version=job.version + 1))

    def _ended(self, tx: Transaction, cluster: str, report: Report) -> None:
        job, attempt = tx.job(report.job), tx.attempt(report.job, report.attempt)
        if job is None or attempt is None:
            return
        rows = lifecycle.end(job, attempt, report, cluster=cluster, now=self._now())
        if rows.attempt is attempt:
            return
        tx.put_attempt(rows.attempt)
        tx.put_job(rows.job)
        message = rows.job.reason.message if rows.job.reason else f"attempt {attempt.number} ended"
        tx.event(job.id, str(rows.job.phase), message, attempt.number)

    def _forgotten(self, tx: Transaction, cluster: str, owned: Owned) -> None:
        attempt = tx.attempt(owned.job, owned.attempt)
        if attempt is None or attempt.cluster != cluster:
            tx.delete_unknown(cluster, owned.job, owned.attempt)
            return
        if not attempt.forgotten and desired(tx.job(owned.job), attempt).action == "forget":
            tx.put_attempt(replace(attempt, forgotten=True))

    async def capacity(self, cluster: str, capacity: Capacity) -> None:
        """Note what a cluster has by now."""

        def operation(tx: Transaction) -> None:
            row = tx.cluster(cluster)
            if row is not None and row.capacity != capacity:
                tx.put_cluster(replace(row, capacity=capacity, capacity_at=self._now()))

        await self._writer.run(operation, own=True)

    async def left(self, agent_id: str, holder: Holder, epoch: int) -> None:
        """A connection is gone: its lease runs out, unless the agent has come back elsewhere."""
        await self._writer.run(
            lambda tx: leases.disconnected(
                tx, agent_id, holder_id=holder.holder_id, epoch=epoch, url=holder.url, now=self._now()
            ),
            own=True,
        )

    async def desired_since(self, revision: int, clusters: Collection[str]) -> News:
        """What changed after *revision* for each of *clusters*, and up to which revision that goes.

        :raises Gone: the log no longer reaches back so far: say hello again.
        """
        return await self._reader.run(lambda tx: _news(tx, revision, clusters))


def _news(tx: Transaction, revision: int, clusters: Collection[str]) -> News:
    """Read all of it at once, since jobs wait for what comes of it."""
    page = changes_of(tx, revision, PAGE, ChangeFilter(kinds=("agent", "attempt")))
    newest = {row.object_id: row for row in page.items if row.kind == "attempt"}
    keys = [(row.cluster, _key(name)) for name, row in newest.items() if row.cluster in clusters and _is_news(row)]
    jobs = tx.jobs({job for _, (job, _) in keys})
    found: dict[str, list[Desired]] = {}
    for cluster, (job, number) in keys:
        attempt = tx.attempt(job, number)
        if attempt is not None and not attempt.forgotten:
            found.setdefault(cluster, []).append(desired(jobs.get(job), attempt))
    agents = {row.object_id for row in page.items if row.kind == "agent"}
    return News(page.next, found, agents, {row.cluster: row.id for row in newest.values()})


def _key(object_id: str) -> tuple[str, int]:
    job, _, number = object_id.rpartition("/")
    return job, int(number)


def _is_news(row: ChangeRow) -> bool:
    """Say whether the agent may not know it: it made its own claims and said itself what it has forgotten."""
    attempt = _attempt(row.payload)
    just_claimed = attempt.state is AttemptState.RUNNING and attempt.generation == FIRST_GENERATION
    return not attempt.forgotten and not just_claimed


def _not_known(tx: Transaction, agent_id: str, owned: Collection[Owned]) -> list[Owned]:
    """Leave out, of what an agent holds, the attempts that its cluster was given."""
    agent = tx.agent(agent_id)
    known = set() if agent is None else tx.attempt_keys(agent.cluster)
    return [item for item in owned if (item.job, item.attempt) not in known]


def _wanted_of(tx: Transaction, cluster: str) -> tuple[list[Desired], int, list[Attempt]]:
    """What is wanted of a cluster's attempts, of which revision that is, and which of them count as unreachable."""
    found = tx.attempts_with_jobs(cluster)
    wanted = [desired(job, attempt) for attempt, job in found]
    lost = [attempt for attempt, job in found if job is not None and job.unreachable_since is not None]
    return wanted, tx.revision(), lost
