"""One simulated cluster: its executor and runners, which survive, and its agent, which remembers nothing by itself."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from jupyter_gpu_platform.model.jobs import Reason
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.wire import messages

from .rules import Key

if TYPE_CHECKING:
    from .world import World

#: How many records go into one message; small, so that a stream takes several.
BATCH = 2


@dataclasses.dataclass(eq=False)
class Runner:
    """One incarnation of an attempt: a pod, or a supervisor with its worker. Its spool survives it."""

    cluster: str
    key: Key
    incarnation: str
    #: waiting: has run no user code; running: user code runs; ended: it can't run any more
    phase: Literal["waiting", "running", "ended"] = "waiting"
    #: store incarnations that granted the claim
    granted: list[str] = dataclasses.field(default_factory=list)
    #: restored stores that refused it although an earlier one had granted it
    refused: set[str] = dataclasses.field(default_factory=set)
    spool: list[str] = dataclasses.field(default_factory=list)
    #: everything before this seq is committed, as far as it was told
    durable: int = 1
    #: the store incarnation which said so
    durable_in: str = ""
    #: everything before this seq was sent to that store, heard or not
    sent: int = 1
    exit_code: int | None = None
    reason: Reason | None = None
    fenced: bool = False
    #: its node is out of reach: it goes on, and nobody hears it nor tells it anything
    cut_off: bool = False
    interrupts: int = 0

    @property
    def alive(self) -> bool:
        return self.phase != "ended"

    @property
    def claimed(self) -> bool:
        return bool(self.granted)

    def write(self, kind: str) -> None:
        """Append a record to the spool; its text names its birth, so that a copy or a hole shows."""
        self.spool.append(f"{self.incarnation}:{len(self.spool) + 1}:{kind}")

    def finish(self, exit_code: int | None, reason: Reason | None = None) -> None:
        """End; what has run user code says so in its last record."""
        if self.phase == "running":
            self.write("exit")
        self.phase, self.exit_code, self.reason = "ended", exit_code, reason


@dataclasses.dataclass(eq=False)
class Entry:
    """What the executor holds of one attempt: an attempt directory, or the objects in Kubernetes."""

    key: Key
    #: the desired state last made true, stored with the objects
    store: str
    generation: int
    runners: list[Runner] = dataclasses.field(default_factory=list)


class Cluster:
    """The executor, with everything that outlives an agent."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.entries: dict[Key, Entry] = {}
        self.births = 0
        self.agent = Agent(self)

    def runners(self) -> list[Runner]:
        return [runner for entry in self.entries.values() for runner in entry.runners]

    def start(self, entry: Entry) -> None:
        """Start an incarnation: the first one, or one more, as Kubernetes may."""
        self.births += 1
        runner = Runner(self.name, entry.key, f"{self.name}-{self.births}")
        entry.runners.append(runner)
        self.world.runners.append(runner)


