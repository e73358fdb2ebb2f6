"""Bugs for each check: a rule that decides wrongly, and the name of the check that has to find it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from jupyter_gpu_platform.model import board, lifecycle, placement
from jupyter_gpu_platform.model.jobs import Attempt, AttemptState, Job, Phase
from jupyter_gpu_platform.model.lifecycle import Claimed, Report, Rows

from .rules import Key, Rules, Stream

if TYPE_CHECKING:
    from jupyter_gpu_platform.wire.messages import Desired

    from .cluster import Entry, Runner
    from .service import Line

#: check → bugs that it has to find
BUGS: dict[str, list[type[Rules]]] = {}


def found_by(check: str) -> Any:
    def register(bug: type[Rules]) -> type[Rules]:
        BUGS.setdefault(check, []).append(bug)
        return bug

    return register


@found_by("at_most_one_incarnation_runs_user_code_per_attempt")
class ClaimIsNoCompareAndSet(Rules):
    @staticmethod
    def claim(job: Job, attempt: Attempt, *, cluster: str, incarnation: str, now: float) -> Claimed:
        free = replace(attempt, state=AttemptState.PLACED)
        return lifecycle.claim(job, free, cluster=cluster, incarnation=incarnation, now=now)


@found_by("two_attempts_never_run_at_once")
@found_by("placed_again_only_on_proof")
class PlacesTwice(Rules):
    def placeable(self, jobs: Iterable[Job]) -> list[Job]:
        return [job for job in jobs if job.phase in (Phase.QUEUED, Phase.STARTING, Phase.RUNNING)]

    @staticmethod
    def place(job: Job, **details: Any) -> Rows:
        return lifecycle.place(replace(job, phase=Phase.QUEUED), **details)


@found_by("placed_again_only_on_proof")
class ReplacesTheUnreachableWithoutProof(Rules):
    @staticmethod
    def lose_contact(job: Job, *, now: float) -> Job:
        lost = lifecycle.lose_contact(job, now=now)
        return lost if lost is job else replace(lost, phase=Phase.QUEUED)


@found_by("only_a_granted_claim_runs")
class RunsWithoutAClaim(Rules):
    def runs_user_code(self, *, granted: bool) -> bool:
        return True


@found_by("cancelled_job_never_claims")
class ClaimsAfterCancel(Rules):
    @staticmethod
    def claim(job: Job, attempt: Attempt, **details: Any) -> Claimed:
        claimed = lifecycle.claim(replace(job, cancel_requested=False), attempt, **details)
        return claimed if claimed.granted else Claimed(job, attempt, granted=False)


@found_by("not_placed_beside_an_unknown_attempt")
class ForgetsToHoldBack(Rules):
    @staticmethod
    def hold_back(*_: object) -> None:
        return None


@found_by("no_gpu_is_given_twice")
class ForgetsWhatIsHeld(Rules):
    @staticmethod
    def plan(queued: Any, clusters: Any, _held: Any) -> placement.Plan:
        return board.plan(queued, clusters, ())


@found_by("older_attempt_changes_nothing")
class HearsOlderAttempts(Rules):
    @staticmethod
    def end(job: Job, attempt: Attempt, report: Report, *, cluster: str, now: float) -> Rows:
        latest = replace(job, attempt=attempt.number)
        rows = lifecycle.end(latest, replace(attempt, state=AttemptState.PLACED), report, cluster=cluster, now=now)
        return Rows(job, attempt) if attempt.state is AttemptState.ENDED else rows


@found_by("older_attempt_changes_nothing")
@found_by("records_are_exactly_once_in_order")
class NoFenceForOlderStreams(Rules):
    def takes_records(self, stream: Stream, *, cluster: str, incarnation: str) -> bool:
        return (stream.cluster, stream.incarnation) == (cluster, incarnation)


@found_by("other_incarnation_changes_nothing")
class BelievesAnyIncarnation(Rules):
    @staticmethod
    def end(job: Job, attempt: Attempt, report: Report, *, cluster: str, now: float) -> Rows:
        return lifecycle.end(job, attempt, replace(report, incarnation=attempt.incarnation), cluster=cluster, now=now)


@found_by("foreign_cluster_changes_nothing")
class BelievesForeignClusters(Rules):
    @staticmethod
    def end(job: Job, attempt: Attempt, report: Report, **details: Any) -> Rows:
        return lifecycle.end(job, attempt, report, **details | {"cluster": attempt.cluster})


@found_by("foreign_cluster_changes_nothing")
class GrantsForeignClaims(Rules):
    @staticmethod
    def claim(job: Job, attempt: Attempt, **details: Any) -> Claimed:
        return lifecycle.claim(job, attempt, **details | {"cluster": attempt.cluster})


@found_by("foreign_cluster_changes_nothing")
class TakesForeignRecords(Rules):
    def takes_records(self, stream: Stream, *, cluster: str, incarnation: str) -> bool:
        return not stream.fenced and stream.incarnation == incarnation


@found_by("what_never_claimed_never_succeeds")
class BelievesAnUnclaimedExitCode(Rules):
    @staticmethod
    def end(job: Job, attempt: Attempt, report: Report, *, cluster: str, now: float) -> Rows:
        rows = lifecycle.end(job, replace(attempt, claimed=attempt.claimed or now), report, cluster=cluster, now=now)
        return Rows(job, attempt) if rows.job is job else Rows(rows.job, replace(rows.attempt, claimed=attempt.claimed))


@found_by("generation_never_goes_back")
class ObeysOlderGenerations(Rules):
    def obeys(self, held: tuple[str, int], told: tuple[str, int]) -> bool:
        return True


@found_by("acknowledged_is_committed")
class AcknowledgesBeforeTheCommit(Rules):
    def answers(self, *, committed: bool) -> bool:
        return True


@found_by("acknowledged_is_committed")
class TheAgentAcknowledgesWhatItHasSent(Rules):
    def passes_on(self, next_seq: int, sent: int) -> int:
        return sent


@found_by("records_are_exactly_once_in_order")
class ForgetsItsCursorsInACrash(Rules):
    def kept_over_a_crash(self, streams: Mapping[Key, Stream]) -> dict[Key, Stream]:
        return {key: stream._replace(next_seq=1) for key, stream in streams.items()}


@found_by("records_are_exactly_once_in_order")
class TakesOverlapsAgain(Rules):
    def fresh(self, next_seq: int, first: int, lines: Sequence[str]) -> Sequence[str]:
        return lines if first <= next_seq else ()


@found_by("records_are_exactly_once_in_order")
class TakesRecordsAfterAGap(Rules):
    def fresh(self, next_seq: int, first: int, lines: Sequence[str]) -> Sequence[str]:
        return lines[max(0, next_seq - first) :]


@found_by("no_record_acknowledged_to_a_reader_disappears")
class ShowsWhatIsNotCommitted(Rules):
    def shown(self, *, committed: tuple[Line, ...], pending: tuple[Line, ...]) -> tuple[Line, ...]:
        return pending


@found_by("ended_output_is_complete")
class DropsTheLastRecord(Rules):
    def reports_end(self, runner: Runner, store: str) -> bool:
        return super().reports_end(runner, store) or (not runner.alive and runner.durable >= len(runner.spool))


@found_by("absence_never_deletes")
class DeletesByAbsence(Rules):
    def lets_go(self, entry: Entry, desired: Sequence[Desired]) -> bool:
        return entry.key not in {(one.job, one.attempt) for one in desired}


@found_by("unknown_attempts_are_kept")
class KillsTheUnknownAfterARestore(Rules):
    def unknown_is_told_to_forget(self, *, decided: bool) -> bool:
        return True


@found_by("a_claimed_attempt_is_never_started_anew")
class StartsTheClaimedAnew(Rules):
    def starts_anew(self, told: Desired) -> bool:
        return True


@found_by("undeclared_capability_never_sent")
class SendsWhatWasNotDeclared(Rules):
    def may_interrupt(self, capabilities: Iterable[str]) -> bool:
        return True


@found_by("ended_jobs_have_ended_attempts")
class CancelsWithoutWaiting(Rules):
    @staticmethod
    def cancel(job: Job, attempt: Attempt | None, *, now: float) -> tuple[Job, Attempt | None]:
        job, attempt = lifecycle.cancel(job, attempt, now=now)
        return replace(job, phase=Phase.CANCELLED, ended=now), attempt


@found_by("every_accepted_job_ends_when_faults_stop")
class NeverReportsTheEnd(Rules):
    """An agent that waits for the last record of a runner that has none, or was fenced, waits for ever."""

    def reports_end(self, runner: Runner, store: str) -> bool:
        return not runner.alive and runner.durable_in == store and runner.durable > len(runner.spool)
