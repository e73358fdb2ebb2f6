"""The agent itself: what the service wants on one side, an executor on the other, and the session's state between them.

`Core` is what executors call (`executors.AgentCore`). It does no networking: a `connection.Connection` attaches the two
sockets as sinks of effects, and everything here goes on, waiting, while none is attached.

Desired state is carried out by one task per attempt, so that a slow one delays no other; what fails is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from jupyter_gpu_platform import errors, logs
from jupyter_gpu_platform.model.jobs import Reason
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.model.records import StreamKey
from jupyter_gpu_platform.model.resources import Capacity
from jupyter_gpu_platform.wire.messages import (
    Answer,
    Appended,
    AppendRefused,
    ClaimResult,
    Desired,
    Figures,
    Inspect,
    Owned,
    Started,
)
from jupyter_gpu_platform.wire.session import AgentSession, Changed, Committed, Effect, Got
from jupyter_gpu_platform.wire.streams import AgentStreams

from .executors import AttemptKey, Executor, Incoming, InputAnswer, OutOfSequence, Wanted

if TYPE_CHECKING:
    from .connection import Endpoint
    from .objects import Objects

logger = logging.getLogger(__name__)

#: seconds that a claim waits for the service's answer before its runner is told to ask again
CLAIM_PATIENCE = 30.0
#: seconds that records wait for room in their stream's window
APPEND_PATIENCE = 20.0
#: seconds between two tries to carry out what is wanted of an attempt, at most
RETRY_AT_MOST = 30.0
#: answers kept for one attempt; a runner asks one question at a time
ANSWERS = 8

_EndKey = tuple[str, int, str]


class Core:
    """The state of one agent, over all its connections."""

    def __init__(self) -> None:
        self.boot_id = uuid.uuid4().hex
        self.session = AgentSession()
        self.streams = AgentStreams()
        self.capacity = Capacity()
        #: what `figures` counts, by its fields' names
        self.counts: Counter[str] = Counter()
        #: the service that this agent is connected to
        self.endpoint: Endpoint | None = None
        self._objects: Objects | None = None
        #: set whenever there may be something to send on the bulk socket
        self.bulk_news = asyncio.Event()
        self._executor: Executor | None = None
        self._emit: Callable[[Sequence[Effect]], None] | None = None
        self._desired: dict[AttemptKey, Desired] = {}
        self._workers: dict[AttemptKey, asyncio.Task[None]] = {}
        self._news: dict[AttemptKey, asyncio.Event] = {}
        self._room = asyncio.Event()
        #: what people answered, until its runner has it; in memory only
        self._answers: dict[AttemptKey, dict[int, str]] = {}
        self._claims: dict[int, asyncio.Future[ClaimResult]] = {}
        #: who was granted which attempt through this agent
        self._granted: dict[AttemptKey, str] = {}
        self._ends: dict[_EndKey, asyncio.Future[None]] = {}

    @property
    def executor(self) -> Executor:
        assert self._executor is not None, "the agent was not started"
        return self._executor

    async def start(self, executor: Executor) -> None:
        """Adopt what runs; only then may a hello say what this agent holds."""
        self._executor = executor
        await executor.start()
        self.capacity = await executor.capacity()

    async def close(self) -> None:
        for task in self._workers.values():
            task.cancel()
        await asyncio.gather(*self._workers.values(), return_exceptions=True)
        await self.executor.close()
        if self._objects is not None:
            await self._objects.close()

    # --- the connection's side ---------------------------------------------------------------------------------

    def attach(self, emit: Callable[[Sequence[Effect]], None]) -> None:
        """A control socket was opened: say hello on it."""
        now = asyncio.get_running_loop().time()
        self._emit = emit
        emit(self.session.connect(now, boot_id=self.boot_id, owned=self.executor.owned(), capacity=self.capacity))

    def detach(self) -> None:
        """The control socket is gone."""
        self._emit = None
        self.session.lost()

    async def figures(self) -> Figures:
        """Say how this agent fares."""
        return Figures(
            **self.counts,
            reports_waiting=self.session.unacknowledged,
            output_waiting_bytes=self.streams.buffered,
            spool_bytes=await self.executor.spooled(),
        )

    def take(self, effect: Effect) -> None:
        """Act on what the session hands up."""
        match effect:
            case Got(ClaimResult() as answer):
                future = self._claims.pop(answer.request, None)
                if future is not None and not future.done():
                    future.set_result(answer)
            case Got(Answer() as answer):
                self._take_answer(answer)
            case Got(Inspect(request=request)):
                self._send(self.session.inspected(request, self.executor.owned(), self.capacity))
            case Got(Appended() | AppendRefused() as answer):
                self._wake(AttemptKey(answer.job, answer.attempt))
                self._room.set()
                self._room = asyncio.Event()
                self.bulk_news.set()
            case Changed(revision=revision, desired=desired):
                self._want(desired)
                self._send(self.session.applied(revision))
            case Committed(ended=ended):
                for report in ended:
                    future_end = self._ends.pop((report.job, report.attempt, report.incarnation), None)
                    if future_end is not None and not future_end.done():
                        future_end.set_result(None)

    def _take_answer(self, answer: Answer) -> None:
        key = AttemptKey(answer.job, answer.attempt)
        if key not in self._desired:
            return  # nothing of it is here (any more)
        answers = self._answers.setdefault(key, {})
        # The first answer counts: a person's second click must not change what the code is just being told.
        answers.setdefault(answer.request, answer.value)
        while len(answers) > ANSWERS:
            del answers[min(answers)]
        self._wake(key)

    def _send(self, effects: Sequence[Effect]) -> None:
        if self._emit is not None and effects:
            self._emit(effects)

    # --- desired state -----------------------------------------------------------------------------------------

    def _want(self, desired: Sequence[Desired]) -> None:
        owned = self._owned() if any(item.incarnation for item in desired) else set()
        for item in desired:
            key = AttemptKey(item.job, item.attempt)
            self._desired[key] = item
            self._wake(key)
            # After a reconnect nearly everything runs already, as it should: that needs no task of its own.
            runs = item.action == "run" and bool(item.incarnation) and key in owned
            if key not in self._workers and not runs:
                self._workers[key] = asyncio.create_task(self._carry_out(key), name=f"attempt {key.job}.{key.attempt}")

    def _owned(self) -> set[AttemptKey]:
        return {AttemptKey(owned.job, owned.attempt) for owned in self.executor.owned()}

    async def _carry_out(self, key: AttemptKey) -> None:
        """Do what is wanted of one attempt until that no longer changes."""
        logs.begin(job=key.job, attempt=key.attempt)
        done: Desired | None = None
        failures = 0
        try:
            while (item := self._desired.get(key)) is not None and item is not done:
                try:
                    logger.debug("carrying out: %s", item.action)
                    await self._make_true(key, item)
                    done, failures = item, 0
                except Exception:
                    # The edge of this loop: whatever an executor raises, the next try may succeed.
                    failures += 1
                    self.counts["action_failures"] += 1
                    logger.exception("%s failed, trying again", item.action)
                    await asyncio.sleep(random.uniform(0.1, min(RETRY_AT_MOST, 0.5 * 2**failures)))  # noqa: S311 -- jitter
        finally:
            self._workers.pop(key, None)

    async def _make_true(self, key: AttemptKey, item: Desired) -> None:
        match item.action:
            case "run" | "stop" if item.incarnation and key not in self._owned():
                # It was claimed, so it is never started anew; and what holds it, if anything does, is the executor.
                self._report_gone(item, Reason(code="lost", message="nothing is left of it on its cluster"))
            case "run":
                if item.spec is not None:
                    await self.executor.apply(item)
            case "stop":
                if key in self._owned():
                    await self.executor.stop(key, item.grace)
                else:
                    # Nothing was ever made of it, and after this generation nothing will be.
                    self._report_gone(item, Reason(code="stopped", message="cancelled before anything was started"))
            case "forget":
                await self.executor.forget(key)
                self.streams.forget(*key)
                self._answers.pop(key, None)
                self._granted.pop(key, None)
                if self._desired.get(key) is item:
                    del self._desired[key]
                self.session.forgotten(Owned(job=key.job, attempt=key.attempt))
                self._send(self.session.flush())
                self._wake(key)
                self._news.pop(key, None)

    def _report_gone(self, item: Desired, why: Reason) -> None:
        report = Report(job=item.job, attempt=item.attempt, incarnation=item.incarnation, reason=why)
        self.session.ended(report)
        self._send(self.session.flush())

    # --- what executors call -----------------------------------------------------------------------------------

    async def claim(self, job: str, attempt: int, replica: int, incarnation: str) -> ClaimResult:
        request, effects = self.session.claim(job, attempt, replica, incarnation)
        future: asyncio.Future[ClaimResult] = asyncio.get_running_loop().create_future()
        self._claims[request] = future
        self._send(effects)
        try:
            async with asyncio.timeout(CLAIM_PATIENCE):
                result = await future
        except TimeoutError:
            self.counts["calls_put_off"] += 1
            raise errors.Unavailable("the control service did not answer the claim", hint="Ask again.") from None
        finally:
            self._claims.pop(request, None)
            self.session.withdraw(request)
        if result.granted:
            self.streams.open(StreamKey(job, attempt, replica), incarnation)
            self._granted[AttemptKey(job, attempt)] = incarnation
        else:
            self.counts["calls_refused"] += 1
        return result

    def claimed_by(self, key: AttemptKey) -> str:
        item = self._desired.get(key)
        return self._granted.get(key) or (item.incarnation if item is not None else "")

    async def append(self, key: StreamKey, incarnation: str, first: int, count: int, lines: bytes) -> None:
        deadline = asyncio.get_running_loop().time() + APPEND_PATIENCE
        while True:
            refusal = self.streams.refusal(key.job, key.attempt)
            if refusal is not None or not self.streams.belongs(key, incarnation):
                self.counts["calls_refused"] += 1
                raise errors.ClaimLost(refusal or "another incarnation writes this stream")
            if self.streams.has_room(key, len(lines)):
                break
            try:
                async with asyncio.timeout_at(deadline):
                    await self._room.wait()
            except TimeoutError:
                self.counts["calls_put_off"] += 1
                raise errors.Unavailable("the stream's window is full", hint="Send again later.") from None
        expected = self.streams.accept(key, incarnation, first, count, lines)
        if expected is not None:
            raise OutOfSequence(expected)
        self.bulk_news.set()

    def durable(self, key: StreamKey) -> int:
        return self.streams.durable(key)

    def expected(self, key: StreamKey) -> int | None:
        return self.streams.expected(key)

    def fenced(self, key: AttemptKey) -> bool:
        return self.streams.refusal(key.job, key.attempt) is not None

    async def wait_wanted(self, key: StreamKey, generation: int, durable: int, inputs: int, timeout: float) -> Wanted:
        attempt = AttemptKey(key.job, key.attempt)
        if attempt in self._answers:
            later = {request: value for request, value in self._answers[attempt].items() if request > inputs}
            self._answers[attempt] = later
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            news = self._news.setdefault(attempt, asyncio.Event())
            wanted = self._wanted(attempt, key)
            if wanted.generation > generation or wanted.durable > durable or wanted.inputs:
                return wanted
            try:
                async with asyncio.timeout_at(deadline):
                    await news.wait()
            except TimeoutError:
                return self._wanted(attempt, key)

    def _wanted(self, attempt: AttemptKey, key: StreamKey) -> Wanted:
        item, durable = self._desired.get(attempt), self.streams.durable(key)
        if item is None:
            return Wanted(0, "run", 0, 10.0, durable)
        answers = tuple(InputAnswer(*answer) for answer in sorted(self._answers.get(attempt, {}).items()))
        return Wanted(item.generation, item.action, item.interrupts, item.grace, durable, answers)

    def fetch(self, key: AttemptKey, digest: str) -> AbstractAsyncContextManager[Incoming]:
        return self._transfers().fetch(key, digest)

    async def store(
        self, key: AttemptKey, incarnation: str, digest: str, size: int, body: AsyncIterable[bytes]
    ) -> None:
        await self._transfers().store(key, incarnation, digest, size, body)

    def _transfers(self) -> Objects:
        if self.endpoint is None:
            raise errors.Unavailable("no control service is connected", hint="Try again.")
        if self._objects is None:
            # Imported when first needed: its HTTP library takes longer than all else that an agent imports.
            from .objects import Objects

            self._objects = Objects()
        self._objects.endpoint = self.endpoint
        return self._objects

    def _wake(self, key: AttemptKey) -> None:
        news = self._news.pop(key, None)
        if news is not None:
            news.set()

    async def ended(self, report: Report) -> None:
        key = (report.job, report.attempt, report.incarnation)
        future = self._ends.get(key)
        if future is None:
            future = self._ends[key] = asyncio.get_running_loop().create_future()
        self.session.ended(report)
        self._send(self.session.flush())
        await asyncio.shield(future)

    def progress(self, started: Started) -> None:
        self.session.progress(started)
        self._send(self.session.flush())

    def failed(self) -> None:
        self.counts["executor_failures"] += 1

    def capacity_changed(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._send(self.session.capacity(capacity))
