"""What an executor is to the agent, and what the agent is to an executor.

An executor makes attempts real (processes here, pods there). The agent calls `Executor`; the executor, and the
runner link that it serves, call `AgentCore`. Executors are made as ``factory(core, settings)``; those of other packages
are found by the entry point group ``jupyter_gpu_platform.executors``.

Rules that both sides keep:

- Nothing is stopped or forgotten because it is absent somewhere; only `Executor.stop` and `Executor.forget` say so.
- `Executor.apply`, `stop` and `forget` are idempotent and are never run at the same time for one attempt.
- An answer that means *committed* (`claim`, `ended`, `durable`) was committed by the control service.
- The agent keeps output in memory only. What it accepted is lost with it until `durable` says otherwise, so a runner
  whose connection to the agent broke sends again from its own durable position.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from jupyter_gpu_platform.model.lifecycle import Action, Report
from jupyter_gpu_platform.model.records import StreamKey
from jupyter_gpu_platform.model.resources import Capacity
from jupyter_gpu_platform.wire.messages import ClaimResult, Desired, Owned, Started

ENTRY_POINTS = "jupyter_gpu_platform.executors"
#: the executors of this package
OWN = {
    "kubernetes": "jupyter_gpu_agent.kubernetes.executor:KubernetesExecutor",
    "process": "jupyter_gpu_agent.process.executor:ProcessExecutor",
    "simulated": "jupyter_gpu_agent.simulated.executor:SimulatedExecutor",
}


class AttemptKey(NamedTuple):
    """Names one attempt."""

    job: str
    attempt: int


class InputAnswer(NamedTuple):
    """What somebody typed where the code asked: it goes to the runner and nowhere else."""

    request: int
    value: str


class Wanted(NamedTuple):
    """What a runner must know of its attempt, and how far its output is safe."""

    #: 0 while the service has not yet said anything of the attempt; then ``action`` is "run"
    generation: int
    action: Action
    interrupts: int
    grace: float
    #: the next seq that is not yet committed
    durable: int
    #: answers to the code's questions that the runner has not yet said it has
    inputs: tuple[InputAnswer, ...] = ()


class Incoming(NamedTuple):
    """An object on its way to a runner."""

    #: bytes
    size: int
    pieces: AsyncIterator[bytes]


class OutOfSequence(Exception):
    """The records don't begin where the stream goes on: send again from ``expected``."""

    def __init__(self, expected: int) -> None:
        super().__init__(f"the stream goes on at {expected}")
        self.expected = expected


@dataclass(frozen=True)
class ExecutorSettings:
    """What an executor is told when it is made."""

    state_dir: Path
    #: simulate this many GPUs
    fake_gpus: int = 0
    #: keep so many runners ready, each for so many seconds
    standby: int = 0
    standby_seconds: float = 1800.0
    #: what only one kind of executor understands
    options: Mapping[str, str] = field(default_factory=dict)


class Executor(Protocol):
    """Makes attempts real on one kind of machinery."""

    async def start(self) -> None:
        """Adopt what already runs and begin to serve runners; `owned` is complete when this returns.

        Runs before the agent first speaks to the service, so it must not wait for `AgentCore.ended`.
        """

    async def close(self) -> None:
        """Let go of everything without stopping it: attempts go on and are adopted by the next agent."""

    async def apply(self, desired: Desired) -> None:
        """Make the attempt exist. Called again, for one that exists or has ended, it does nothing.

        What can't be started is reported through `AgentCore.ended` with a reason (``start_failed``), not raised.
        ``desired.spec`` is set; ``desired.gpus`` names the GPUs by UUID.
        """

    async def stop(self, key: AttemptKey, grace: float) -> None:
        """Begin to stop the attempt; its end is reported through `AgentCore.ended`. Returns soon."""

    async def forget(self, key: AttemptKey) -> None:
        """Leave nothing of the attempt; stops it first where it still runs. Returns when nothing is left."""

    def owned(self) -> list[Owned]:
        """Every attempt that this executor holds anything of, ended ones included."""

    async def capacity(self) -> Capacity:
        """What the machinery has in all, whatever our own attempts hold of it."""

    async def spooled(self) -> int:
        """Bytes of output that runners keep on disk here; asked every few seconds."""

    async def keep(self, name: str) -> None:
        """See to it that the next agent finds this file of the state directory, which has just been written."""


class ExecutorFactory(Protocol):
    def __call__(self, core: AgentCore, settings: ExecutorSettings) -> Executor: ...


class AgentCore(Protocol):
    """What executors call. All of it runs in the agent's one event loop."""

    async def claim(self, job: str, attempt: int, replica: int, incarnation: str) -> ClaimResult:
        """Ask for the right to run user code.

        :raises Unavailable: the service can't be asked now; ask again.
        """

    def claimed_by(self, key: AttemptKey) -> str:
        """The incarnation that holds the attempt, as far as this agent has heard; empty where none does."""

    async def append(self, key: StreamKey, incarnation: str, first: int, count: int, lines: bytes) -> None:
        """Hand over *count* records as whole JSON lines; returns when they are taken, which is not durable.

        Waits where the stream's window is full.

        :raises OutOfSequence: they don't begin where the stream goes on.
        :raises ClaimLost: the stream is fenced.
        :raises Unavailable: there is no room and none is coming now; try again.
        """

    def durable(self, key: StreamKey) -> int:
        """The next seq that is not yet committed, as far as this agent knows; 1 at first."""

    def expected(self, key: StreamKey) -> int | None:
        """The next seq that `append` takes; None where this agent knows nothing of the stream (any will do)."""

    def fenced(self, key: AttemptKey) -> bool:
        """The service takes nothing more of this attempt: its runner must stop everything and exit."""

    async def wait_wanted(self, key: StreamKey, generation: int, durable: int, inputs: int, timeout: float) -> Wanted:
        """Answer when the generation or the durable seq is greater than those given, or after *timeout* seconds.

        :param inputs: the last answer that the runner has: it is let go of, and a later one is news, too.
        """

    def fetch(self, key: AttemptKey, digest: str) -> AbstractAsyncContextManager[Incoming]:
        """Open an object that the attempt's spec names.

        :raises NotFound: it names none such.
        :raises Unavailable: it can't be had now, or breaks off; try again.
        """

    async def store(
        self, key: AttemptKey, incarnation: str, digest: str, size: int, body: AsyncIterable[bytes]
    ) -> None:
        """Store an object that the attempt has made, passing it on as it comes; returns once it is committed.

        :raises ClaimLost: the incarnation doesn't hold the attempt.
        :raises InvalidRequest: the bytes are not what the digest names, or too many.
        :raises Unavailable: it can't be stored now; try again.
        """

    async def ended(self, report: Report) -> None:
        """Report an attempt's end; returns when the service has committed it.

        Waits through lost connections. A caller that stops waiting doesn't take the report back; the same report
        given again waits for the same answer.
        """

    def progress(self, started: Started) -> None:
        """Tell people what an attempt waits for before it is claimed. May be lost."""

    def failed(self) -> None:
        """Count a failure in a loop of the executor that goes on; the executor has logged it."""

    def capacity_changed(self, capacity: Capacity) -> None:
        """What the machinery has is no longer what it last said."""
