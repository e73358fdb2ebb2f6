"""The simulated control service: a store that commits, replicas that crash, and what is done for each message.

Every request becomes an operation on the store's state. A replica queues operations and commits them together;
answers go out after the commit. Whatever a replica has not committed dies with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.model.jobs import Attempt, AttemptState, Job, JobSpec
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.model.placement import ClusterView, Held
from jupyter_gpu_platform.model.resources import Capacity, Gpu
from jupyter_gpu_platform.wire import messages

from .rules import Key, Stream

if TYPE_CHECKING:
    from .world import World

OPEN = (AttemptState.PLACED, AttemptState.RUNNING)
#: The generation of the tombstone that an admin's decision gives to an attempt that the store does not know.
DECIDED = 2**40
#: How many attempt numbers a restored store skips: more than any job makes between a backup and its restoration.
SKIPPED = 1000


class Line(NamedTuple):
    """One committed record."""

    attempt: int
    text: str


@dataclasses.dataclass
class State:
    """What the store holds; rows are immutable, so a shallow copy is a snapshot."""

    jobs: dict[str, Job] = dataclasses.field(default_factory=dict)
    attempts: dict[Key, Attempt] = dataclasses.field(default_factory=dict)
    streams: dict[Key, Stream] = dataclasses.field(default_factory=dict)
    output: dict[str, tuple[Line, ...]] = dataclasses.field(default_factory=dict)
    #: (cluster, job, attempt) → whether an admin has decided that it is to be forgotten
    unknown: dict[tuple[str, str, int], bool] = dataclasses.field(default_factory=dict)
    #: cluster → newest session whose hello is committed: only then it is known what the cluster holds
    greeted: dict[str, int] = dataclasses.field(default_factory=dict)

    def copy(self) -> State:
        parts = (self.jobs, self.attempts, self.streams, self.output, self.unknown, self.greeted)
        return State(*(dict(part) for part in parts))

    def newest(self, job: Job) -> Attempt | None:
        return self.attempts.get((job.id, job.attempt))

    def put(self, job: Job, attempt: Attempt | None = None) -> None:
        self.jobs[job.id] = job
        if attempt is not None:
            self.attempts[attempt.job, attempt.number] = attempt


class Transition(NamedTuple):
    """One thing that a peer's message, or the planner, did to an attempt in a committed transaction."""

    kind: str
    key: Key
    cluster: str
    #: who asked; of a placement, the clusters that hold an unknown attempt of the job
    incarnation: str
    before: tuple[Job, Attempt | None]
    after: tuple[Job, Attempt | None]
    changed: bool


class Outcome(NamedTuple):
    """What follows an operation's commit."""

    answers: tuple[Callable[[], None], ...] = ()
    then: Operation | None = None
    transitions: tuple[Transition, ...] = ()


Operation = Callable[[State], Outcome]


@dataclasses.dataclass
class Replica:
    queue: list[Operation] = dataclasses.field(default_factory=list)
    #: grows with each start; a message to an earlier one is lost
    boot: int = 1


