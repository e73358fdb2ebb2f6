"""The contract's invariants, each a named check on the simulated world (docs/contract.md lists them)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator

from jupyter_gpu_platform.model.jobs import AttemptState

from .cluster import Runner
from .service import OPEN, Transition
from .world import World

#: A check says what is wrong, in words; nothing when all is well.
Check = Callable[[World], Iterator[str]]

CHECKS: dict[str, Check] = {}


class Violated(AssertionError):
    """An invariant does not hold; the message starts with its name."""


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def verify(world: World, names: Collection[str] = CHECKS.keys()) -> None:
    """Run the checks named; what they have judged of the notes is struck out.

    :raises Violated: one of them finds something.
    """
    for name in names:
        for wrong in CHECKS[name](world):
            raise Violated(f"{name}: {wrong}")
    world.notes.transitions.clear()


def _changes(world: World, *kinds: str) -> Iterator[Transition]:
    return (one for one in world.notes.transitions if one.changed and one.kind in kinds)


def _abandoned(world: World, runner: Runner) -> bool:
    attempt = world.state.attempts.get(runner.key)
    return attempt is not None and attempt.state is AttemptState.ABANDONED


# --- who runs


@check
def at_most_one_incarnation_runs_user_code_per_attempt(world: World) -> Iterator[str]:
    for name, incarnations in world.notes.ran.items():
        if len(incarnations) > 1:
            yield f"{name} was run by {sorted(incarnations)}"


@check
def two_attempts_never_run_at_once(world: World) -> Iterator[str]:
    """Unless a person abandoned one. Attempts that only a store before a restored backup knew are another matter."""
    store = world.store_incarnation
    running = Counter(
        key[0]
        for key in {
            runner.key
            for runner in world.runners
            if runner.phase == "running"
            and runner.incarnation in world.notes.ran.get((store, *runner.key), ())
            and not _abandoned(world, runner)
        }
    )
    yield from (f"{job} runs {count} times" for job, count in running.items() if count > 1)


@check
def only_a_granted_claim_runs(world: World) -> Iterator[str]:
    for runner in world.runners:
        if runner.phase == "running" and not runner.granted:
            yield f"{runner.incarnation} runs {runner.key} without a claim"


@check
def cancelled_job_never_claims(world: World) -> Iterator[str]:
    for one in _changes(world, "claim"):
        if one.before[0].cancel_requested or one.before[0].phase.ended:
            yield f"{one.key} was claimed when its job was cancelled"


@check
def placed_again_only_on_proof(world: World) -> Iterator[str]:
    for one in _changes(world, "place"):
        before = one.before[1]
        if before is not None and before.state in OPEN:
            yield f"{one.key} was placed while attempt {before.number} is {before.state}"
        store = world.store_incarnation
        for runner in world.runners:
            earlier = runner.key[0] == one.key[0] and runner.key[1] < one.key[1]
            ran_here = runner.incarnation in world.notes.ran.get((store, *runner.key), ())
            if earlier and ran_here and runner.phase == "running" and not _abandoned(world, runner):
                yield f"{one.key} was placed while {runner.incarnation} runs {runner.key}"


@check
def not_placed_beside_an_unknown_attempt(world: World) -> Iterator[str]:
    for one in _changes(world, "place"):
        if one.incarnation:
            yield f"{one.key} was placed beside an attempt on {one.incarnation}"


@check
def no_gpu_is_given_twice(world: World) -> Iterator[str]:
    given = Counter(uuid for a in world.state.attempts.values() if a.state in OPEN for uuid in a.gpus)
    yield from (f"{uuid} is held by {count} attempts" for uuid, count in given.items() if count > 1)


# --- the fences


@check
def older_attempt_changes_nothing(world: World) -> Iterator[str]:
    for one in _changes(world, "claim", "end"):
        if one.key[1] < one.before[0].attempt:
            yield f"{one.kind} of {one.key} changed job at attempt {one.before[0].attempt}"
    for one in _changes(world, "records"):
        newer = [key for key in world.state.streams if key[0] == one.key[0] and key[1] > one.key[1]]
        # A stream opened later in the same transaction is after these records, not before them.
        lines = world.state.output.get(one.key[0], ())
        if newer and any(line.attempt > one.key[1] for line in lines) and lines[-1].attempt == one.key[1]:
            yield f"records of {one.key} were taken after those of {max(newer)}"


@check
def other_incarnation_changes_nothing(world: World) -> Iterator[str]:
    for one in _changes(world, "claim", "end", "records"):
        attempt = one.before[1]
        if attempt is not None and attempt.incarnation and attempt.incarnation != one.incarnation:
            yield f"{one.kind} by {one.incarnation!r} changed {one.key}, claimed by {attempt.incarnation}"


@check
def foreign_cluster_changes_nothing(world: World) -> Iterator[str]:
    for one in _changes(world, "claim", "end", "records"):
        attempt = one.before[1]
        if attempt is not None and attempt.cluster != one.cluster:
            yield f"{one.kind} by {one.cluster} changed {one.key} of {attempt.cluster}"


@check
def what_never_claimed_never_succeeds(world: World) -> Iterator[str]:
    for job in world.state.jobs.values():
        attempt = world.state.newest(job)
        if job.phase == "succeeded" and (attempt is None or attempt.claimed is None):
            yield f"{job.id} succeeded without running"


@check
def generation_never_goes_back(world: World) -> Iterator[str]:
    yield from (f"an executor at {held} went back to {told}" for held, told in world.notes.went_back)


# --- what is committed


@check
def acknowledged_is_committed(world: World) -> Iterator[str]:
    store, state = world.store_incarnation, world.state
    for accepted_in, name in world.notes.accepted:
        if accepted_in == store and name not in state.jobs:
            yield f"job {name} was accepted and is not stored"
    for runner in world.runners:
        attempt, stream = state.attempts.get(runner.key), state.streams.get(runner.key)
        if store in runner.granted and (attempt is None or attempt.incarnation != runner.incarnation):
            yield f"the claim of {runner.incarnation} on {runner.key} was granted and is not stored"
        if runner.durable_in == store and runner.durable > (stream.next_seq if stream is not None else 1):
            yield f"records of {runner.key} up to {runner.durable} were acknowledged and are not stored"
    for cluster in world.clusters.values():
        agent = cluster.agent
        for job, number, incarnation in agent.acknowledged if agent.store == store else ():
            attempt = state.attempts.get((job, number))
            if attempt is not None and attempt.state in OPEN and attempt.incarnation == incarnation:
                yield f"the end of {incarnation} was acknowledged and is not stored"


@check
def records_are_exactly_once_in_order(world: World) -> Iterator[str]:
    for job, lines in world.state.output.items():
        if [line.attempt for line in lines] != sorted(line.attempt for line in lines):
            yield f"the attempts of {job} are mixed in its output"
        for number in {line.attempt for line in lines}:
            births = [line.text.split(":")[:2] for line in lines if line.attempt == number]
            if births != [[births[0][0], str(seq)] for seq in range(1, len(births) + 1)]:
                yield f"({job}, {number}) has the records {births}"


@check
def no_record_acknowledged_to_a_reader_disappears(world: World) -> Iterator[str]:
    for (store, job), lines in world.notes.read.items():
        if store == world.store_incarnation and world.state.output.get(job, ())[: len(lines)] != lines:
            yield f"{job} showed {len(lines)} records that are not there any more"


@check
def ended_output_is_complete(world: World) -> Iterator[str]:
    """When an attempt has ended on its own runner's word, all of its records are there, the last one too."""
    for one in _changes(world, "end"):
        for runner in world.runners:
            same = (runner.key, runner.incarnation) == (one.key, one.incarnation)
            if same and world.store_incarnation in runner.granted and not runner.fenced:
                stored = sum(line.attempt == one.key[1] for line in world.state.output.get(one.key[0], ()))
                if stored < len(runner.spool):
                    yield f"{one.key} ended with {stored} of its {len(runner.spool)} records"


