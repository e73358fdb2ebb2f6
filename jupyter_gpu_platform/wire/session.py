"""The control socket's two ends as state machines: a message, a tick or a local fact in, effects out. No I/O.

`AgentSession` lives as long as the agent's process and goes through many connections: it keeps what is not yet
acknowledged and sends it again. `ServiceSession` lives as long as one socket: what it must not lose is in the store.
Both return lists of effects; the shell around them carries out `Send` and `Close` and takes the rest as news.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from .. import __version__, errors
from ..model.jobs import Cell
from ..model.lifecycle import Report
from ..model.resources import Capacity
from .messages import (
    CAPABILITIES,
    MAX_MESSAGE,
    PROTOCOL,
    Answer,
    CapacityReport,
    Claim,
    ClaimResult,
    Delta,
    Desired,
    DesiredAck,
    Figures,
    Hello,
    Inspect,
    Inspected,
    Message,
    Owned,
    Ping,
    Pong,
    Refused,
    Reports,
    ReportsAck,
    Started,
    Welcome,
)

#: Seconds between pings, and how many may stay unanswered before the connection counts as dead.
HEARTBEAT = 5.0
MISSES = 3

#: One `Reports` message carries at most this many items.
REPORT_BATCH = 500

#: A message carries about this much desired state, bytes.
PORTION = MAX_MESSAGE // 4

_encoder = msgspec.msgpack.Encoder()

#: Messages that may go only to a peer whose hello names the capability.
NEEDS: dict[type[Message], str] = {Inspect: "inspect", Inspected: "inspect", Answer: "answer", Figures: "figures"}


# --- effects ---------------------------------------------------------------------------------------------------


class Send(NamedTuple):
    message: Message


class Close(NamedTuple):
    """Close the socket now; a `Refused` that says why was sent before it where that makes sense."""

    code: str
    message: str
    retry_after: float = 0.0


class Got(NamedTuple):
    """A message for the layer above."""

    message: Message


class Changed(NamedTuple):
    """Desired state that is newer than what was held."""

    revision: int
    desired: tuple[Desired, ...]


class Committed(NamedTuple):
    """The service has committed these reports."""

    ended: tuple[Report, ...]
    forgotten: tuple[Owned, ...]


Effect = Send | Close | Got | Changed | Committed


def refuse(code: str, message: str, retry_after: float = 0.0) -> list[Effect]:
    """Say why, then close."""
    return [Send(Refused(code=code, message=message, retry_after=retry_after)), Close(code, message, retry_after)]


class Liveness:
    """Whether the peer is still there: anything heard counts, and a ping asks for something to hear."""

    def __init__(self, heartbeat: float = HEARTBEAT) -> None:
        self.heartbeat = heartbeat
        self._heard = 0.0
        self._asked = 0.0
        self._nonce = 0

    def begin(self, now: float) -> None:
        self._heard = self._asked = now

    def heard(self, now: float) -> None:
        self._heard = now

    def tick(self, now: float) -> list[Effect]:
        if now - self._heard > self.heartbeat * MISSES:
            return [Close("silent", f"nothing was heard for {now - self._heard:.0f} s")]
        if now - self._asked < self.heartbeat:
            return []
        self._asked = now
        self._nonce += 1
        return [Send(Ping(nonce=self._nonce))]


def common_effects(message: Message) -> list[Effect] | None:
    """What both ends do alike with what may come either way; None for everything else."""
    match message:
        case Ping(nonce=nonce):
            return [Send(Pong(nonce=nonce))]
        case Pong():
            return []
        case Refused(code=code, message=why, retry_after=retry_after):
            return [Close(code, why, retry_after)]
    return None


# --- the agent's end -------------------------------------------------------------------------------------------

_ItemKey = tuple[str, str, int, str]


class _Outbox:
    """Reports that the service has not yet committed, in the order in which they arose."""

    def __init__(self) -> None:
        #: not acknowledged; the value is the seq of the message that carried the item, 0 while none did
        self._items: dict[_ItemKey, tuple[Report | Owned, int]] = {}
        self._progress: dict[tuple[str, int], Started] = {}
        self._seq = 0

    def ended(self, report: Report) -> None:
        self._items.setdefault(("ended", report.job, report.attempt, report.incarnation), (report, 0))

    def forgotten(self, owned: Owned) -> None:
        self._items.setdefault(("forgotten", owned.job, owned.attempt, ""), (owned, 0))

    def progress(self, started: Started) -> None:
        self._progress[started.job, started.attempt] = started

    def restart(self) -> None:
        """A new session: nothing counts as sent, and numbers begin again. Old progress is no news."""
        self._seq = 0
        self._items = {key: (item, 0) for key, (item, _) in self._items.items()}
        self._progress.clear()

    def take(self) -> Iterator[Reports]:
        """What is to be sent now."""
        unsent = [key for key, (_, seq) in self._items.items() if not seq]
        while unsent or self._progress:
            batch, unsent = unsent[:REPORT_BATCH], unsent[REPORT_BATCH:]
            self._seq += 1
            items = [self._items[key][0] for key in batch]
            for key in batch:
                self._items[key] = (self._items[key][0], self._seq)
            yield Reports(
                seq=self._seq,
                ended=tuple(item for item in items if isinstance(item, Report)),
                forgotten=tuple(item for item in items if isinstance(item, Owned)),
                progress=tuple(self._progress.values()),
            )
            self._progress.clear()

    def acknowledge(self, seq: int) -> Committed:
        done = [key for key, (_, sent) in self._items.items() if 0 < sent <= seq]
        items = [self._items.pop(key)[0] for key in done]
        return Committed(
            tuple(item for item in items if isinstance(item, Report)),
            tuple(item for item in items if isinstance(item, Owned)),
        )

    def __len__(self) -> int:
        return len(self._items)


class AgentSession:
    """The agent's end, over all its connections."""

    def __init__(self, heartbeat: float = HEARTBEAT) -> None:
        self.live = False
        self.welcome: Welcome | None = None
        #: of the store last obeyed; told in the hello, so that a restored backup can be recognised
        self.store_incarnation = ""
        self._liveness = Liveness(heartbeat)
        self._outbox = _Outbox()
        self._claims: dict[int, Claim] = {}
        self._request = 0
        #: the newest generation seen of each attempt
        self._generations: dict[tuple[str, int], int] = {}

    @property
    def unacknowledged(self) -> int:
        """How many reports wait for the service's commit."""
        return len(self._outbox)

    def connect(self, now: float, *, boot_id: str, owned: Sequence[Owned], capacity: Capacity) -> list[Effect]:
        """A socket was opened: say hello."""
        self.lost()
        self._liveness.begin(now)
        hello = Hello(
            protocol=PROTOCOL,
            version=__version__,
            capabilities=CAPABILITIES,
            boot_id=boot_id,
            store_incarnation=self.store_incarnation,
            owned=tuple(owned),
            capacity=capacity,
        )
        return [Send(hello)]

    def lost(self) -> None:
        """The socket is gone: keep what is not acknowledged."""
        self.live = False
        self.welcome = None
        self._outbox.restart()

    def receive(self, message: Message, now: float) -> list[Effect]:
        self._liveness.heard(now)
        common = common_effects(message)
        if common is not None:
            return common
        if isinstance(message, Welcome):
            return self._welcomed(message)
        if not self.live:
            return refuse("not_welcomed", f"{type(message).__name__} came before the welcome")
        match message:
            case Delta(revision=revision, desired=desired):
                return [self._newer(revision, desired)]
            case ReportsAck(seq=seq):
                committed = self._outbox.acknowledge(seq)
                for owned in committed.forgotten:
                    self._generations.pop((owned.job, owned.attempt), None)
                return [committed]
            case ClaimResult(request=request):
                return [Got(message)] if self._claims.pop(request, None) else []
            case Inspect() | Answer():
                return [Got(message)]
        return refuse("unexpected", f"{type(message).__name__} is not for a control socket")

    def _welcomed(self, welcome: Welcome) -> list[Effect]:
        if self.live:
            return refuse("unexpected", "a second welcome")
        if welcome.protocol != PROTOCOL:
            why = f"the service speaks protocol {welcome.protocol}, this agent speaks {PROTOCOL}"
            return refuse("protocol", why, retry_after=60.0)
        self.live = True
        self.welcome = welcome
        self.store_incarnation = welcome.store_incarnation
        self._liveness.heartbeat = min(max(welcome.heartbeat, 0.05), 60.0)
        # A welcome is read from the store after this connection took the lease, so nothing in it is old; and it may
        # be another store than before, or a restored one, whose generations say nothing about ours.
        self._generations.clear()
        claims: list[Effect] = [Send(claim) for claim in self._claims.values()]
        return [Got(welcome), self._newer(welcome.revision, welcome.desired), *claims, *self.flush()]

    def _newer(self, revision: int, desired: Iterable[Desired]) -> Changed:
        """Drop what is older than what is held."""
        taken = []
        for item in desired:
            key = (item.job, item.attempt)
            held = self._generations.get(key, 0)
            # The generation in force may come again with more to it: the tombstone of a deleted job's attempt.
            if item.generation > held or (item.generation == held and item.action == "forget"):
                self._generations[key] = item.generation
                taken.append(item)
        return Changed(revision, tuple(taken))

    def tick(self, now: float) -> list[Effect]:
        return self._liveness.tick(now)

    def applied(self, revision: int) -> list[Effect]:
        """Everything up to *revision* was made durable."""
        return [Send(DesiredAck(revision=revision))] if self.live else []

    def ended(self, report: Report) -> None:
        """Keep a report until it is acknowledged; :meth:`flush` sends it."""
        self._outbox.ended(report)

    def forgotten(self, owned: Owned) -> None:
        """Keep the news that a tombstone was carried out; :meth:`flush` sends it."""
        self._outbox.forgotten(owned)

    def progress(self, started: Started) -> None:
        """Take progress along with the next :meth:`flush`; it is not kept through a lost connection."""
        if self.live:
            self._outbox.progress(started)

    def flush(self) -> list[Effect]:
        """Send the reports that were not yet sent on this connection."""
        return [Send(reports) for reports in self._outbox.take()] if self.live else []

    def claim(self, job: str, attempt: int, replica: int, incarnation: str) -> tuple[int, list[Effect]]:
        """Ask for a claim; asked again on each connection until it is answered or withdrawn."""
        self._request += 1
        claim = Claim(request=self._request, job=job, attempt=attempt, replica=replica, incarnation=incarnation)
        self._claims[claim.request] = claim
        return claim.request, [Send(claim)] if self.live else []

    def withdraw(self, request: int) -> None:
        """Nobody waits for this claim's answer any more."""
        self._claims.pop(request, None)

    def capacity(self, capacity: Capacity) -> list[Effect]:
        return [Send(CapacityReport(capacity=capacity))] if self.live else []

    def inspected(self, request: int, owned: Sequence[Owned], capacity: Capacity) -> list[Effect]:
        """Answer an inspection."""
        return self._declared(Inspected(request=request, owned=tuple(owned), capacity=capacity))

    def figures(self, figures: Figures) -> list[Effect]:
        """Say how the agent fares."""
        return self._declared(figures)

    def _declared(self, message: Message) -> list[Effect]:
        """Send what the service said that it knows."""
        known = self.welcome is not None and NEEDS[type(message)] in self.welcome.capabilities
        return [Send(message)] if known else []


