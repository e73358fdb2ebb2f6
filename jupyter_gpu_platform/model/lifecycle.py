"""What may happen to a job, as pure functions: state and event in, new state out.

The identity and fencing contract (``docs/contract.md``) is decided here and nowhere else: the store calls these
functions inside its transactions, and the contract's property tests drive the same functions through lost,
doubled, late and reordered messages.

Each function returns the rows as they should be, or the very objects it was given where nothing changes; a caller
compares by identity to see whether there is something to write.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from .. import errors
from .jobs import Attempt, AttemptState, Job, Phase, Reason


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says about one attempt: that it has ended, with the proof's details."""

    job: str
    attempt: int
    #: empty where nothing ever ran (the executor could not start it)
    incarnation: str = ""
    exit_code: int | None = None
    reason: Reason | None = None


class Rows(NamedTuple):
    """A job and one of its attempts, as they should be stored."""

    job: Job
    attempt: Attempt


class Claimed(NamedTuple):
    job: Job
    attempt: Attempt
    granted: bool
    #: why not; empty when granted
    refusal: str = ""


#: What is wanted of an attempt. ``forget`` is the tombstone: the only thing on which an agent lets go of one.
Action = Literal["run", "stop", "forget"]


def _touched(job: Job, **changes: object) -> Job:
    return replace(job, version=job.version + 1, **changes)


def _requeued(job: Job, why: Reason, *, now: float) -> Job:
    """Back into the queue, without a trace of the attempt that ended."""
    return _touched(
        job,
        phase=Phase.QUEUED,
        reason=why,
        requeued=now,
        cancel_requested=False,
        cluster=None,
        ended=None,
        exit_code=None,
        unreachable_since=None,
    )


def wait(job: Job, reason: Reason) -> Job:
    """Say why a queued job waits."""
    if job.phase is not Phase.QUEUED or job.reason == reason:
        return job
    return _touched(job, reason=reason)


def hold_back(unknown: Collection[str]) -> Reason | None:
    """Say why a queued job must not be placed: attempts of it that this store doesn't know may still run.

    :param unknown: clusters whose agents hold such an attempt (after a restored backup) and no admin has decided on.
    """
    if not unknown:
        return None
    names = ", ".join(sorted(unknown))
    text = f"an attempt of it from before the store was restored may still run on {names}; an admin has to decide"
    return Reason(code="unknown_attempt", message=text, details={"clusters": names})


def place(job: Job, *, cluster: str, now: float, gpus: tuple[str, ...] = (), above: int = 0) -> Rows:
    """Give a queued job's next attempt to *cluster*.

    :param above: the number is greater than this one too: after a restored backup, those of the lost time are skipped.
    :raises Conflict: the job is not queued: it has an attempt that may still run, or it has ended.
    """
    if job.phase is not Phase.QUEUED:
        raise errors.Conflict(f"job {job.id} is {job.phase}, not queued")
    number = max(job.attempt, above) + 1
    attempt = Attempt(job=job.id, number=number, cluster=cluster, created=now, gpus=gpus)
    job = _touched(job, phase=Phase.STARTING, attempt=number, cluster=cluster, reason=None, unreachable_since=None)
    return Rows(job, attempt)


def claim(job: Job, attempt: Attempt, *, cluster: str, incarnation: str, now: float) -> Claimed:
    """Let *incarnation* be the one that runs the attempt, if none has claimed it before: compare-and-set.

    Asking again for a claim already held is granted again: the first answer may have been lost.
    """

    def refuse(why: str) -> Claimed:
        return Claimed(job, attempt, granted=False, refusal=why)

    if attempt.cluster != cluster:
        return refuse("the attempt was given to another cluster")
    if not incarnation:
        return refuse("a claim needs an incarnation")
    if attempt.number != job.attempt:
        return refuse("a newer attempt exists")
    if attempt.state is AttemptState.RUNNING and attempt.incarnation == incarnation:
        return Claimed(job, attempt, granted=True)
    if attempt.state is not AttemptState.PLACED:
        return refuse("the attempt is claimed by another incarnation or has ended")
    if job.cancel_requested:
        return refuse("the job is being cancelled")
    attempt = replace(attempt, state=AttemptState.RUNNING, incarnation=incarnation, claimed=now)
    job = _touched(job, phase=Phase.RUNNING, started=job.started or now, reason=None, unreachable_since=None)
    return Claimed(job, attempt, granted=True)


def accepts(job: Job, attempt: Attempt, *, cluster: str, incarnation: str) -> bool:
    """The fence: say whether a report from this cluster and incarnation may change the attempt."""
    if attempt.cluster != cluster or attempt.number != job.attempt:
        return False
    if attempt.state is AttemptState.PLACED:
        return True  # nothing has claimed it, so whoever ended has run no user code
    return attempt.state is AttemptState.RUNNING and attempt.incarnation == incarnation


def holds(job: Job, attempt: Attempt, *, incarnation: str) -> bool:
    """The fence of objects: say whether this incarnation has claimed the job's newest attempt, and it still runs."""
    claimed = attempt.state is AttemptState.RUNNING and attempt.incarnation == incarnation
    return claimed and attempt.number == job.attempt


