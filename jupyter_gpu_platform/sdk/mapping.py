"""The calls of one ``fn.map``: their values in the order of the arguments, their progress as they end."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import queue
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, cast

from .. import errors
from ..model.jobs import Job as Known
from ..notebook.handle import Job, JobList

if TYPE_CHECKING:
    from ..client import Client

R = TypeVar("R")
OnInterrupt = Literal["cancel", "detach"]

#: Cancels that are under way at a time: the service commits them together, and answers each after that.
_AT_ONCE = 32


class Calls(Generic[R]):
    """The jobs of one map, submitted. Iterate for the values, with ``for`` or ``async for``; ``.jobs`` has the jobs."""

    def __init__(
        self,
        connect: Callable[[], Client],
        found: Sequence[Job[R]],
        *,
        name: str,
        return_exceptions: bool,
        progress: bool,
        on_interrupt: OnInterrupt,
    ) -> None:
        self._connect = connect
        self._jobs = list(found)
        self._futures: list[Future[Known]] = []
        self._name = name
        self._return_exceptions = return_exceptions
        self._progress = progress
        self._on_interrupt = on_interrupt

    @property
    def jobs(self) -> JobList:
        """The jobs, in the order of the arguments."""
        return JobList(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[R]:
        """Yield the calls' values in order.

        :raises BaseException: what a call raised, in its place; see ``return_exceptions``.
        """
        news: queue.SimpleQueue[object] = queue.SimpleQueue()
        try:
            with self._bar() as bar:
                for job, future in zip(self._jobs, self._endings(news.put), strict=True):
                    while not (future.done() and news.empty()):
                        news.get()
                        bar.update()
                    yield self._value(job, future.result())
        except BaseException:
            self._left()
            raise

    async def __aiter__(self) -> AsyncGenerator[R, None]:
        """Yield the calls' values in order, in a coroutine.

        :raises BaseException: what a call raised, in its place; see ``return_exceptions``.
        """
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[object] = asyncio.Queue()

        def tell(future: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(news.put_nowait, future)

        try:
            with self._bar() as bar:
                futures = await asyncio.to_thread(self._endings, tell)
                for job, future in zip(self._jobs, futures, strict=True):
                    while not (future.done() and news.empty()):
                        await news.get()
                        bar.update()
                    yield await asyncio.to_thread(self._value, job, future.result())
        except BaseException:
            await asyncio.to_thread(self._left)
            raise

    def _endings(self, tell: Callable[[object], None]) -> list[Future[Known]]:
        """:param tell: is called with each one that is done, in whatever thread sees it."""
        self._futures = self._connect().endings.of(job.id for job in self._jobs)
        for future in self._futures:
            future.add_done_callback(tell)
        return self._futures

    def _value(self, job: Job[R], ended: Known) -> R:
        outcome = job.outcome(ended)
        if self._return_exceptions and outcome.error is not None:
            return cast(R, outcome.error)
        return cast(R, outcome.given())

    def cancel(self) -> None:
        """End all calls that have not ended."""
        pairs = itertools.zip_longest(self._jobs, self._futures)
        left = [job for job, future in pairs if future is None or not future.done()]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="gpu-cancel") as pool:
            list(pool.map(_cancel, left))

    def _left(self) -> None:
        if self._on_interrupt == "cancel":
            self.cancel()

    def _bar(self) -> _Bar:
        return _Bar(len(self._jobs), self._name, shown=self._progress)

    def __repr__(self) -> str:
        return f"<{len(self)} calls of {self._name}>"


def _cancel(job: Job[Any]) -> None:
    with contextlib.suppress(errors.Conflict):  # it has ended meanwhile
        job.cancel()


class _Bar:
    """How many calls have ended: tqdm's bar where that is installed, else lines on stderr, one for each tenth."""

    def __init__(self, total: int, name: str, *, shown: bool) -> None:
        self._total, self._name, self._shown = total, name, shown and total > 0
        self._count = 0
        self._tqdm: Any = None

    def __enter__(self) -> Self:
        if self._shown:
            try:
                bar = importlib.import_module("tqdm.auto").tqdm
            except ImportError:
                return self
            self._tqdm = bar(total=self._total, desc=self._name)
        return self

    def __exit__(self, *_: object) -> None:
        if self._tqdm is not None:
            self._tqdm.close()

    def update(self) -> None:
        """Count one more."""
        self._count += 1
        if self._tqdm is not None:
            self._tqdm.update(1)
        elif self._shown and (self._count - 1) * 10 // self._total != self._count * 10 // self._total:
            sys.stderr.write(f"{self._name}: {self._count} of {self._total} ended\n")
