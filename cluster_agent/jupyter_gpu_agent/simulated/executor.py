"""Makes attempts that only seem to run: they claim, write and end by the clock, through the agent's real core.

A thousand agents with a hundred jobs each fit into one process this way, and the control service can't tell them from
others. Nothing runs user code, no objects are fetched or stored, and nothing outlives the process: what an agent that
was started anew no longer holds is reported as lost, as after a machine's restart.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
import uuid
from dataclasses import dataclass, field

from jupyter_gpu_platform.errors import ClaimLost, Unavailable
from jupyter_gpu_platform.model.jobs import Reason
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.model.records import StreamKey
from jupyter_gpu_platform.model.resources import Capacity
from jupyter_gpu_platform.wire.messages import ClaimResult, Desired, Owned

from ..executors import AgentCore, AttemptKey, ExecutorSettings, OutOfSequence
from ..process import gpus
from .timings import Course, Timings

log = logging.getLogger(__name__)

#: seconds within which a runner joins its output to one batch
PAUSE = 0.1
#: seconds between tries of what the service refused for now
AGAIN = 1.0
#: greater than any generation, seq or question: asks about the others alone
ANY = 2**62
MEMORY = 2**40


@dataclass
class _Run:
    """One attempt, and how far it has come."""

    key: AttemptKey
    incarnation: str
    gpus: frozenset[str]
    course: Course
    #: of what is wanted of it, as last heard
    generation: int
    interrupts: int
    #: everything written, as a runner's spool keeps it; the first *sent* of them were handed over
    lines: list[bytes] = field(default_factory=list)
    sent: int = 0
    over: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def stream(self) -> StreamKey:
        return StreamKey(self.key.job, self.key.attempt)

    def write(self, **fields: object) -> None:
        record = {"seq": len(self.lines) + 1, "time": round(time.time(), 6), **fields}
        self.lines.append(json.dumps(record, separators=(",", ":")).encode() + b"\n")


class SimulatedExecutor:
    """The `jupyter_gpu_agent.executors.Executor` of a cluster that isn't there."""

    def __init__(self, core: AgentCore, settings: ExecutorSettings) -> None:
        self._core = core
        self._timings = Timings.read(settings.options)
        self._gpus = gpus.simulate(settings.fake_gpus).gpus
        self._name = uuid.uuid4().hex[:12]
        self._runs: dict[AttemptKey, _Run] = {}
        #: how many attempts have claimed, and how many were forgotten after their end
        self.claimed = 0
        self.ended = 0

    async def start(self) -> None:
        """Nothing outlives an agent here, so there is nothing to adopt."""

    async def close(self) -> None:
        """End everything: it lives in this process only."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- what the agent asks

    async def apply(self, desired: Desired) -> None:
        key = AttemptKey(desired.job, desired.attempt)
        if key in self._runs or desired.spec is None:
            return
        refusal = self._refusal(desired)
        run = self._runs[key] = _Run(
            key=key,
            incarnation=f"simulated-{self._name}-{key.job}.{key.attempt}",
            gpus=frozenset(desired.gpus),
            course=self._timings.course(key),
            generation=desired.generation,
            interrupts=desired.interrupts,
        )
        run.task = asyncio.create_task(self._see_through(run, refusal), name=f"attempt {key.job}.{key.attempt}")

    async def stop(self, key: AttemptKey, grace: float) -> None:
        """Nothing to do: the attempt learns it from its parked request, as a runner does."""

    async def forget(self, key: AttemptKey) -> None:
        run = self._runs.pop(key, None)
        if run is not None and run.task is not None:
            # A tombstone follows the commit of the end, and may come before that commit's acknowledgement.
            self.ended += run.over
            run.task.cancel()
            await asyncio.gather(run.task, return_exceptions=True)

    def owned(self) -> list[Owned]:
        return [Owned(job=key.job, attempt=key.attempt, incarnation=run.incarnation) for key, run in self._runs.items()]

    async def capacity(self) -> Capacity:
        note = "" if self._gpus else "this cluster is simulated, without GPUs"
        return Capacity(gpus=self._gpus, cpus=self._timings.cpus.low, memory=MEMORY, gpu_note=note)

    async def spooled(self) -> int:
        return 0

    async def keep(self, name: str) -> None:
        """Nothing to do: the directory lasts."""

    def _refusal(self, desired: Desired) -> Reason | None:
        """Say why the attempt can't be started, as a machine would."""
        why = ""
        if unknown := set(desired.gpus).difference(gpu.uuid for gpu in self._gpus):
            why = f"this cluster has no GPU {min(unknown)}"
        for run in self._runs.values() if desired.gpus else ():
            if not run.over and (shared := run.gpus.intersection(desired.gpus)):
                why = f"GPU {min(shared)} is still held by attempt {run.key.attempt} of job {run.key.job}"
        return Reason(code="start_failed", message=why) if why else None

    # --- an attempt's life

    async def _see_through(self, run: _Run, refusal: Reason | None) -> None:
        try:
            report = await self._live(run) if refusal is None else self._report(run, None, refusal)
            run.over = True
            if report is not None:
                await self._core.ended(report)
            run.lines.clear()
        except Exception:  # the loop's edge: other attempts go on
            self._core.failed()
            log.exception("attempt %s.%d can't be seen through", *run.key)

    async def _live(self, run: _Run) -> Report | None:
        """Claim, run and write; returns the report to make, or None where nobody wants to hear of it any more."""
        stopped = await self._pass(run, run.course.start_delay)
        if stopped is not None:
            return self._report(run, None, stopped)
        claimed = await self._claim(run)
        if not claimed.granted:
            return self._report(run, None, Reason(code="claim_refused", message=claimed.refusal))
        self.claimed += 1
        code, why = await self._run(run)
        run.write(type="exit", exit_code=code, signal=None, reason=_plain(why))
        return self._report(run, code, why) if await self._deliver(run, durable=True) else None

    async def _claim(self, run: _Run) -> ClaimResult:
        while True:
            try:
                return await self._core.claim(run.key.job, run.key.attempt, 0, run.incarnation)
            except Unavailable:
                await asyncio.sleep(AGAIN)

    async def _run(self, run: _Run) -> tuple[int, Reason | None]:
        course = run.course
        steps = max(1, min(course.records, math.ceil(course.run_time / PAUSE)))
        for step in range(steps):
            stopped = await self._pass(run, course.run_time / steps)
            if stopped is not None:
                return 143 if stopped.code == "stopped" else 1, stopped
            while len(run.lines) < course.records * (step + 1) // steps:
                run.write(type="stream", name="stdout", text=self._text(len(run.lines) + 1))
            if not await self._deliver(run):
                break
        if course.exit_code:
            why = f"ended with exit code {course.exit_code}"
            return course.exit_code, Reason(code="exit_code", message=why, details={"exit_code": course.exit_code})
        return 0, None

    def _text(self, number: int) -> str:
        return f"line {number} ".ljust(int(self._timings.record_length.low) - 1, ".") + "\n"

    async def _pass(self, run: _Run, seconds: float) -> Reason | None:
        """Let time pass; returns what ends the attempt before its time, if anything does."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            wanted = await self._core.wait_wanted(run.stream, run.generation, ANY, ANY, left)
            run.generation = max(run.generation, wanted.generation)
            if wanted.action != "run":
                return Reason(code="stopped", message="stopped because its job was cancelled")
            if wanted.interrupts > run.interrupts:
                run.interrupts = wanted.interrupts
                return Reason(code="error", message="KeyboardInterrupt: ", details={"ename": "KeyboardInterrupt"})
        return None

    async def _deliver(self, run: _Run, *, durable: bool = False) -> bool:
        """Hand over what was written, and with *durable* see it committed; False where nothing more is wanted."""
        while not self._core.fenced(run.key):
            if run.sent < len(run.lines):
                if not await self._hand_over(run):
                    return False
            elif not durable or (safe := self._core.durable(run.stream)) > len(run.lines):
                return True
            else:
                await self._core.wait_wanted(run.stream, ANY, safe, ANY, 20.0)
                # A restored service may lack what it had: then the agent goes on further back.
                run.sent = min(run.sent, (self._core.expected(run.stream) or run.sent + 1) - 1)
        return False

    async def _hand_over(self, run: _Run) -> bool:
        lines = run.lines[run.sent :]
        try:
            await self._core.append(run.stream, run.incarnation, run.sent + 1, len(lines), b"".join(lines))
        except OutOfSequence as error:
            run.sent = error.expected - 1
        except ClaimLost:
            return False
        except Unavailable:
            await asyncio.sleep(AGAIN)
        else:
            run.sent += len(lines)
        return True

    def _report(self, run: _Run, code: int | None, why: Reason | None) -> Report:
        return Report(job=run.key.job, attempt=run.key.attempt, incarnation=run.incarnation, exit_code=code, reason=why)


def _plain(reason: Reason | None) -> dict[str, object] | None:
    return None if reason is None else {"code": reason.code, "message": reason.message}
