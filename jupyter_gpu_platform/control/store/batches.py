"""A thread that takes everything that waits and hands it on together: what group commit stands on."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

from ... import errors

log = logging.getLogger(__name__)

T = TypeVar("T")


class Waiting(NamedTuple, Generic[T]):
    """An item and the promise of its answer."""

    item: T
    weight: int
    answer: Future[Any]


class Limits(NamedTuple):
    #: of one batch
    batch_items: int
    batch_weight: int
    #: of all that waits; more is turned away
    items: int
    weight: int


class BatchThread(Generic[T]):
    """Collects items from any event loop and calls *handle* with batches of them, in order, on its own thread.

    While one batch is being handled the next one gathers, so batches grow with the load and nothing waits for a timer.

    :param handle: answers each of the items; what it raises becomes the answer of those it left without one.
    """

    def __init__(self, name: str, handle: Callable[[Sequence[Waiting[T]]], None], limits: Limits) -> None:
        self._handle = handle
        self._limits = limits
        self._queue: deque[Waiting[T]] = deque()
        self._weight = 0
        self._changed = threading.Condition()
        self._closing = False
        self._finished: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many items wait for their batch."""
        return len(self._queue)

    async def submit(self, item: T, weight: int = 1) -> Any:
        """Queue *item* and wait for its answer.

        :raises TooManyRequests: too much waits already.
        :raises Unavailable: the thread was closed.
        """
        waiting = Waiting[T](item, weight, Future())
        with self._changed:
            if self._closing:
                raise errors.Unavailable("the store is being closed", hint="Try again in a moment.")
            if len(self._queue) >= self._limits.items or self._weight + weight > self._limits.weight:
                raise errors.TooManyRequests("too many changes are waiting for the store", hint="Try again later.")
            self._queue.append(waiting)
            self._weight += weight
            self._changed.notify()
        return await asyncio.wrap_future(waiting.answer)

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
            except Exception:
                # The thread's edge: a bug must not leave everybody waiting for ever.
                log.exception("a batch of changes failed")
                answer_all(batch, errors.InternalError("the store failed; its log says why"))
        self._finished.set_result(None)

    def _next(self) -> list[Waiting[T]]:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) or self._closing)
            batch: list[Waiting[T]] = []
            weight = 0
            while self._queue and len(batch) < self._limits.batch_items:
                if batch and weight + self._queue[0].weight > self._limits.batch_weight:
                    break
                waiting = self._queue.popleft()
                weight += waiting.weight
                # Whoever went away before his turn gets nothing done.
                if waiting.answer.set_running_or_notify_cancel():
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
