"""Short histories, each of which leads straight to a seeded bug; generated ones would seldom meet some of them.

A history is a generator: it takes one or a few steps, and the checks run wherever it yields. `play` then stops all
faults and checks once more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from jupyter_gpu_platform.model.jobs import Reason

from . import properties, seeded_bugs
from .cluster import Runner
from .rules import Rules
from .world import Flight, World

Steps = Iterator[None]
History = Callable[[World], Steps]

#: (check, bug) → the history in which the check finds the bug
HISTORIES: dict[tuple[str, type[Rules]], History] = {}


def shows(check: str, bug: type[Rules]) -> Callable[[History], History]:
    def register(history: History) -> History:
        HISTORIES[check, bug] = history
        return history

    return register


def play(history: History, rules: Rules, checks: Collection[str] = properties.CHECKS.keys()) -> World:
    """Play *history* under these rules.

    :raises Violated: one of the checks finds something.
    """
    world = World(rules)
    for _ in history(world):
        properties.verify(world, checks)
    world.settle()
    properties.verify(world, checks)
    return world


# --- what histories are made of


def _placed(world: World) -> Runner:
    """A job whose pod has been started and has not claimed yet."""
    world.create(0, gpus=1, retries=0, queue_time=None)
    for number, cluster in enumerate(world.clusters.values()):
        world.connect(cluster, number)
    world.flow()
    world.submit(0, world.service.plan)
    world.flow()
    for name in world.clusters:
        world.push(name)
    world.flow()
    (runner,) = world.runners
    assert runner.phase == "waiting"
    return runner


def _running(world: World, *, records: int = 0) -> Runner:
    """A job whose user code runs, and has printed."""
    runner = _placed(world)
    world.claim(runner)
    world.flow()
    assert runner.phase == "running"
    for _ in range(records):
        runner.write("text")
    return runner


def _second_pod(world: World, runner: Runner) -> Runner:
    cluster = world.clusters[runner.cluster]
    cluster.start(cluster.entries[runner.key])
    return world.runners[-1]


def _ask(world: World, verb: str) -> None:
    world.submit(0, world.service.ask(verb, "j1"))
    world.flow()


def _on_its_way(world: World) -> Flight:
    """Take the only message out of the network, to deliver it later, or never."""
    (flight,) = world.network
    world.network = []
    return flight


def _arrives(world: World, flight: Flight, *, as_cluster: str | None = None) -> None:
    world.deliver(flight, as_cluster=as_cluster)
    world.flow()


def _other(world: World, runner: Runner) -> str:
    (name,) = world.clusters.keys() - {runner.cluster}
    return name


def _is_abandoned_and_runs_again(world: World, runner: Runner) -> Steps:
    world.disconnect(runner.cluster)
    world.submit(0, world.service.contact_lost(runner.cluster))
    world.flow()
    yield
    _ask(world, "abandon")
    yield
    _ask(world, "retry")
    yield
    world.calm()
    assert world.runners[-1].key == (runner.key[0], runner.key[1] + 1)
    assert world.runners[-1].phase == "running"
    yield


# --- who runs


@shows("at_most_one_incarnation_runs_user_code_per_attempt", seeded_bugs.ClaimIsNoCompareAndSet)
@shows("only_a_granted_claim_runs", seeded_bugs.RunsWithoutAClaim)
def a_second_pod_claims_too(world: World) -> Steps:
    runner = _running(world)
    yield
    world.claim(_second_pod(world, runner))
    world.flow()
    yield


@shows("two_attempts_never_run_at_once", seeded_bugs.PlacesTwice)
@shows("placed_again_only_on_proof", seeded_bugs.PlacesTwice)
def the_planner_looks_while_a_node_is_cut_off(world: World) -> Steps:
    runner = _running(world)
    yield
    runner.cut_off = True
    world.calm()
    yield
    world.calm()
    yield


@shows("placed_again_only_on_proof", seeded_bugs.ReplacesTheUnreachableWithoutProof)
def the_planner_looks_while_a_cluster_is_unreachable(world: World) -> Steps:
    runner = _running(world)
    yield
    world.disconnect(runner.cluster)
    world.submit(0, world.service.contact_lost(runner.cluster))
    world.flow()
    yield
    world.submit(0, world.service.plan)
    world.flow()
    yield


@shows("not_placed_beside_an_unknown_attempt", seeded_bugs.ForgetsToHoldBack)
def a_backup_from_before_the_placement_is_restored(world: World) -> Steps:
    world.create(0, gpus=1, retries=0, queue_time=None)
    world.flow()
    world.back_up()
    world.calm()
    assert world.runners[-1].phase == "running"
    yield
    world.restore(1)
    yield
    world.calm()
    yield


@shows("no_gpu_is_given_twice", seeded_bugs.ForgetsWhatIsHeld)
def two_jobs_are_placed_one_after_the_other(world: World) -> Steps:
    _running(world)
    yield
    world.create(0, gpus=1, retries=0, queue_time=None)
    world.calm()
    yield


@shows("cancelled_job_never_claims", seeded_bugs.ClaimsAfterCancel)
def a_cancellation_overtakes_a_claim(world: World) -> Steps:
    runner = _placed(world)
    yield
    world.claim(runner)
    claim = _on_its_way(world)
    _ask(world, "cancel")
    yield
    _arrives(world, claim)
    yield


# --- the fences


@shows("older_attempt_changes_nothing", seeded_bugs.HearsOlderAttempts)
def the_end_of_an_abandoned_attempt_is_told_late(world: World) -> Steps:
    runner = _running(world)
    runner.finish(0)
    world.send(runner)
    world.flow()
    yield
    world.report(runner.cluster)
    report = _on_its_way(world)
    yield from _is_abandoned_and_runs_again(world, runner)
    _arrives(world, report)
    yield


@shows("older_attempt_changes_nothing", seeded_bugs.NoFenceForOlderStreams)
@shows("records_are_exactly_once_in_order", seeded_bugs.NoFenceForOlderStreams)
def records_of_an_abandoned_attempt_come_late(world: World) -> Steps:
    runner = _running(world, records=1)
    yield
    world.send(runner)
    records = _on_its_way(world)
    yield from _is_abandoned_and_runs_again(world, runner)
    world.runners[-1].write("text")
    world.calm()
    yield
    _arrives(world, records)
    yield


@shows("other_incarnation_changes_nothing", seeded_bugs.BelievesAnyIncarnation)
def a_second_pod_dies_before_it_claims(world: World) -> Steps:
    runner = _running(world)
    yield
    _second_pod(world, runner).finish(1)
    world.report(runner.cluster)
    world.flow()
    yield


@shows("foreign_cluster_changes_nothing", seeded_bugs.BelievesForeignClusters)
def another_cluster_reports_the_end(world: World) -> Steps:
    runner = _running(world)
    runner.finish(0)
    world.send(runner)
    world.flow()
    yield
    world.report(runner.cluster)
    _arrives(world, _on_its_way(world), as_cluster=_other(world, runner))
    yield


@shows("foreign_cluster_changes_nothing", seeded_bugs.GrantsForeignClaims)
def another_cluster_claims(world: World) -> Steps:
    runner = _placed(world)
    yield
    world.claim(runner)
    _arrives(world, _on_its_way(world), as_cluster=_other(world, runner))
    yield


@shows("foreign_cluster_changes_nothing", seeded_bugs.TakesForeignRecords)
def another_cluster_sends_records(world: World) -> Steps:
    runner = _running(world, records=1)
    yield
    world.send(runner)
    _arrives(world, _on_its_way(world), as_cluster=_other(world, runner))
    yield


@shows("what_never_claimed_never_succeeds", seeded_bugs.BelievesAnUnclaimedExitCode)
def a_runner_exits_with_zero_before_it_claims(world: World) -> Steps:
    runner = _placed(world)
    yield
    runner.finish(0)
    world.report(runner.cluster)
    world.flow()
    yield


@shows("generation_never_goes_back", seeded_bugs.ObeysOlderGenerations)
def an_older_desired_state_comes_after_a_newer_one(world: World) -> Steps:
    runner = _running(world)
    yield
    world.push(runner.cluster)
    older = _on_its_way(world)
    _ask(world, "cancel")
    yield
    world.push(runner.cluster)
    world.flow()
    assert not runner.alive
    yield
    _arrives(world, older)
    yield


# --- what is committed


@shows("acknowledged_is_committed", seeded_bugs.AcknowledgesBeforeTheCommit)
def a_replica_crashes_before_it_commits_a_submission(world: World) -> Steps:
    world.create(0, gpus=1, retries=0, queue_time=None)
    world.commit(0, crash="before")
    yield


@shows("acknowledged_is_committed", seeded_bugs.TheAgentAcknowledgesWhatItHasSent)
def records_are_lost_on_their_way(world: World) -> Steps:
    runner = _running(world, records=1)
    yield
    world.send(runner)
    _on_its_way(world)
    yield


@shows("records_are_exactly_once_in_order", seeded_bugs.TakesOverlapsAgain)
def records_arrive_twice(world: World) -> Steps:
    runner = _running(world, records=1)
    yield
    world.send(runner)
    records = _on_its_way(world)
    _arrives(world, records)
    _arrives(world, records)
    yield


@shows("records_are_exactly_once_in_order", seeded_bugs.ForgetsItsCursorsInACrash)
def a_replica_crashes_before_a_runner_hears_that_its_records_are_stored(world: World) -> Steps:
    runner = _running(world, records=2)
    replica = world.sessions[runner.cluster].replica
    yield
    world.send(runner)
    world.deliver(_on_its_way(world))
    world.commit(replica)
    _on_its_way(world)
    yield
    world.crash(replica)
    yield
    world.calm()
    yield


@shows("records_are_exactly_once_in_order", seeded_bugs.TakesRecordsAfterAGap)
def the_first_of_two_batches_is_lost(world: World) -> Steps:
    runner = _running(world, records=3)
    yield
    world.send(runner)
    _on_its_way(world)
    world.send(runner)
    world.flow()
    yield


@shows("no_record_acknowledged_to_a_reader_disappears", seeded_bugs.ShowsWhatIsNotCommitted)
def a_reader_asks_before_records_are_committed_and_they_never_are(world: World) -> Steps:
    runner = _running(world, records=1)
    replica = world.sessions[runner.cluster].replica
    yield
    world.send(runner)
    world.deliver(_on_its_way(world))
    world.read("j1", replica)
    world.commit(replica, crash="before")
    yield


@shows("ended_output_is_complete", seeded_bugs.DropsTheLastRecord)
def an_agent_reports_before_the_last_record_is_sent(world: World) -> Steps:
    runner = _running(world)
    yield
    runner.finish(0)
    world.report(runner.cluster)
    world.flow()
    yield


# --- letting go


@shows("absence_never_deletes", seeded_bugs.DeletesByAbsence)
@shows("unknown_attempts_are_kept", seeded_bugs.KillsTheUnknownAfterARestore)
def a_backup_without_the_job_is_restored(world: World) -> Steps:
    _running(world)
    yield
    world.restore(0)
    world.calm()
    yield


@shows("a_claimed_attempt_is_never_started_anew", seeded_bugs.StartsTheClaimedAnew)
def a_backup_is_restored_in_which_a_forgotten_attempt_still_runs(world: World) -> Steps:
    runner = _running(world)
    world.back_up()
    yield
    runner.finish(0)
    for _ in range(3):
        world.calm()
        yield
    assert runner.key not in world.clusters[runner.cluster].entries
    world.restore(1)
    world.calm()
    yield


@shows("undeclared_capability_never_sent", seeded_bugs.SendsWhatWasNotDeclared)
def an_interrupt_is_asked_of_an_older_agent(world: World) -> Steps:
    runner = _running(world)
    yield
    world.restart_agent(runner.cluster, older=True)
    world.connect(world.clusters[runner.cluster], 0)
    world.flow()
    yield
    _ask(world, "interrupt")
    world.push(runner.cluster)
    yield


# --- life


@shows("ended_jobs_have_ended_attempts", seeded_bugs.CancelsWithoutWaiting)
def a_running_job_is_cancelled(world: World) -> Steps:
    _running(world)
    yield
    _ask(world, "cancel")
    yield


@shows("every_accepted_job_ends_when_faults_stop", seeded_bugs.NeverReportsTheEnd)
def a_pod_dies_before_it_claims(world: World) -> Steps:
    runner = _placed(world)
    yield
    runner.finish(None, Reason(code="signal", message="killed"))
    yield
