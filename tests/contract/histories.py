"""Short histories that lead straight to a seeded bug which generated ones would seldom meet.

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


@shows("two_attempts_never_run_at_once", seeded_bugs.PlacesTwice)
def the_planner_looks_while_a_node_is_cut_off(world: World) -> Steps:
    runner = _running(world)
    yield
    runner.cut_off = True
    world.calm()
    yield
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


# --- life


@shows("every_accepted_job_ends_when_faults_stop", seeded_bugs.NeverReportsTheEnd)
def a_pod_dies_before_it_claims(world: World) -> Steps:
    runner = _placed(world)
    yield
    runner.finish(None, Reason(code="signal", message="killed"))
    yield
