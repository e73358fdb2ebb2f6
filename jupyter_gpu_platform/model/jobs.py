"""The job: what was asked for (`JobSpec`, immutable) and what became of it (`Job`, `Attempt`).

These structs are the only definition there is: HTTP bodies, wire messages, stored payloads, the OpenAPI document
and the TypeScript types all come from them. They only ever gain fields, each with a default.
"""

from __future__ import annotations

import enum
import os
import time
from typing import Annotated, Literal

import msgspec

from .resources import Resources

Name = Annotated[str, msgspec.Meta(max_length=200)]
#: The name of a cluster, project, organisation or person: what can stand in a URL and in a Kubernetes label.
Slug = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$", max_length=63)]
EnvName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
LabelKey = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$", max_length=63)]
LabelValue = Annotated[str, msgspec.Meta(max_length=200)]
Text = Annotated[str, msgspec.Meta(max_length=1_000_000)]
Path = Annotated[str, msgspec.Meta(max_length=4096)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=10 * 365 * 86400)]

#: SHA-256, hexadecimal
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
#: One object (values in, values out) may hold this much: 8 GiB.
MAX_OBJECT_BYTES = 8 * 2**30
#: One job's output may hold this much before it is cut with a notice (256 MiB); `Limits.max_output_bytes` changes it.
DEFAULT_OUTPUT_BYTES = 256 * 2**20


class ObjectRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bytes that the platform keeps for their owner, named by what they hold."""

    #: SHA-256, hexadecimal
    digest: Digest
    #: bytes
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_OBJECT_BYTES)]


class Frontend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a cell's far shell needs of the notebook to stand in for its kernel."""

    #: header of the request that runs the cell (msg_id, session, username): `ipywidgets.Output` captures by it
    parent_header: dict[Name, Name] = {}
    #: process id of the kernel, by which it names cells in warnings and tracebacks; 0: not a kernel
    kernel_pid: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    #: somebody waits under the cell and can answer `input()`
    stdin: bool = False


class Cell(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    # An agent that is older than a field refuses it, so one that says nothing isn't sent.
    omit_defaults=True,
    tag_field="type",
    tag="cell",
):
    """A notebook cell, run as IPython would run it."""

    code: Text
    #: the notebook's own counter, so that tracebacks name the cell as the user sees it
    execution_count: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    #: names that the cell starts with, as `runner.values` packs them
    values: ObjectRef | None = None
    #: names whose values are kept when the cell has ended
    out: Annotated[tuple[Name, ...], msgspec.Meta(max_length=1000)] = ()
    #: how values are packed: ``json`` works between any two Pythons and for plain data only
    encoding: Literal["pickle", "json"] = "pickle"
    frontend: Frontend = Frontend()


class Function(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="function"):
    """A call of a Python function; its result, or what it raised, is kept."""

    #: what the call is called in lists and errors
    qualname: Name
    #: the function, as `runner.values` packs it: ``function``, an entry of kind "call"; those of kind "in" are globals
    function: ObjectRef
    #: arguments of one or several calls, packed likewise: ``<index>``, of kind "call", is a pair (args, kwargs)
    arguments: ObjectRef
    #: which of them
    index: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="script"):
    """A Python file with arguments, run as ``python PATH ARGS``."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    args: Annotated[tuple[Text, ...], msgspec.Meta(max_length=1000)] = ()


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="command"):
    """A program with arguments; no shell in between."""

    argv: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=1000)]


Source = Cell | Function | Script | Command


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the code runs."""

    #: container image; clusters only
    image: Path | None = None
    #: the interpreter; on this machine the submitting kernel's own
    python: Path | None = None
    #: working directory; on this machine the submitter's own
    workdir: Path | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the job may run: one named cluster, or any."""

    cluster: Slug | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: seconds an attempt may run; enforced by the runner in the job itself
    max_run_seconds: Seconds | None = None
    #: seconds the job may wait before it fails
    max_queue_seconds: Seconds | None = None
    max_output_bytes: Annotated[int, msgspec.Meta(ge=1024, le=2**40)] = DEFAULT_OUTPUT_BYTES
    #: seconds between the polite stop (SIGTERM) and the kill
    grace_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be run, and how. Never changes once accepted."""

    source: Source
    name: Name = ""
    resources: Resources = Resources()
    environment: Environment = Environment()
    env: dict[EnvName, Text] = {}
    target: Target = Target()
    limits: Limits = Limits()
    #: how often a failed attempt is tried again
    retries: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    #: the higher goes first; equal ones in order of arrival
    priority: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0
    labels: dict[LabelKey, LabelValue] = {}
    project: Slug = "default"
    organisation: Slug = "default"
    #: the job this one belongs to
    parent: Annotated[str, msgspec.Meta(max_length=40)] | None = None

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """What must be there before the job can run."""
        match self.source:
            case Cell(values=ObjectRef() as values):
                return (values,)
            case Function(function=function, arguments=arguments):
                return (function, arguments)
            case _:
                return ()

    @property
    def kind(self) -> Literal["cell", "function", "script", "command"]:
        match self.source:
            case Cell():
                return "cell"
            case Function():
                return "function"
            case Script():
                return "script"
            case _:
                return "command"


class Phase(enum.StrEnum):
    """A job's life: queued → starting → running → succeeded | failed | cancelled; suspended stands beside running."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in ENDED


ENDED = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job waits or ended: a stable code, a sentence, and the numbers in it."""

    code: str
    message: str
    details: dict[str, str | int | float | bool | None] = {}


class AttemptState(enum.StrEnum):
    """An attempt's life, driven by claims and proofs: placed → running → ended.

    ``abandoned``: a person said that the unreachable attempt is not to be waited for (design §5.4).
    """

    PLACED = "placed"
    RUNNING = "running"
    ENDED = "ended"
    ABANDONED = "abandoned"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job on one cluster."""

    job: str
    #: counts from 1
    number: int
    cluster: str
    state: AttemptState = AttemptState.PLACED
    #: what claimed it: the pod's UID, or the supervisor's boot id, pid and start time; empty until claimed
    incarnation: str = ""
    #: grows with each change of what is wanted of it (interrupt, stop): the fence of desired state
    generation: int = 1
    #: how often the user's code was asked to stop by KeyboardInterrupt
    interrupts: int = 0
    #: seconds since the epoch, as are all times
    created: float
    claimed: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    reason: Reason | None = None
    #: GPUs given to it, by UUID
    gpus: tuple[str, ...] = ()
    #: the agent has been told to forget it, and did
    forgotten: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as everybody sees it."""

    id: str
    spec: JobSpec
    owner: str
    project: str
    organisation: str
    phase: Phase = Phase.QUEUED
    reason: Reason | None = None
    #: number of the newest attempt; 0 before the first
    attempt: int = 0
    cluster: str | None = None
    #: attempts that may still be made after a failure
    retries_left: int = 0
    cancel_requested: bool = False
    created: float
    #: since when it waits for its next attempt, where that is not its first; the queue limit counts from here
    requeued: float | None = None
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    #: since when its agent has not been heard; changes no phase
    unreachable_since: float | None = None
    #: grows with each change; the ETag
    version: int = 1


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_job_id(now: float | None = None, entropy: bytes | None = None) -> str:
    """Make a job id: ``j`` and 18 characters that sort by time (50 bits of milliseconds, 40 random bits)."""
    millis = int((time.time() if now is None else now) * 1000) & (2**50 - 1)
    number = (millis << 40) | int.from_bytes(entropy or os.urandom(5))
    return "j" + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(85, -5, -5))