# --- letting go


@check
def absence_never_deletes(world: World) -> Iterator[str]:
    for runner, by, _ in world.notes.stopped:
        if by not in ("stop", "tombstone", "fence"):
            yield f"{runner.incarnation} of {runner.key} was stopped by {by}"


@check
def unknown_attempts_are_kept(world: World) -> Iterator[str]:
    for runner, by, known in world.notes.stopped:
        if not known:
            yield f"{runner.incarnation} of {runner.key}, which the store does not know, was stopped by {by}"


@check
def a_claimed_attempt_is_never_started_anew(world: World) -> Iterator[str]:
    yield from (f"{key} was started anew on {cluster}" for cluster, key in world.notes.started_anew)


@check
def undeclared_capability_never_sent(world: World) -> Iterator[str]:
    yield from (f"{name} was sent to an agent that had not declared it" for name in world.notes.undeclared)


# --- life


@check
def ended_jobs_have_ended_attempts(world: World) -> Iterator[str]:
    for attempt in world.state.attempts.values():
        job = world.state.jobs[attempt.job]
        if attempt.state in OPEN and (job.phase.ended or job.phase == "queued" or job.attempt != attempt.number):
            yield f"{job.id} is {job.phase} at attempt {job.attempt}, but {attempt.number} is {attempt.state}"


@check
def every_accepted_job_ends_when_faults_stop(world: World) -> Iterator[str]:
    yield from (f"{name} is {world.state.jobs[name].phase} for ever" for name in world.notes.stuck)
