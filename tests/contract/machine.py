"""The state machine that drives the world through generated histories."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jupyter_gpu_platform.model.jobs import Reason

from . import properties
from .cluster import Runner
from .rules import Rules
from .world import World

#: Names one of the things there are just now; taken modulo their number.
PICK = st.integers(0, 7)
REPLICA = st.integers(0, 1)
CLUSTER = st.sampled_from(("east", "west"))


class ContractMachine(RuleBasedStateMachine):
    """Steps of ordinary life and of every fault, in any order; the checks hold after each of them."""

    rules_under_test: ClassVar[type[Rules]] = Rules
    checks: ClassVar[Collection[str]] = tuple(properties.CHECKS)

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.rules_under_test())

    def _runner(self, pick: int, *phases: str) -> Runner | None:
        found = [runner for runner in self.world.runners if runner.phase in phases]
        return found[-1 - pick % len(found)] if found else None

    @initialize(jobs=st.integers(1, 3), retries=st.integers(0, 1))
    def begin(self, jobs: int, retries: int) -> None:
        for _ in range(jobs):
            self.world.create(0, gpus=1, retries=retries, queue_time=None)
        self.world.calm()

    # --- ordinary life

    @rule(replica=REPLICA, gpus=st.integers(0, 2), retries=st.integers(0, 2), short=st.booleans())
    def somebody_submits(self, replica: int, gpus: int, retries: int, short: bool) -> None:
        if self.world.created < 6:
            self.world.create(replica, gpus=gpus, retries=retries, queue_time=5.0 if short else None)

    @rule(rounds=st.integers(1, 3))
    def life_goes_on(self, rounds: int) -> None:
        for _ in range(rounds):
            self.world.calm()

    @rule(replica=REPLICA, pick=PICK, verb=st.sampled_from(("cancel", "interrupt", "retry", "abandon")))
    def somebody_asks(self, replica: int, pick: int, verb: str) -> None:
        self.world.submit(replica, self.world.service.ask(verb, f"j{1 + pick % max(1, self.world.created)}"))

    @rule(pick=PICK, replica=REPLICA)
    def somebody_reads(self, pick: int, replica: int) -> None:
        self.world.read(f"j{1 + pick % max(1, self.world.created)}", replica)

    @rule(replica=REPLICA)
    def the_planner_looks(self, replica: int) -> None:
        self.world.submit(replica, self.world.service.plan)

    @rule(replica=REPLICA, seconds=st.integers(1, 4))
    def time_passes(self, replica: int, seconds: int) -> None:
        self.world.now += seconds
        self.world.submit(replica, self.world.expire)

    @rule(cluster=CLUSTER)
    def the_service_pushes(self, cluster: str) -> None:
        self.world.push(cluster)

    @rule(pick=PICK, records=st.integers(1, 3))
    def user_code_prints(self, pick: int, records: int) -> None:
        runner = self._runner(pick, "running")
        for _ in range(records if runner is not None else 0):
            runner.write("text")

    @rule(pick=PICK, exit_code=st.integers(0, 1))
    def user_code_ends(self, pick: int, exit_code: int) -> None:
        runner = self._runner(pick, "running")
        if runner is not None:
            runner.finish(exit_code)

    @rule(pick=PICK)
    def a_runner_claims(self, pick: int) -> None:
        runner = self._runner(pick, "waiting", "running")
        if runner is not None:
            self.world.claim(runner)

    @rule(pick=PICK)
    def a_runner_sends(self, pick: int) -> None:
        runner = self._runner(pick, "running", "ended")
        if runner is not None:
            self.world.send(runner)

    @rule(cluster=CLUSTER)
    def an_agent_reports(self, cluster: str) -> None:
        self.world.report(cluster)

    @rule(cluster=CLUSTER, replica=REPLICA)
    def an_agent_dials(self, cluster: str, replica: int) -> None:
        self.world.connect(self.world.clusters[cluster], replica)

    @rule(replica=REPLICA)
    def a_replica_commits(self, replica: int) -> None:
        self.world.commit(replica)

    @rule(pick=PICK)
    def a_message_arrives(self, pick: int) -> None:
        if self.world.network:
            self.world.deliver(self.world.network.pop(pick % len(self.world.network)))

    # --- faults

    @rule(pick=PICK)
    def a_message_is_lost(self, pick: int) -> None:
        if self.world.network:
            self.world.network.pop(pick % len(self.world.network))

    @rule(pick=PICK)
    def a_message_is_doubled(self, pick: int) -> None:
        if 0 < len(self.world.network) < 30:
            self.world.network.append(self.world.network[pick % len(self.world.network)])

    @rule(pick=PICK, cluster=CLUSTER)
    def an_agent_speaks_of_anothers(self, pick: int, cluster: str) -> None:
        flights = [flight for flight in self.world.network if flight.session.cluster != cluster]
        if flights:
            self.world.deliver(flights[pick % len(flights)], as_cluster=cluster)

    @rule(replica=REPLICA, when=st.sampled_from(("before", "after")))
    def a_replica_crashes(self, replica: int, when: str) -> None:
        self.world.commit(replica, crash=when)

    @rule(cluster=CLUSTER)
    def a_connection_breaks(self, cluster: str) -> None:
        self.world.disconnect(cluster)

    @rule(cluster=CLUSTER, replica=REPLICA)
    def contact_is_given_up(self, cluster: str, replica: int) -> None:
        self.world.submit(replica, self.world.service.contact_lost(cluster))

    @rule(cluster=CLUSTER, older=st.booleans())
    def an_agent_restarts(self, cluster: str, older: bool) -> None:
        self.world.restart_agent(cluster, older=older)

    @rule(pick=PICK)
    def a_pod_is_started_twice(self, pick: int) -> None:
        entries = [(c, entry) for c in self.world.clusters.values() for entry in c.entries.values()]
        if entries:
            cluster, entry = entries[pick % len(entries)]
            if len(entry.runners) < 3:
                cluster.start(entry)

    @rule(pick=PICK, cut_off=st.booleans())
    def a_node_is_cut_off_or_found(self, pick: int, cut_off: bool) -> None:
        runner = self._runner(pick, "waiting", "running")
        if runner is not None:
            runner.cut_off = cut_off

    @rule(pick=PICK)
    def a_runner_is_killed(self, pick: int) -> None:
        runner = self._runner(pick, "waiting", "running")
        if runner is not None:
            runner.finish(137 if runner.claimed else 0, Reason(code="signal", message="killed"))

    @rule()
    def a_backup_is_made(self) -> None:
        self.world.back_up()

    @rule(pick=PICK)
    def a_backup_is_restored(self, pick: int) -> None:
        if self.world.restores < 2:
            self.world.restore(pick % len(self.world.backups))

    # --- the judges

    @invariant()
    def the_contract_holds(self) -> None:
        properties.verify(self.world, self.checks)

    def teardown(self) -> None:
        self.world.settle()
        properties.verify(self.world, self.checks)