def _portions(desired: Sequence[Desired]) -> Iterator[tuple[Desired, ...]]:
    """Cut desired state into pieces that fit into a message each: a spec's source alone may have a megabyte."""
    portion: list[Desired] = []
    size = 0
    for item in desired:
        weight = len(_encoder.encode(item))
        if portion and size + weight > PORTION:
            yield tuple(portion)
            portion, size = [], 0
        portion.append(item)
        size += weight
    if portion:
        yield tuple(portion)


# --- the service's end -----------------------------------------------------------------------------------------


def _of_first_form(desired: Desired) -> Desired:
    """Leave out what cells had not in the protocol's first form; who needs it is placed nowhere such."""
    spec = desired.spec
    if spec is None or not isinstance(spec.source, Cell):
        return desired
    plain = Cell(code=spec.source.code, execution_count=spec.source.execution_count)
    return replace(desired, spec=replace(spec, source=plain))


class ServiceSession:
    """The service's end of one control socket. Everything handed up was checked for its place in the session.

    The shell answers a `Hello` with :meth:`welcomed`, each `Reports` with :meth:`committed` and each `Claim` with
    :meth:`answer`, all of them after the store's commit.
    """

    def __init__(self, now: float, heartbeat: float = HEARTBEAT) -> None:
        self.hello: Hello | None = None
        self.live = False
        self.epoch = 0
        self.revision = 0
        #: what the agent says it has made durable
        self.applied = 0
        self._liveness = Liveness(heartbeat)
        self._liveness.begin(now)
        self._received = 0
        self._acknowledged = 0
        self._request = 0

    def receive(self, message: Message, now: float) -> list[Effect]:
        self._liveness.heard(now)
        common = common_effects(message)
        if common is not None:
            return common
        if self.hello is None:
            return self._greeted(message)
        if not self.live or isinstance(message, Hello):
            return refuse("unexpected", f"{type(message).__name__} at this point of a session")
        match message:
            case Reports(seq=seq):
                return self._reported(message, seq)
            case DesiredAck(revision=revision):
                self.applied = max(self.applied, revision)
                return []
            case Claim() | CapacityReport() | Inspected() | Figures():
                return [Got(message)]
        return refuse("unexpected", f"{type(message).__name__} is not for a control socket")

    def _greeted(self, message: Message) -> list[Effect]:
        if not isinstance(message, Hello):
            return refuse("unexpected", f"a session begins with a hello, not with {type(message).__name__}")
        if message.protocol != PROTOCOL:
            why = (
                f"agent {message.version} speaks protocol {message.protocol}, "
                f"control service {__version__} speaks {PROTOCOL}"
            )
            return refuse("protocol", why, retry_after=60.0)
        self.hello = message
        return [Got(message)]

    def _reported(self, reports: Reports, seq: int) -> list[Effect]:
        if seq <= self._acknowledged:
            return [Send(ReportsAck(seq=self._acknowledged))]
        if seq <= self._received:
            return []  # being committed; its acknowledgement follows
        if seq != self._received + 1:
            return refuse("out_of_sequence", f"reports {seq} came after {self._received}")
        self._received = seq
        return [Got(reports)]

    def tick(self, now: float) -> list[Effect]:
        return self._liveness.tick(now)

    def welcomed(
        self,
        *,
        store_incarnation: str,
        cluster: str,
        epoch: int,
        revision: int,
        desired: Sequence[Desired],
        unknown: Sequence[Owned] = (),
    ) -> list[Effect]:
        """Answer the hello with the whole desired state of the agent's cluster; what is too much for one message
        follows in deltas of the same revision.
        """
        self.live = True
        self.epoch = epoch
        self.revision = revision
        first, *more = list(_portions(self._understood(desired))) or [()]
        welcome = Welcome(
            protocol=PROTOCOL,
            version=__version__,
            capabilities=CAPABILITIES,
            store_incarnation=store_incarnation,
            cluster=cluster,
            epoch=epoch,
            heartbeat=self._liveness.heartbeat,
            revision=revision,
            desired=first,
            unknown=tuple(unknown),
        )
        return [Send(welcome), *(Send(Delta(revision=revision, desired=portion)) for portion in more)]

    def delta(self, revision: int, desired: Sequence[Desired]) -> list[Effect]:
        """Tell the agent what changed up to *revision*."""
        if not self.live or revision <= self.revision:
            return []
        self.revision = revision
        if not desired:
            return []  # as for nearly all of a thousand agents, with each commit
        return [Send(Delta(revision=revision, desired=part)) for part in _portions(self._understood(desired))]

    def aside(self, desired: Sequence[Desired]) -> list[Effect]:
        """Tell the agent something that is in no revision."""
        return [Send(Delta(revision=self.revision, desired=self._understood(desired)))] if self.live else []

    def _understood(self, desired: Sequence[Desired]) -> tuple[Desired, ...]:
        """An agent is told nothing that it didn't declare to understand."""
        if not self.declares("interrupt"):
            desired = [replace(item, interrupts=0) for item in desired]
        if not self.declares("objects"):
            desired = [_of_first_form(item) for item in desired]
        return tuple(desired)

    def declares(self, capability: str) -> bool:
        return self.hello is not None and capability in self.hello.capabilities

    def committed(self, seq: int) -> list[Effect]:
        """The reports up to *seq* are in the store."""
        if seq <= self._acknowledged:
            return []
        self._acknowledged = seq
        return [Send(ReportsAck(seq=seq))]

    def answer(self, result: ClaimResult) -> list[Effect]:
        return [Send(result)] if self.live else []

    def tell(self, answer: Answer) -> list[Effect]:
        """Pass on what somebody typed.

        :raises Conflict: the agent can't take that.
        :raises Unavailable: the session has not begun.
        """
        if not self.live:
            raise errors.Unavailable("the agent is just connecting")
        if not self.declares(NEEDS[Answer]):
            raise errors.Conflict("code on this cluster can't be answered", hint="Update the cluster's agent.")
        return [Send(answer)]

    def inspect(self) -> tuple[int, list[Effect]]:
        """Ask what the agent really holds.

        :raises Conflict: the agent can't be asked that.
        :raises Unavailable: the session has not begun.
        """
        if not self.live:
            raise errors.Unavailable("the agent is just connecting")
        if not self.declares(NEEDS[Inspect]):
            raise errors.Conflict("this agent can't be inspected", hint="Update the agent.")
        self._request += 1
        return self._request, [Send(Inspect(request=self._request))]
