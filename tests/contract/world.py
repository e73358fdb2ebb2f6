"""A whole platform in memory, pure and without a clock of its own: every fault is a step that a test chooses.

Steps are small: one message is delivered, lost or doubled; one replica commits or crashes (before or after its
commit); one runner asks, writes or ends. What the outside world would see is noted, for `properties` to judge.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

from jupyter_gpu_platform.model.jobs import Command, JobSpec, Limits
from jupyter_gpu_platform.model.resources import Resources
from jupyter_gpu_platform.wire import messages

from .cluster import Agent, Cluster, Entry, Runner
from .rules import Key, Rules
from .service import Line, Operation, Outcome, Replica, Service, State, Transition


class Session(NamedTuple):
    """One agent's connection to one replica."""

    number: int
    cluster: str
    replica: int
    boot: int
    #: what the agent's hello declared
    capabilities: tuple[str, ...]


class Flight(NamedTuple):
    """A message on its way."""

    session: Session
    to: Literal["agent", "service"]
    message: messages.Message


@dataclasses.dataclass
class Notes:
    """What happened, as far as an invariant needs more than the present state."""

    transitions: list[Transition] = dataclasses.field(default_factory=list)
    #: jobs whose creation was answered, by store incarnation
    accepted: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    #: (store incarnation, job, attempt) → incarnations that ran user code
    ran: dict[tuple[str, str, int], set[str]] = dataclasses.field(default_factory=dict)
    #: (store incarnation, job) → what a reader was given
    read: dict[tuple[str, str], tuple[Line, ...]] = dataclasses.field(default_factory=dict)
    #: runners that their agent stopped, with what made it do so, and whether the store knew the attempt
    stopped: list[tuple[Runner, str, bool]] = dataclasses.field(default_factory=list)
    #: (cluster, attempt) that an agent started though it was told that an incarnation has claimed it
    started_anew: list[tuple[str, Key]] = dataclasses.field(default_factory=list)
    #: generations that an executor went back to: (held, told)
    went_back: list[tuple[tuple[str, int], tuple[str, int]]] = dataclasses.field(default_factory=list)
    #: capabilities that were used towards an agent which hadn't declared them
    undeclared: list[str] = dataclasses.field(default_factory=list)
    #: jobs that had not ended when all faults had stopped for long enough
    stuck: list[str] = dataclasses.field(default_factory=list)


