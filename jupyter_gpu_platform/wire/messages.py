"""The messages between the control service and a cluster's agent, in MessagePack, each tagged with its name.

Two sockets carry them (design §6): *control* (`Hello`, `Welcome`, desired state, reports, claims, pings) and *bulk*
(`BulkHello`, `Append` and its answers), so that output never delays a claim. Fields are only ever added, each with
a default; a message that the peer's hello did not declare is never sent to it, and an unknown one is refused by name.
"""

from __future__ import annotations

import msgspec

from ..model.jobs import JobSpec, Reason
from ..model.lifecycle import Action, Report
from ..model.resources import Capacity

#: Grows when a peer one minor older could not follow; a hello with another major is refused.
PROTOCOL = 1

#: What this release can do beyond the protocol's first form; a peer's hello says what it can.
CAPABILITIES: tuple[str, ...] = ("interrupt", "inspect", "output.zlib", "objects", "answer", "figures")

#: One WebSocket message's greatest size, bytes.
MAX_MESSAGE = 8 * 2**20


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="m"):
    """Anything that crosses."""


# --- both ways -------------------------------------------------------------------------------------------------


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    nonce: int


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    nonce: int


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """The peer can't go on with this session: said before it closes the socket."""

    code: str
    message: str
    #: seconds to stay away before the next try; 0: try as usual
    retry_after: float = 0.0


# --- agent → service, control ----------------------------------------------------------------------------------


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that the agent holds something of."""

    job: str
    attempt: int
    incarnation: str = ""


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """The first message on the control socket."""

    protocol: int
    version: str
    capabilities: tuple[str, ...]
    #: random, new with each start of the agent's process
    boot_id: str
    #: of the store that the agent last obeyed; empty at first
    store_incarnation: str = ""
    owned: tuple[Owned, ...] = ()
    capacity: Capacity = Capacity()


class CapacityReport(Message, frozen=True, kw_only=True, tag="capacity"):
    capacity: Capacity


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of an attempt before it is claimed, for people to read."""

    job: str
    attempt: int
    reason: Reason


class Reports(Message, frozen=True, kw_only=True, tag="reports"):
    """Proofs that attempts have ended, and progress; numbered per session, acknowledged cumulatively once committed."""

    seq: int
    ended: tuple[Report, ...] = ()
    progress: tuple[Started, ...] = ()
    #: tombstones carried out: nothing of these attempts is left
    forgotten: tuple[Owned, ...] = ()


class Claim(Message, frozen=True, kw_only=True, tag="claim"):
    """A runner asks to run user code."""

    request: int
    job: str
    attempt: int
    replica: int = 0
    incarnation: str


class DesiredAck(Message, frozen=True, kw_only=True, tag="desired_ack"):
    """The agent has made everything up to this revision durable."""

    revision: int


class Inspected(Message, frozen=True, kw_only=True, tag="inspected"):
    request: int
    owned: tuple[Owned, ...]
    capacity: Capacity


class Figures(Message, frozen=True, kw_only=True, tag="figures"):
    """What an agent counts about itself since its process began. The newest counts; it is in no store."""

    #: how often a service has welcomed it
    connections: int = 0
    #: connections that broke, or never came about
    connection_failures: int = 0
    #: tries to carry out what is wanted of an attempt that failed, and were made again
    action_failures: int = 0
    #: failures in the executor's own loops, which go on
    executor_failures: int = 0
    #: claims and records that runners were asked to send again later
    calls_put_off: int = 0
    #: claims and records that nobody wants any more
    calls_refused: int = 0
    #: ends and tombstones that the service has not yet committed
    reports_waiting: int = 0
    #: output in the agent's memory that the service has not yet committed
    output_waiting_bytes: int = 0
    #: output that runners keep on disk
    spool_bytes: int = 0


# --- service → agent, control ----------------------------------------------------------------------------------


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """What should be true of one attempt. An older generation than the one held changes nothing."""

    job: str
    attempt: int
    generation: int
    action: Action
    #: what claimed it; an attempt that is claimed is never started anew: where nothing is left of it, that is reported
    incarnation: str = ""
    interrupts: int = 0
    grace: float = 10.0
    #: with ``run`` only
    spec: JobSpec | None = None
    gpus: tuple[str, ...] = ()


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """The answer to a hello: the whole desired state of the agent's cluster."""

    protocol: int
    version: str
    capabilities: tuple[str, ...]
    store_incarnation: str
    cluster: str
    #: the lease under which this replica holds the agent; an older epoch's socket is closed
    epoch: int
    heartbeat: float
    revision: int
    desired: tuple[Desired, ...]
    #: attempts in the hello that this store doesn't know: kept, never stopped, listed for an admin
    unknown: tuple[Owned, ...] = ()


class Delta(Message, frozen=True, kw_only=True, tag="delta"):
    """Desired state that changed since the last Welcome or Delta."""

    revision: int
    desired: tuple[Desired, ...]


class ReportsAck(Message, frozen=True, kw_only=True, tag="reports_ack"):
    """Everything up to this seq is committed."""

    seq: int


class ClaimResult(Message, frozen=True, kw_only=True, tag="claim_result"):
    request: int
    granted: bool
    refusal: str = ""
    #: what the attempt may write; the runner cuts its output there
    max_output_bytes: int = 0


class Inspect(Message, frozen=True, kw_only=True, tag="inspect"):
    """Asks what the agent really holds at this moment."""

    request: int


class Answer(Message, frozen=True, kw_only=True, tag="answer"):
    """What somebody typed where an attempt's code asks. May be lost or come twice; is in no log and no store."""

    job: str
    attempt: int
    #: which question: the number in its ``input`` record
    request: int
    value: str


# --- bulk ------------------------------------------------------------------------------------------------------


class BulkHello(Message, frozen=True, kw_only=True, tag="bulk_hello"):
    """The first message on the bulk socket: joins it to the control session of the same boot and epoch."""

    boot_id: str
    epoch: int


class Append(Message, frozen=True, kw_only=True, tag="append"):
    """Records ``first … first + count - 1`` of one stream, as whole JSON lines."""

    job: str
    attempt: int
    replica: int = 0
    execution: int = 0
    incarnation: str
    first: int
    count: int
    lines: bytes


class Appended(Message, frozen=True, kw_only=True, tag="appended"):
    """Everything before ``next_seq`` is committed; the stream may have ``credit`` more bytes in flight."""

    job: str
    attempt: int
    replica: int = 0
    execution: int = 0
    next_seq: int
    credit: int


class AppendRefused(Message, frozen=True, kw_only=True, tag="append_refused"):
    """Nothing more of this stream will be taken: fenced, unknown, or of another cluster's."""

    job: str
    attempt: int
    replica: int = 0
    execution: int = 0
    code: str
    message: str


FromAgent = (
    Ping
    | Pong
    | Refused
    | Hello
    | CapacityReport
    | Reports
    | Claim
    | DesiredAck
    | Inspected
    | Figures
    | BulkHello
    | Append
)
FromService = (
    Ping | Pong | Refused | Welcome | Delta | ReportsAck | ClaimResult | Inspect | Answer | Appended | AppendRefused
)
