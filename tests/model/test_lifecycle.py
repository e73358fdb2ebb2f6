from __future__ import annotations

import pytest
from msgspec.structs import replace

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.model import lifecycle
from jupyter_gpu_platform.model.jobs import Attempt, AttemptState, Command, Job, JobSpec, Limits, Phase, Reason
from jupyter_gpu_platform.model.lifecycle import Report, Rows


def a_job(*, retries: int = 0, queue_time: float | None = None) -> Job:
    limits = Limits(max_queue_seconds=queue_time)
    spec = JobSpec(source=Command(argv=("true",)), retries=retries, limits=limits)
    return Job(id="j1", spec=spec, owner="a", project="p", organisation="o", created=100.0, retries_left=retries)


def running(job: Job) -> Rows:
    placed = lifecycle.place(job, cluster="east", now=101.0, gpus=("g0",))
    claimed = lifecycle.claim(*placed, cluster="east", incarnation="i1", now=102.0)
    assert claimed.granted
    return Rows(claimed.job, claimed.attempt)


def ended(rows: Rows, exit_code: int | None, **details: object) -> Rows:
    report = Report(job="j1", attempt=rows.attempt.number, incarnation="i1", exit_code=exit_code)
    return lifecycle.end(*rows, replace(report, **details), cluster="east", now=200.0)


def test_a_placed_job_starts_and_holds_its_gpus() -> None:
    job, attempt = lifecycle.place(a_job(), cluster="east", now=101.0, gpus=("g0",))
    assert (job.phase, job.attempt, attempt.gpus) == (Phase.STARTING, 1, ("g0",))
    with pytest.raises(errors.Conflict):
        lifecycle.place(job, cluster="east", now=102.0)


def test_numbers_of_the_time_lost_by_a_restore_are_skipped() -> None:
    assert lifecycle.place(a_job(), cluster="east", now=1.0, above=1000).attempt.number == 1001


def test_a_job_with_an_unknown_attempt_is_held_back() -> None:
    reason = lifecycle.hold_back(["west"])
    assert reason is not None
    assert reason.code == "unknown_attempt"
    assert lifecycle.hold_back([]) is None


def test_a_claim_is_granted_again_to_its_holder_only() -> None:
    rows = running(a_job())
    again = lifecycle.claim(*rows, cluster="east", incarnation="i1", now=103.0)
    assert again.granted
    assert again.job is rows.job
    assert not lifecycle.claim(*rows, cluster="east", incarnation="i2", now=103.0).granted


@pytest.mark.parametrize(("cluster", "incarnation"), [("west", "i1"), ("east", "i2"), ("east", "")])
def test_reports_of_others_change_nothing(cluster: str, incarnation: str) -> None:
    rows = running(a_job())
    report = Report(job="j1", attempt=1, incarnation=incarnation, exit_code=0)
    after = lifecycle.end(*rows, report, cluster=cluster, now=200.0)
    assert after.job is rows.job
    assert after.attempt is rows.attempt


def test_what_never_claimed_never_succeeds() -> None:
    rows = lifecycle.place(a_job(), cluster="east", now=101.0)
    job, attempt = ended(rows, 0)
    assert job.phase is Phase.FAILED
    assert attempt.reason is not None
    assert attempt.reason.code == "start_failed"


def test_a_failed_attempt_goes_back_to_the_queue_while_retries_are_left() -> None:
    job, attempt = ended(running(a_job(retries=1)), 1)
    assert (job.phase, job.retries_left, job.cluster, job.exit_code) == (Phase.QUEUED, 0, None, None)
    assert attempt.state is AttemptState.ENDED


def test_the_queue_limit_counts_from_the_last_requeue() -> None:
    job, _ = ended(running(a_job(retries=1, queue_time=50.0)), 1)
    assert lifecycle.expire(job, now=249.0) is job
    assert lifecycle.expire(job, now=250.0).phase is Phase.FAILED


def test_a_person_can_retry_an_ended_job_and_its_wait_begins_anew() -> None:
    job, _ = ended(running(a_job(queue_time=50.0)), 1)
    again = lifecycle.retry(job, now=1000.0)
    assert again.phase is Phase.QUEUED
    assert lifecycle.expire(again, now=1049.0) is again
    with pytest.raises(errors.Conflict):
        lifecycle.retry(again, now=1001.0)


def test_a_cancelled_job_ends_on_proof_and_never_claims() -> None:
    placed = lifecycle.place(a_job(), cluster="east", now=101.0)
    job, attempt = lifecycle.cancel(*placed, now=102.0)
    assert attempt is not None
    assert (job.phase, attempt.generation, lifecycle.wanted(job, attempt)) == (Phase.STARTING, 2, "stop")
    assert not lifecycle.claim(job, attempt, cluster="east", incarnation="i1", now=103.0).granted
    assert ended(Rows(job, attempt), None).job.phase is Phase.CANCELLED


def test_only_an_unreachable_job_can_be_abandoned() -> None:
    job, attempt = running(a_job())
    with pytest.raises(errors.Conflict):
        lifecycle.abandon(job, attempt, now=103.0)
    lost = lifecycle.lose_contact(job, now=104.0)
    assert lost.phase is Phase.RUNNING
    job, attempt = lifecycle.abandon(lost, attempt, now=105.0)
    assert (job.phase, lifecycle.wanted(job, attempt)) == (Phase.FAILED, "forget")


def test_only_running_code_can_be_interrupted() -> None:
    job, attempt = running(a_job())
    assert lifecycle.interrupt(job, attempt).generation == attempt.generation + 1
    with pytest.raises(errors.Conflict):
        lifecycle.interrupt(job, Attempt(job="j1", number=1, cluster="east", created=1.0))


def test_the_same_reason_is_not_written_twice() -> None:
    waiting = lifecycle.wait(a_job(), Reason(code="c", message="m"))
    assert lifecycle.wait(waiting, Reason(code="c", message="m")) is waiting


def test_only_the_incarnation_that_runs_the_newest_attempt_may_bring_objects() -> None:
    job, attempt = running(a_job(retries=1))
    assert lifecycle.holds(job, attempt, incarnation="i1")
    assert not lifecycle.holds(job, attempt, incarnation="i2")
    placed = lifecycle.place(a_job(), cluster="east", now=101.0)
    assert not lifecycle.holds(*placed, incarnation="")
    over = ended(Rows(job, attempt), 1)
    assert not lifecycle.holds(*over, incarnation="i1")
    again = lifecycle.place(over.job, cluster="east", now=201.0)
    assert not lifecycle.holds(again.job, attempt, incarnation="i1")