class World:
    def __init__(self, rules: Rules) -> None:
        self.rules, self.now, self.notes = rules, 1000.0, Notes()
        self.state, self.backups = State(), [State()]
        self.store_incarnation, self.restores = "s0", 0
        self.replicas = [Replica(), Replica()]
        self.service = Service(self)
        self.runners: list[Runner] = []
        self.clusters = {name: Cluster(self, name) for name in ("east", "west")}
        self.sessions: dict[str, Session] = {}
        self.numbers = 0
        self.network: list[Flight] = []
        self.created = 0

    # --- the network

    def connect(self, cluster: Cluster, replica: int) -> None:
        """The agent dials; its earlier session, if any, is over."""
        agent = cluster.agent
        self.numbers += 1
        session = Session(self.numbers, cluster.name, replica, self.replicas[replica].boot, agent.capabilities)
        self.sessions[cluster.name] = session
        agent.session, agent.welcomed = session.number, False
        agent.told.clear()
        agent.claims.clear()
        self.to_service(agent, agent.hello())

    def disconnect(self, cluster: str) -> None:
        """The socket breaks; messages already read by the service may still be worked on."""
        self.sessions.pop(cluster, None)
        self.clusters[cluster].agent.session = None
        self.clusters[cluster].agent.welcomed = False

    def to_service(self, agent: Agent, message: messages.Message | None) -> None:
        session = self.sessions.get(agent.cluster.name)
        if session is not None and message is not None:
            self.network.append(Flight(session, "service", message))

    def to_agent(self, number: int, message: messages.Message) -> None:
        for session in self.sessions.values():
            if session.number == number:
                self._declared(session, message)
                self.network.append(Flight(session, "agent", message))

    def _declared(self, session: Session, message: messages.Message) -> None:
        if isinstance(message, messages.Welcome | messages.Delta) and "interrupt" not in session.capabilities:
            self.notes.undeclared += ["interrupt" for desired in message.desired if desired.interrupts]

    def deliver(self, flight: Flight, *, as_cluster: str | None = None) -> None:
        """Hand a message over; *as_cluster* is a foreign agent that says another's words."""
        session = flight.session
        if flight.to == "agent":
            agent = self.clusters[session.cluster].agent
            if agent.session == session.number:
                agent.receive(flight.message)
            return
        if as_cluster is not None:
            session = self.sessions.get(as_cluster, session._replace(cluster=as_cluster))
        replica = self.replicas[session.replica]
        operation = self.service.handle(session.cluster, session.number, flight.message)
        if operation is not None and replica.boot == session.boot:
            replica.queue.append(operation)

    def push(self, cluster: str) -> None:
        """The holding replica sends what should be, from the committed state."""
        session = self.sessions.get(cluster)
        if session is not None:
            desired = self.service.desired(self.state, cluster, session.capabilities)
            self.to_agent(session.number, messages.Delta(revision=0, desired=desired))

    # --- the control service

    def submit(self, replica: int, operation: Operation) -> None:
        self.replicas[replica].queue.append(operation)

    def commit(self, replica: int, *, crash: Literal["", "before", "after"] = "") -> None:
        """Let the replica's writer take all that waits; it may crash before its commit, or before its answers."""
        member = self.replicas[replica]
        pending, operations = self.state.copy(), member.queue
        member.queue = []
        outcomes = [operation(pending) for operation in operations]
        if crash != "before":
            self.state = pending
            self.notes.transitions += [one for outcome in outcomes for one in outcome.transitions]
        for outcome in outcomes:
            self._conclude(member, outcome, committed=not crash)
        if crash:
            self.crash(replica)

    def _conclude(self, member: Replica, outcome: Outcome, *, committed: bool) -> None:
        if outcome.then is not None:
            member.queue.append(outcome.then)
        if self.rules.answers(committed=committed):
            for answer in outcome.answers:
                answer()

    def crash(self, replica: int) -> None:
        """All that the replica had not committed is gone, and so are its connections."""
        member = self.replicas[replica]
        member.queue, member.boot = [], member.boot + 1
        self.state.streams = self.rules.kept_over_a_crash(self.state.streams)
        for name in [name for name, session in self.sessions.items() if session.replica == replica]:
            self.disconnect(name)

    def back_up(self) -> None:
        self.backups.append(self.state.copy())

    def restore(self, backup: int) -> None:
        """An admin restores a backup: the store is another incarnation from here on."""
        for replica in range(len(self.replicas)):
            self.crash(replica)
        self.state = self.backups[backup].copy()
        self.restores += 1
        self.store_incarnation = f"s{self.restores}"

    def create(self, replica: int, *, gpus: int, retries: int, queue_time: float | None) -> None:
        self.created += 1
        name = f"j{self.created}"
        limits = Limits(max_queue_seconds=queue_time)
        spec = JobSpec(source=Command(argv=("true",)), resources=Resources(gpus=gpus), retries=retries, limits=limits)
        store = self.store_incarnation
        self.submit(replica, self.service.create(name, spec, lambda: self.notes.accepted.add((store, name))))

    def expire(self, state: State) -> Outcome:
        for job in list(state.jobs.values()):
            state.put(self.rules.expire(job, now=self.now))
        return Outcome()

    def read(self, job: str, replica: int) -> None:
        """A reader asks for the job's whole output; operations not yet committed must not show in it."""
        pending = self.state.copy()
        for operation in self.replicas[replica].queue:
            operation(pending)
        shown = self.rules.shown(committed=self.state.output.get(job, ()), pending=pending.output.get(job, ()))
        self.notes.read[self.store_incarnation, job] = shown

    # --- what clusters do, noted

    def restart_agent(self, cluster: str, *, older: bool) -> None:
        self.disconnect(cluster)
        agent = Agent(self.clusters[cluster])
        if older:
            agent.capabilities = ()
        self.clusters[cluster].agent = agent

    def started(self, runner: Runner, store: str) -> None:
        self.notes.ran.setdefault((store, *runner.key), set()).add(runner.incarnation)

    def stopped(self, runner: Runner, by: str) -> None:
        known = runner.key in self.state.attempts or self.state.unknown.get((runner.cluster, *runner.key), False)
        self.notes.stopped.append((runner, by, known))

    def obeyed(self, entry: Entry, told: tuple[str, int]) -> None:
        if entry.store == told[0] and told[1] < entry.generation:
            self.notes.went_back.append(((entry.store, entry.generation), told))

    def interrupted(self, agent: Agent, desired: messages.Desired) -> None:
        if "interrupt" not in agent.capabilities:
            self.notes.undeclared.append("interrupt")

    # --- the end of all faults

    def settle(self, rounds: int = 60) -> None:
        """Stop all faults: everything is connected, heard and told again, until nothing is left to do."""
        for runner in self.runners:
            runner.cut_off = False
        for _ in range(rounds):
            self.calm()
            self.submit(0, self.service.decide_unknown)
            for runner in self.runners:
                if runner.phase == "running":
                    runner.finish(0)
            if not self.network and all(job.phase.ended for job in self.state.jobs.values()):
                return
        self.notes.stuck = [job.id for job in self.state.jobs.values() if not job.phase.ended]

    def calm(self) -> None:
        """One round of ordinary life: everybody does what waits to be done, and all messages arrive."""
        self.now += 1
        for number, cluster in enumerate(self.clusters.values()):
            if not cluster.agent.welcomed:  # a hello that is never answered ends the connection too
                self.connect(cluster, number % len(self.replicas))
        self.flow()
        self.submit(0, self.service.plan)
        self.flow()
        for name in self.clusters:
            self.push(name)
        self.flow()
        for cluster in self.clusters.values():
            for runner in cluster.runners():
                self.claim(runner)
                self.send(runner)
            self.to_service(cluster.agent, cluster.agent.reports())
        self.flow()

    def flow(self) -> None:
        """Deliver and commit until nothing moves."""
        while self.network or any(member.queue for member in self.replicas):
            flights, self.network = self.network, []
            for flight in flights:
                self.deliver(flight)
            for replica in range(len(self.replicas)):
                self.commit(replica)

    def claim(self, runner: Runner) -> None:
        agent = self.clusters[runner.cluster].agent
        if agent.welcomed:
            self.to_service(agent, agent.claim_for(runner))

    def send(self, runner: Runner) -> None:
        agent = self.clusters[runner.cluster].agent
        if agent.welcomed:
            self.to_service(agent, agent.append_for(runner))

    def report(self, cluster: str) -> None:
        agent = self.clusters[cluster].agent
        if agent.welcomed:
            self.to_service(agent, agent.reports())
