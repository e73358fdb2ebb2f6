"""A thread that takes everything that waits and hands it on together: what group commit stands on."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from ... import errors

log = logging.getLogger(__name__)

T = TypeVar("T")


class _Mailbox:
    """Brings answers to one event loop: however many a batch gives, the loop is woken once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._answers: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()

    def post(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._answers.append((future, result, error))
        if len(self._answers) == 1:
            # A loop that was closed meanwhile has nobody who waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # One stays until all are out, so that whoever posts meanwhile needs no second call.
        while self._answers:
            future, result, error = self._answers[0]
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
            self._answers.popleft()


class Answer:
    """The promise of an answer, given on the batches' thread and awaited on an event loop."""

    def __init__(self, mailbox: _Mailbox, future: asyncio.Future[Any]) -> None:
        self._mailbox = mailbox
        self._future = future
        self._given = False
        #: what it failed by
        self.error: BaseException | None = None

    def done(self) -> bool:
        return self._given

    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return not self._future.cancelled()

    def set_result(self, result: Any) -> None:
        self._give(result, None)

    def set_exception(self, error: BaseException) -> None:
        self._give(None, error)

    def _give(self, result: Any, error: BaseException | None) -> None:
        self._given, self.error = True, error
        self._mailbox.post(self._future, result, error)


class Waiting(NamedTuple, Generic[T]):
    """An item and the promise of its answer."""

    item: T
    weight: int
    answer: Answer
    #: when it came, on the monotonic clock
    since: float


class Limits(NamedTuple):
    #: of one batch
    batch_items: int
    batch_weight: int
    #: of all that waits; more is turned away
    items: int
    weight: int


#: upper ends of the buckets in which times are counted, seconds
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Figures:
    """What a lane has done so far; written by its thread alone, read by any."""

    def __init__(self) -> None:
        self.batches = 0
        self.items = 0
        #: batches that came to nothing: the database was away, or a bug
        self.failures = 0
        #: items turned away because too much waited
        self.refused = 0
        #: seconds since the epoch at which a batch was last done; 0: never
        self.succeeded = 0.0
        #: how many batches took up to each of `BUCKETS` from the arrival of their first item to its answer; then more
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def done(self, batch: Sequence[Waiting[Any]]) -> None:
        taken = time.monotonic() - batch[0].since
        self.batches += 1
        self.items += len(batch)
        self.succeeded = time.time()
        self.seconds += taken
        self.counts[bisect.bisect_left(BUCKETS, taken)] += 1


class BatchThread(Generic[T]):
    """Collects items from any event loop and calls *handle* with batches of them, in order, on its own thread.

    While one batch is being handled the next one gathers, so batches grow with the load and nothing waits for a timer.

    :param handle: answers each of the items; what it raises becomes the answer of those it left without one.
    """

    def __init__(self, name: str, handle: Callable[[Sequence[Waiting[T]]], None], limits: Limits) -> None:
        self._handle = handle
        self.limits = limits
        self.figures = Figures()
        self._queue: deque[Waiting[T]] = deque()
        self._weight = 0
        self._mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Mailbox] = WeakKeyDictionary()
        self._changed = threading.Condition()
        self._closing = False
        self._finished: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many items wait for their batch."""
        return len(self._queue)

    @property
    def weight(self) -> int:
        """What waits for its batch weighs so much."""
        return self._weight

    async def submit(self, item: T, weight: int = 1, *, own: bool = False) -> Any:
        """Queue *item* and wait for its answer.

        :param own: never turned away: of the service itself, which has few at one time.
        :raises TooManyRequests: too much waits already.
        :raises Unavailable: the thread was closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._changed:
            if self._closing:
                raise errors.Unavailable("the store is being closed", hint="Try again in a moment.")
            full = len(self._queue) >= self.limits.items or self._weight + weight > self.limits.weight
            if full and not own:
                self.figures.refused += 1
                raise errors.TooManyRequests("too many changes are waiting for the store", hint="Try again later.")
            mailbox = self._mailboxes.get(loop)
            if mailbox is None:
                mailbox = self._mailboxes[loop] = _Mailbox(loop)
            self._queue.append(Waiting(item, weight, Answer(mailbox, future), time.monotonic()))
            self._weight += weight
            self._changed.notify()
        return await future

    async def close(self) -> None:
        """Take nothing more, answer what waits, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        # Shielded: who stops waiting must not cancel the promise for another who closes.
        await asyncio.shield(asyncio.wrap_future(self._finished))
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            try:
                self._handle(batch)
                self._count(batch)
            except Exception:
                # The thread's edge: a bug must not leave everybody waiting for ever.
                self.figures.failures += 1
                log.exception("a batch of changes failed")
                answer_all(batch, errors.InternalError("the store failed; its log says why"))
        self._finished.set_result(None)

    def _count(self, batch: Sequence[Waiting[T]]) -> None:
        if isinstance(batch[0].answer.error, errors.Unavailable):
            self.figures.failures += 1
        else:
            self.figures.done(batch)

    def _next(self) -> list[Waiting[T]]:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) or self._closing)
            batch: list[Waiting[T]] = []
            weight = 0
            while self._queue and len(batch) < self.limits.batch_items:
                if batch and weight + self._queue[0].weight > self.limits.batch_weight:
                    break
                waiting = self._queue.popleft()
                weight += waiting.weight
                # Whoever went away before his turn gets nothing done.
                if waiting.answer.wanted():
                    batch.append(waiting)
                self._weight -= waiting.weight
                if not batch and not self._queue and not self._closing:
                    self._changed.wait_for(lambda: bool(self._queue) or self._closing)
            return batch


def answer_all(batch: Sequence[Waiting[T]], error: errors.GpuPlatformError) -> None:
    """Answer all that have no answer yet with an error of their own: one exception raised twice mixes its traces."""
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(type(error)(error.message, hint=error.hint))