class Agent:
    """The cluster's agent. All that it knows it has from the executor or from this session."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.world = cluster, cluster.world
        #: an older release doesn't declare everything
        self.capabilities: tuple[str, ...] = messages.CAPABILITIES
        self.session: int | None = None
        self.welcomed = False
        #: the store that it obeys in this session
        self.store = ""
        self.told: dict[Key, messages.Desired] = {}
        self.claims: dict[int, Runner] = {}
        self.sent: dict[int, messages.Reports] = {}
        #: (job, attempt, incarnation) whose report was acknowledged
        self.acknowledged: set[tuple[str, int, str]] = set()
        #: attempts of which nothing is left
        self.gone: set[Key] = set()
        self.counter = 0

    # --- from the service

    def receive(self, message: messages.Message) -> None:
        match message:
            case messages.Welcome():
                self._welcome(message)
            case messages.Delta() if self.welcomed:
                for desired in message.desired:
                    self._obey(desired)
            case messages.ClaimResult() if message.request in self.claims:
                self._claim_result(self.claims.pop(message.request), message)
            case messages.Appended():
                self._appended(message)
            case messages.AppendRefused(code="claim_lost"):
                self._fenced((message.job, message.attempt))
            case messages.ReportsAck():
                self._reports_ack(message.seq)
            case _:
                pass

    def _welcome(self, message: messages.Welcome) -> None:
        self.welcomed, self.store = True, message.store_incarnation
        self.sent.clear()
        self.acknowledged.clear()
        for desired in message.desired:
            self._obey(desired)
        for entry in list(self.cluster.entries.values()):
            if self.world.rules.lets_go(entry, message.desired):
                self._drop(entry, by="absence")

    def _obey(self, desired: messages.Desired) -> None:
        key = (desired.job, desired.attempt)
        told, entry, rules = (self.store, desired.generation), self.cluster.entries.get(key), self.world.rules
        if entry is not None and not rules.obeys((entry.store, entry.generation), told):
            return
        remembered = self.told.get(key)
        if remembered is not None and not rules.obeys((self.store, remembered.generation), told):
            return
        self.told[key] = desired
        self.gone.discard(key)
        if entry is None:
            if desired.action == "run" and rules.starts_anew(desired):
                if desired.incarnation:
                    self.world.notes.started_anew.append((self.cluster.name, key))
                self.cluster.entries[key] = entry = Entry(key, *told)
                self.cluster.start(entry)
            elif desired.action == "forget":
                self.gone.add(key)
            return
        self.world.obeyed(entry, told)
        entry.store, entry.generation = told
        self._apply(entry, desired)

    def _apply(self, entry: Entry, desired: messages.Desired) -> None:
        if desired.interrupts:
            self.world.interrupted(self, desired)
        if desired.action == "forget":
            self._drop(entry, by="tombstone")
            return
        for runner in self._reachable(entry.key):
            runner.interrupts = max(runner.interrupts, desired.interrupts)
            if desired.action == "stop":
                self._stop(runner, by="stop")

    def _drop(self, entry: Entry, *, by: str) -> None:
        for runner in self._reachable(entry.key):
            self._stop(runner, by=by)
        if not any(runner.alive for runner in entry.runners):
            self.cluster.entries.pop(entry.key, None)
            self.gone.add(entry.key)

    def _stop(self, runner: Runner, *, by: str) -> None:
        if runner.alive:
            self.world.stopped(runner, by)
            runner.finish(143, Reason(code="stopped", message=f"stopped: {by}"))

    def _claim_result(self, runner: Runner, result: messages.ClaimResult) -> None:
        if runner.cut_off:
            return
        if self.world.rules.runs_user_code(granted=result.granted):
            if result.granted and self.store not in runner.granted:
                runner.granted.append(self.store)
            if runner.phase == "waiting":
                runner.phase = "running"
                self.world.started(runner, self.store)
        elif runner.phase == "waiting":
            runner.finish(0)
        if not result.granted:
            runner.refused.add(self.store)

    def _appended(self, message: messages.Appended) -> None:
        for runner in self._reachable((message.job, message.attempt), dead_too=True):
            if self.store not in runner.granted:
                continue
            if runner.durable_in != self.store:
                runner.durable, runner.durable_in, runner.sent = 1, self.store, 1
            # An answer to another incarnation never comes here: the fence refuses what it did not claim.
            runner.durable = max(runner.durable, message.next_seq)

    def _fenced(self, key: Key) -> None:
        """Only a granted incarnation sends records, so it is the one that was refused."""
        for runner in self._reachable(key, dead_too=True):
            if self.store in runner.granted:
                runner.fenced = True
                self._stop(runner, by="fence")

    def _reports_ack(self, seq: int) -> None:
        for number in [number for number in self.sent if number == seq]:
            reports = self.sent.pop(number)
            self.acknowledged |= {(r.job, r.attempt, r.incarnation) for r in reports.ended}
            self.gone -= {(f.job, f.attempt) for f in reports.forgotten}

    def _reachable(self, key: Key, *, dead_too: bool = False) -> list[Runner]:
        entry = self.cluster.entries.get(key)
        runners = entry.runners if entry is not None else []
        return [runner for runner in runners if not runner.cut_off and (dead_too or runner.alive)]

    # --- to the service

    def hello(self) -> messages.Hello:
        owned = tuple(
            messages.Owned(job=r.key[0], attempt=r.key[1], incarnation=r.incarnation) for r in self.cluster.runners()
        )
        return messages.Hello(
            protocol=1, version="0", capabilities=self.capabilities, boot_id=str(id(self)), owned=owned
        )

    def claim_for(self, runner: Runner) -> messages.Claim | None:
        """The claim that this runner waits for; one that runs asks again where the store is a restored one."""
        if runner.cut_off or self.store in runner.granted or (not runner.alive and not runner.claimed):
            return None
        self.counter += 1
        self.claims[self.counter] = runner
        job, attempt = runner.key
        return messages.Claim(request=self.counter, job=job, attempt=attempt, incarnation=runner.incarnation)

    def append_for(self, runner: Runner) -> messages.Append | None:
        """The next records, without waiting for an answer; when all are sent, those that are not durable once more.

        Of a dead runner too, from its spool.
        """
        if runner.cut_off or self.store not in runner.granted:
            return None
        if runner.durable_in != self.store:
            runner.durable, runner.durable_in, runner.sent = 1, self.store, 1
        first = runner.sent if runner.durable < runner.sent <= len(runner.spool) else runner.durable
        lines = runner.spool[first - 1 : first - 1 + BATCH]
        if not lines:
            return None
        runner.sent = first + len(lines)
        (job, attempt), text = runner.key, "\n".join(lines).encode()
        if self.world.rules.passes_on(first, first + len(lines)) != first:
            runner.durable = first + len(lines)
        return messages.Append(
            job=job, attempt=attempt, incarnation=runner.incarnation, first=first, count=len(lines), lines=text
        )

    def reports(self) -> messages.Reports | None:
        """Everything that is proven and not acknowledged, once more."""
        ended = [
            Report(job=r.key[0], attempt=r.key[1], incarnation=r.incarnation, exit_code=r.exit_code, reason=r.reason)
            for r in self.cluster.runners()
            if not r.cut_off and self.world.rules.reports_end(r, self.store)
        ]
        ended += [report for desired in self.told.values() if (report := self._lost(desired)) is not None]
        ended = [r for r in ended if (r.job, r.attempt, r.incarnation) not in self.acknowledged]
        forgotten = tuple(messages.Owned(job=job, attempt=attempt) for job, attempt in sorted(self.gone))
        if not ended and not forgotten:
            return None
        self.counter += 1
        reports = messages.Reports(seq=self.counter, ended=tuple(ended), forgotten=forgotten)
        self.sent[self.counter] = reports
        return reports

    def _lost(self, desired: messages.Desired) -> Report | None:
        """Of an attempt that should run or stop, and that the executor holds nothing of, nothing can run any more."""
        if desired.action == "forget" or (desired.job, desired.attempt) in self.cluster.entries:
            return None
        if desired.action == "run" and not desired.incarnation:
            return None
        why = Reason(code="lost", message="nothing is left of it on its cluster")
        return Report(job=desired.job, attempt=desired.attempt, incarnation=desired.incarnation, reason=why)
