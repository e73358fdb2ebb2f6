"""``@gpu.remote``: functions whose calls are jobs.

Blocking and awaited forms share everything: a call is packed and submitted by `packing`, its end is a future of
`client.ending`, and what it left is read by `notebook.outcomes`. The async forms run the short blocking steps in a
thread and await the future; nothing occupies a thread while a job runs.
"""

from __future__ import annotations

import asyncio
import functools
import operator
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from .. import errors
from ..client.current import current
from ..client.options import nearest
from ..client.specifying import Options
from ..notebook import failures
from ..notebook.handle import Job
from . import packing
from .mapping import Calls, OnInterrupt

P = ParamSpec("P")
R = TypeVar("R")


class RemoteFunction(Generic[P, R]):
    """A function whose calls run as jobs; `gpu.remote` makes it.

    ==================================  ===============================================================
    ``fn(x)``                           runs a job, shows its output here, returns its value
    ``fn.submit(x)``                    returns the `Job` at once; ``job.result()`` waits for the value
    ``fn.map(xs)``                      one job for each; iterate for the values in order
    ``fn.options(gpus=2)``              the same function, other options
    ``fn.local(x)``                     runs here, as if it were not remote
    ``await fn.acall(x)``               in a coroutine: the value
    ``await fn.asubmit(x)``             in a coroutine: the job; ``await job`` for its value
    ``async for value in fn.amap(xs)``  in a coroutine: the values in order
    ==================================  ===============================================================

    Inside a job it is the plain function, so it may call itself.
    """

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        functools.update_wrapper(self, function)
        #: the function itself
        self.local: Callable[P, R] = function
        self._options = options

    def options(self, **options: Unpack[Options]) -> RemoteFunction[P, R]:
        """Return the same function with some options changed.

        :raises InvalidRequest: there is no such option.
        """
        return RemoteFunction(self.local, {**self._options, **checked(options)})

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a job, show its output here as it comes, and return its value.

        Ctrl-C interrupts the job's code, and then cancels the job.

        :raises BaseException: what the function raised, as :meth:`Job.result` says.
        :raises InvalidRequest: the function or an argument can't be sent; the message names it.
        """
        job = self.submit(*args, **kwargs)
        job.attach(on_interrupt="cancel")
        return job.result()

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Submit a job and return it at once.

        :raises InvalidRequest: the function or an argument can't be sent; the message names it.
        """
        (job,) = self._submit([(args, kwargs)])
        return job

    def map(
        self,
        *arguments: Iterable[Any],
        return_exceptions: bool = False,
        progress: bool = True,
        on_interrupt: OnInterrupt = "cancel",
    ) -> Calls[R]:
        """Submit one job for each element of *arguments* (zipped, where there are several); iterate for the values.

        The values come in order; the jobs run as the clusters have room. On this machine each call takes one core
        unless it is given GPUs or ``cpus``, so that a thousand calls are not a thousand processes at once.

        :param return_exceptions: give exceptions like values; else the first one is raised in its place.
        :param progress: show how many have ended, while iterating: by tqdm where it is installed.
        :param on_interrupt: what becomes of calls that have not ended when the iteration ends early, by Ctrl-C,
            ``break`` or a call that failed: ``cancel`` them, or leave them (``detach``).
        :raises InvalidRequest: the function or an argument can't be sent; the message names it.
        """
        connection = current()
        options: Options = {**self._options}
        if connection.status.local and not options.get("gpus") and options.get("cpus") is None:
            options["cpus"] = 1
        calls: list[packing.Call] = [(args, {}) for args in zip(*arguments, strict=False)]
        jobs = RemoteFunction(self.local, options)._submit(calls)
        return Calls(
            connection.client,
            jobs,
            name=getattr(self.local, "__name__", "calls"),
            return_exceptions=return_exceptions,
            progress=progress,
            on_interrupt=on_interrupt,
        )

    async def acall(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a job and return its value, in a coroutine; its output is not shown here (``job.output()`` does)."""
        return await (await self.asubmit(*args, **kwargs))

    async def asubmit(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Do what :meth:`submit` does, in a coroutine."""
        return await asyncio.to_thread(self.submit, *args, **kwargs)

    async def amap(
        self,
        *arguments: Iterable[Any],
        return_exceptions: bool = False,
        progress: bool = True,
        on_interrupt: OnInterrupt = "cancel",
    ) -> AsyncIterator[R]:
        """Do what :meth:`map` does, in a coroutine: ``async for value in fn.amap(xs)``."""
        submit = functools.partial(self.map, return_exceptions=return_exceptions, progress=progress)
        calls = await asyncio.to_thread(submit, *arguments, on_interrupt=on_interrupt)
        values = aiter(calls)
        try:
            async for value in values:
                yield value
        finally:
            await values.aclose()

    def _submit(self, calls: list[packing.Call]) -> list[Job[R]]:
        connection = current()
        try:
            found = packing.submit(connection, self.local, calls, self._options)
        except errors.GpuPlatformError as error:
            raise failures.readable(error) from error.__cause__
        return [Job(connection.client, job, own=True) for job in found]

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method it takes its object along, like any function."""
        if instance is None:
            return self
        return RemoteFunction(types.MethodType(self.local, instance), self._options)

    def __reduce__(self) -> tuple[Any, ...]:
        # Its plain function: where the job runs this package may be missing, and a job must not wait for more jobs.
        return operator.getitem, ((self.local,), 0)

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"<remote function {getattr(self, '__qualname__', self.local)}{options}>"


@overload
def remote(function: Callable[P, Coroutine[Any, Any, R]], /) -> RemoteFunction[P, R]: ...
@overload
def remote(function: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def remote(**options: Unpack[Options]) -> _Decorator: ...
def remote(function: Callable[..., Any] | None = None, /, **options: Unpack[Options]) -> Any:
    """Make a function's calls run as jobs: ``@gpu.remote`` or ``@gpu.remote(gpus=1)``.

    The function and what it names go along with each call: globals of the notebook by value, modules by name. See
    `RemoteFunction` for what it can do then, `Options` for the options.

    :raises InvalidRequest: there is no such option, or what is decorated can't be called.
    """
    decorate = _Decorator(checked(options))
    return decorate if function is None else decorate(function)


class _Decorator:
    """``remote(gpus=1)``, to be called with the function."""

    def __init__(self, options: Options) -> None:
        self._options = options

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> RemoteFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> RemoteFunction[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        if isinstance(function, RemoteFunction):
            return function.options(**self._options)
        if not callable(function):
            raise errors.InvalidRequest(f"{function!r} is not a function", hint="A command: gpu.run('python train.py')")
        return RemoteFunction(function, self._options)


def checked(options: Mapping[str, Any]) -> Options:
    """Return *options*, all of which there are.

    :raises InvalidRequest: one is unknown; the hint names the nearest.
    """
    known = Options.__annotations__
    for name in options:
        if name not in known:
            hint = nearest(name, known) or f"There are: {', '.join(known)}"
            raise errors.InvalidRequest(f"there is no option {name}", hint=hint)
    return cast(Options, options)