def end(job: Job, attempt: Attempt, report: Report, *, cluster: str, now: float) -> Rows:
    """Take the proof that an attempt can't run any more: the job ends, or is queued for its next attempt."""
    if not accepts(job, attempt, cluster=cluster, incarnation=report.incarnation):
        return Rows(job, attempt)
    attempt = replace(
        attempt,
        state=AttemptState.ENDED,
        ended=now,
        exit_code=report.exit_code,
        reason=report.reason,
        generation=attempt.generation + 1,
    )
    if attempt.claimed is None and report.reason is None:
        why = Reason(code="start_failed", message="it ended before any of the job's code ran")
        attempt = replace(attempt, reason=why)
    stopped = attempt.reason is not None and attempt.reason.code == "stopped"
    outcome: dict[str, object] = {"exit_code": report.exit_code, "reason": attempt.reason, "unreachable_since": None}
    # What was never claimed has run no user code: its exit code is the runner's own and proves no success.
    if report.exit_code == 0 and not stopped and attempt.claimed is not None:
        return Rows(_touched(job, phase=Phase.SUCCEEDED, ended=now, **outcome), attempt)
    if job.cancel_requested:
        return Rows(_touched(job, phase=Phase.CANCELLED, ended=now, **outcome), attempt)
    if job.retries_left > 0:
        again = Reason(
            code="retrying",
            message=f"attempt {attempt.number} failed; {job.retries_left} more to go",
            details={"attempt": attempt.number, "exit_code": report.exit_code},
        )
        return Rows(_requeued(replace(job, retries_left=job.retries_left - 1), again, now=now), attempt)
    return Rows(_touched(job, phase=Phase.FAILED, ended=now, **outcome), attempt)


def cancel(job: Job, attempt: Attempt | None, *, now: float) -> tuple[Job, Attempt | None]:
    """Ask for the job's end. A queued job ends at once; one that was placed ends when its agent proves it.

    Asking again, or for a job that has ended, changes nothing.
    """
    if job.phase.ended or job.cancel_requested:
        return job, attempt
    if job.phase is Phase.QUEUED or attempt is None:
        why = Reason(code="cancelled", message="cancelled while it waited")
        return _touched(job, phase=Phase.CANCELLED, cancel_requested=True, ended=now, reason=why), attempt
    why = Reason(code="cancelling", message="asked to stop; waiting for its processes to end")
    return _touched(job, cancel_requested=True, reason=why), replace(attempt, generation=attempt.generation + 1)


def interrupt(job: Job, attempt: Attempt | None) -> Attempt:
    """Ask for a KeyboardInterrupt in the running code.

    :raises Conflict: nothing runs that could be interrupted.
    """
    if attempt is None or attempt.state is not AttemptState.RUNNING:
        raise errors.Conflict(f"job {job.id} is {job.phase}: only running code can be interrupted", hint="Cancel it.")
    return replace(attempt, interrupts=attempt.interrupts + 1, generation=attempt.generation + 1)


def retry(job: Job, *, now: float) -> Job:
    """Queue an ended job for one more attempt.

    :raises Conflict: the job has not ended.
    """
    if not job.phase.ended:
        raise errors.Conflict(f"job {job.id} is {job.phase}", hint="Only a job that has ended can be retried.")
    why = Reason(code="retry_requested", message="retried by a person")
    return _requeued(job, why, now=now)


def abandon(job: Job, attempt: Attempt | None, *, now: float) -> Rows:
    """Let a person say that an unreachable attempt is not to be waited for; it may still run somewhere.

    :raises Conflict: the job has no open attempt, or its agent can be heard.
    """
    if attempt is None or job.phase not in (Phase.STARTING, Phase.RUNNING) or job.unreachable_since is None:
        raise errors.Conflict(
            f"job {job.id} is {job.phase} and reachable", hint="Only an unreachable job can be abandoned: cancel it."
        )
    why = Reason(code="abandoned", message="given up while its cluster was unreachable; its processes may still run")
    attempt = replace(attempt, state=AttemptState.ABANDONED, ended=now, reason=why, generation=attempt.generation + 1)
    phase = Phase.CANCELLED if job.cancel_requested else Phase.FAILED
    return Rows(_touched(job, phase=phase, ended=now, reason=why, unreachable_since=None), attempt)


def lose_contact(job: Job, *, now: float) -> Job:
    """Note that the job's agent can't be heard. No phase changes: it goes on."""
    if job.phase not in (Phase.STARTING, Phase.RUNNING) or job.unreachable_since is not None:
        return job
    return _touched(job, unreachable_since=now)


def regain_contact(job: Job) -> Job:
    """Note that the job's agent speaks of it again."""
    return job if job.unreachable_since is None else _touched(job, unreachable_since=None)


def expire(job: Job, *, now: float) -> Job:
    """End a job that has waited longer than its own queue limit."""
    limit = job.spec.limits.max_queue_seconds
    since = job.created if job.requeued is None else job.requeued
    if job.phase is not Phase.QUEUED or limit is None or now - since < limit:
        return job
    waited = job.reason.message if job.reason else "no reason was found yet"
    why = Reason(code="queue_time", message=f"waited longer than {limit:g} s: {waited}", details={"limit": limit})
    return _touched(job, phase=Phase.FAILED, ended=now, reason=why)


def wanted(job: Job, attempt: Attempt) -> Action:
    """Say what the attempt's agent should make true."""
    if attempt.state in (AttemptState.ENDED, AttemptState.ABANDONED) or attempt.number != job.attempt:
        return "forget"
    return "stop" if job.cancel_requested else "run"