class Service:
    """What the control service does, as operations."""

    def __init__(self, world: World) -> None:
        self.world, self.rules = world, world.rules

    # --- messages of an agent

    def handle(self, cluster: str, session: int, message: messages.Message) -> Operation | None:
        match message:
            case messages.Hello():
                return lambda state: self._hello(state, cluster, session, message)
            case messages.Claim():
                return lambda state: self._claim(state, cluster, session, message)
            case messages.Append():
                return lambda state: self._append(state, cluster, session, message)
            case messages.Reports():
                return lambda state: self._reports(state, cluster, session, message)
            case _:
                return None

    def _answer(self, session: int, message: messages.Message) -> tuple[Callable[[], None], ...]:
        return (lambda: self.world.to_agent(session, message),)

    def _hello(self, state: State, cluster: str, session: int, hello: messages.Hello) -> Outcome:
        state.greeted[cluster] = max(session, state.greeted.get(cluster, 0))
        for job in list(state.jobs.values()):
            if job.cluster == cluster and not job.phase.ended:
                state.put(self.rules.regain_contact(job))
        owned = {(one.job, one.attempt) for one in hello.owned}
        for key in owned:
            if key not in state.attempts or state.attempts[key].cluster != cluster:
                state.unknown.setdefault((cluster, *key), False)
        welcome = messages.Welcome(
            protocol=1,
            version="0",
            capabilities=messages.CAPABILITIES,
            store_incarnation=self.world.store_incarnation,
            cluster=cluster,
            epoch=session,
            heartbeat=5.0,
            revision=0,
            desired=self.desired(state, cluster, hello.capabilities, owned),
            unknown=tuple(one for one in hello.owned if (cluster, one.job, one.attempt) in state.unknown),
        )
        return Outcome(self._answer(session, welcome))

    def desired(
        self, state: State, cluster: str, capabilities: tuple[str, ...], owned: set[Key] = frozenset()
    ) -> tuple[messages.Desired, ...]:
        """The whole desired state of *cluster*: what isn't forgotten yet, and what the agent holds in spite of it."""
        found = []
        for key, attempt in state.attempts.items():
            if attempt.cluster == cluster and (not attempt.forgotten or key in owned):
                found.append(
                    messages.Desired(
                        job=attempt.job,
                        attempt=attempt.number,
                        generation=attempt.generation,
                        action=self.rules.wanted(state.jobs[attempt.job], attempt),
                        incarnation=attempt.incarnation,
                        interrupts=attempt.interrupts if self.rules.may_interrupt(capabilities) else 0,
                    )
                )
        for (where, job, number), decided in state.unknown.items():
            if where == cluster and self.rules.unknown_is_told_to_forget(decided=decided):
                found.append(messages.Desired(job=job, attempt=number, generation=DECIDED, action="forget"))
        return tuple(found)

    def _claim(self, state: State, cluster: str, session: int, message: messages.Claim) -> Outcome:
        key = (message.job, message.attempt)
        if key not in state.attempts:
            return Outcome()  # an attempt that this store doesn't know is neither granted nor refused: it is kept
        job, attempt = state.jobs[message.job], state.attempts[key]
        claimed = self.rules.claim(job, attempt, cluster=cluster, incarnation=message.incarnation, now=self.world.now)
        state.put(claimed.job, claimed.attempt)
        done = _transition("claim", cluster, message.incarnation, (job, attempt), (claimed.job, claimed.attempt))
        result = messages.ClaimResult(request=message.request, granted=claimed.granted, refusal=claimed.refusal)
        answers = self._answer(session, result)
        if not claimed.granted:
            return Outcome(answers, transitions=(done,))

        def open_stream(state: State) -> Outcome:
            """The output lane's own transaction: a crash may come between the claim's commit and this one."""
            if key not in state.streams:
                state.streams[key] = Stream(cluster, message.incarnation)
            for other, stream in state.streams.items():
                if other[0] == key[0] and other[1] < key[1]:
                    state.streams[other] = stream._replace(fenced=True)
            return Outcome(answers)

        return Outcome(then=open_stream, transitions=(done,))

    def _append(self, state: State, cluster: str, session: int, message: messages.Append) -> Outcome:
        key = (message.job, message.attempt)
        stream = state.streams.get(key)
        if stream is None:
            return Outcome()  # not open yet, or an attempt that this store doesn't know: the runner keeps its records
        name = {"job": message.job, "attempt": message.attempt}
        if not self.rules.takes_records(stream, cluster=cluster, incarnation=message.incarnation):
            refused = messages.AppendRefused(**name, code="claim_lost", message="fenced")
            return Outcome(self._answer(session, refused))
        lines = self.rules.fresh(stream.next_seq, message.first, message.lines.decode().split("\n"))
        log = state.output.get(message.job, ())
        state.output[message.job] = log + tuple(Line(message.attempt, text) for text in lines)
        state.streams[key] = stream._replace(next_seq=stream.next_seq + len(lines))
        rows = (state.jobs[message.job], state.attempts[key])
        done = Transition("records", key, cluster, message.incarnation, rows, rows, bool(lines))
        appended = messages.Appended(**name, next_seq=state.streams[key].next_seq, credit=1)
        return Outcome(self._answer(session, appended), transitions=(done,))

    def _reports(self, state: State, cluster: str, session: int, message: messages.Reports) -> Outcome:
        done = [self._end(state, cluster, report) for report in message.ended]
        for one in message.forgotten:
            key = (one.job, one.attempt)
            state.unknown.pop((cluster, *key), None)
            attempt = state.attempts.get(key)
            if attempt is not None and attempt.cluster == cluster and attempt.state not in OPEN:
                state.attempts[key] = replace(attempt, forgotten=True)
        answers = self._answer(session, messages.ReportsAck(seq=message.seq))
        return Outcome(answers, transitions=tuple(one for one in done if one is not None))

    def _end(self, state: State, cluster: str, report: Report) -> Transition | None:
        key = (report.job, report.attempt)
        if key not in state.attempts:
            return None
        job, attempt = state.jobs[report.job], state.attempts[key]
        rows = self.rules.end(job, attempt, report, cluster=cluster, now=self.world.now)
        state.put(*rows)
        return _transition("end", cluster, report.incarnation, (job, attempt), tuple(rows))

    # --- the service's own work

    def plan(self, state: State) -> Outcome:
        jobs = self.rules.placeable(state.jobs.values())
        held_back = {job.id: self.rules.hold_back(self._unknown_of(state, job)) for job in jobs}
        views = [self._view(state, name) for name in self.world.clusters]
        held = [
            Held(cluster=attempt.cluster, resources=state.jobs[attempt.job].spec.resources, gpus=attempt.gpus)
            for attempt in state.attempts.values()
            if attempt.state in OPEN
        ]
        done = []
        for placed in self.rules.plan([job for job in jobs if held_back[job.id] is None], views, held).placed:
            job = state.jobs[placed.job]
            above = SKIPPED * self.world.restores
            rows = self.rules.place(job, cluster=placed.cluster, now=self.world.now, gpus=placed.gpus, above=above)
            before = (job, state.newest(job))
            state.put(*rows)
            unknown = ",".join(self._unknown_of(state, job))
            done.append(_transition("place", placed.cluster, unknown, before, tuple(rows)))
        return Outcome(transitions=tuple(done))

    @staticmethod
    def _unknown_of(state: State, job: Job) -> list[str]:
        return [cluster for cluster, name, _ in state.unknown if name == job.id]

    def _view(self, state: State, name: str) -> ClusterView:
        gpus = tuple(Gpu(index=n, uuid=f"{name}-gpu{n}", model="Fake", memory=2**34, fake=True) for n in range(2))
        capacity = Capacity(gpus=gpus, cpus=8, memory=2**36)
        session = self.world.sessions.get(name)
        greeted = session is not None and state.greeted.get(name) == session.number
        return ClusterView(name=name, capacity=capacity, reachable=greeted)

    def contact_lost(self, cluster: str) -> Operation:
        def operation(state: State) -> Outcome:
            if cluster not in self.world.sessions:
                for job in list(state.jobs.values()):
                    if job.cluster == cluster:
                        state.put(self.rules.lose_contact(job, now=self.world.now))
            return Outcome()

        return operation

    # --- people's requests

    def create(self, name: str, spec: JobSpec, accepted: Callable[[], None]) -> Operation:
        def operation(state: State) -> Outcome:
            state.put(
                Job(
                    id=name,
                    spec=spec,
                    owner="ada",
                    project="default",
                    organisation="default",
                    created=self.world.now,
                    retries_left=spec.retries,
                )
            )
            return Outcome((accepted,))

        return operation

    def ask(self, verb: str, name: str) -> Operation:
        """Cancel, interrupt, retry or abandon; a conflict is the person's answer and changes nothing."""

        def operation(state: State) -> Outcome:
            job = state.jobs.get(name)
            if job is None:
                return Outcome()
            attempt = state.newest(job)
            try:
                if verb == "cancel":
                    state.put(*self.rules.cancel(job, attempt, now=self.world.now))
                elif verb == "retry":
                    state.put(self.rules.retry(job, now=self.world.now))
                elif verb == "abandon":
                    state.put(*self.rules.abandon(job, attempt, now=self.world.now))
                elif self.rules.may_interrupt(self._declared(job)):
                    state.put(job, self.rules.interrupt(job, attempt))
            except errors.Conflict:
                pass
            return Outcome()

        return operation

    def _declared(self, job: Job) -> tuple[str, ...]:
        session = self.world.sessions.get(job.cluster or "")
        return session.capabilities if session is not None else ()

    @staticmethod
    def decide_unknown(state: State) -> Outcome:
        """The admin lets all attempts go that the store doesn't know."""
        state.unknown = dict.fromkeys(state.unknown, True)
        return Outcome()


def _transition(
    kind: str,
    cluster: str,
    incarnation: str,
    before: tuple[Job, Attempt | None],
    after: tuple[Job, Attempt],
) -> Transition:
    changed = before[0] is not after[0] or before[1] is not after[1]
    key = (after[1].job, after[1].number)
    return Transition(kind, key, cluster, incarnation, before, after, changed)
