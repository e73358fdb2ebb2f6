"""A job in the user's hands: what the magics, ``gpu.run``, ``fn.submit`` and ``gpu.attach`` return.

Works in a notebook, where output shows as if the code had run there, and in plain Python, where it goes to the
terminal. Whoever waits, blocking or in a coroutine, waits for the same future (`client.ending`).
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from .. import errors
from ..client import describing
from ..model import jobs
from . import failures
from .tables import Table
from .waiting import describe

if TYPE_CHECKING:
    from ..client import Client
    from ..client.terminal import Terminal
    from .outcomes import Outcome

T = TypeVar("T")
R = TypeVar("R")

#: A display of this type stands for a job: front ends that know it load the job's own output log into the cell.
MIME = "application/vnd.jupyter-gpu-platform.job+json"


class Job(Generic[R]):
    """A job to come back to.

    ``job.status()`` says how it is, ``job.wait()`` waits for its end, ``job.result()`` also returns its value or
    raises what it raised; in a coroutine ``await job`` does. ``job.output()`` shows what it has put out so far as if
    it had run here, ``job.attach()`` goes on showing it until the end, ``job.logs()`` returns its text,
    ``job.cancel()`` ends it. ``gpu.attach(ID)`` or ``%gpu attach ID`` find it again from anywhere.

    Each method raises the `errors.GpuPlatformError` that the service raises, or `errors.Unavailable` when that can't
    be reached for 30 seconds; the job goes on.
    """

    def __init__(self, connect: Callable[[], Client], job: jobs.Job, *, own: bool = False) -> None:
        """:param own: it is known to belong to who asks, having been submitted here."""
        self._connect = connect
        self._job = job
        self._own = own
        self._read: Outcome | None = None

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def name(self) -> str:
        return self._job.spec.name

    @property
    def phase(self) -> jobs.Phase:
        """What the job does now; asks the service."""
        return self.status().phase

    def status(self) -> jobs.Job:
        """Return all that is known of the job now."""
        self._job = self._ask(lambda client: client.job(self.id))
        return self._job

    # --- waiting ---------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> jobs.Job:
        """Wait until the job has ended and return all that is known of it, whether it ended well or not.

        :param timeout: seconds; for ever when absent.
        :raises TimeoutError: it has not ended by then. It goes on.
        """
        try:
            return self._ended(self.ending().result(timeout))
        except TimeoutError:
            raise self._late(timeout) from None
        except errors.GpuPlatformError as error:
            raise failures.readable(error) from None

    def result(self, timeout: float | None = None) -> R:
        """Wait for the job and return its value: what the function returned, or a cell's last expression gave.

        A command has no value: then it returns None, where the command ended well.

        :param timeout: seconds; for ever when absent.
        :raises TimeoutError: it has not ended by then. It goes on.
        :raises BaseException: what the job's code raised: its own type where it could be kept and is known here, else
            a child of `FarError` with its name. The traceback shown is the job's.
        :raises JobFailed: it ended badly in another way.
        :raises ValueMissing: it ended well, but its value was not kept or can't be made here.
        :raises Forbidden: it is another user's job: loading a value runs code.
        """
        return cast(R, self.outcome(self.wait(timeout)).given())

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the job and return what :meth:`result` raises; None where it ended well.

        :param timeout: seconds; for ever when absent.
        :raises TimeoutError: it has not ended by then. It goes on.
        """
        return self.outcome(self.wait(timeout)).error

    def value(self, name: str, timeout: float | None = None) -> Any:
        """Wait for the job and return what it kept under *name* (``--out``).

        :param timeout: seconds; for ever when absent.
        :raises TimeoutError: it has not ended by then. It goes on.
        :raises ValueMissing: there is no such value; the message says why.
        """
        return self.outcome(self.wait(timeout)).value(name)

    async def aresult(self, timeout: float | None = None) -> R:
        """Do what :meth:`result` does, in a coroutine; ``await job`` is the same without a timeout."""
        import asyncio

        try:
            future = await asyncio.to_thread(self.ending)
            async with asyncio.timeout(timeout):
                job = self._ended(await asyncio.wrap_future(future))
        except TimeoutError:
            raise self._late(timeout) from None
        return cast(R, (await asyncio.to_thread(self.outcome, job)).given())

    def __await__(self) -> Generator[Any, None, R]:
        return self.aresult().__await__()

    def ending(self) -> Future[jobs.Job]:
        """Return what gives the job once it has ended, for those who wait for several."""
        (future,) = self._ask(lambda client: client.endings.of([self.id]))
        return future

    def outcome(self, job: jobs.Job) -> Outcome:
        """Return what the job, ended as *job* says, left behind; read once."""
        from . import outcomes

        if self._read is None or self._read.job.attempt != job.attempt:
            self._read = self._ask(lambda client: outcomes.read(client, job, own=self._own))
        return self._read

    def _ended(self, job: jobs.Job) -> jobs.Job:
        self._job = job
        return job

    def _late(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(f"job {self.id} has not ended after {timeout or 0:g} s; it goes on")

    # --- output ----------------------------------------------------------------------------------------------

    def output(self) -> None:
        """Show what the job has put out so far; an error of its code is shown, not raised."""
        shell = failures.current_shell()
        if shell is None:
            terminal = _terminal(self.id)
            for record in self._records():
                terminal.show(record)
            return
        from .replay import Replay

        replay = Replay(shell)
        for record in self._records():
            replay.record(record)
        replay.release()
        replay.flush()

    def logs(self) -> str:
        """Return the text that the job has printed so far: stdout and stderr, results and errors, in their order."""
        return "".join(_text(record) for record in self._records())

    def attach(self, *, on_interrupt: Literal["cancel", "detach"] = "detach") -> None:
        """Show the job's output from its beginning until it ends, and raise what it raised.

        :param on_interrupt: what Ctrl-C does: leave the job running, or interrupt and then cancel it.
        :raises BaseException: as :meth:`result`.
        :raises KeyboardInterrupt: the wait was interrupted.
        """
        shell = failures.current_shell()
        if shell is None:
            self._print(on_interrupt)
            return
        from .following import Feed, watch

        feed = Feed(self._connect, lambda client: client.job(self.id))
        try:
            self._job = watch(shell, feed, on_interrupt=on_interrupt)
        except failures.FarError as far:
            original = self.outcome(self.status()).error or far
            if far.shown:
                # It was replayed when it came: not a second time.
                original.__dict__["_render_traceback_"] = far._render_traceback_
            raise original.with_traceback(None) from original.__cause__

    def _print(self, on_interrupt: Literal["cancel", "detach"]) -> None:
        terminal, held = _terminal(self.id), None
        try:
            for record in self._connect().follow(self.id):
                if held is not None and record["type"] not in ("values", "exit"):
                    terminal.show(held)
                    held = None
                if record["type"] == "error":
                    # The last one becomes the exception that is raised, and Python shows that.
                    held = record
                else:
                    terminal.show(record)
        except KeyboardInterrupt:
            if on_interrupt == "cancel":
                self.cancel()
            raise
        if error := self.outcome(self.status()).error:
            raise error.with_traceback(None)
        if held is not None:
            terminal.show(held)

    def _records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page = self._ask(lambda client: client.output(self.id))
        while page.records:
            found += page.records
            cursor = page.cursor
            page = self._ask(lambda client: client.output(self.id, after=cursor))  # noqa: B023 - used at once
        return found

    # --- acting ----------------------------------------------------------------------------------------------

    def interrupt(self) -> jobs.Job:
        """Raise KeyboardInterrupt in the job's code, as Ctrl-C would.

        :raises Conflict: it runs no code now.
        """
        return self._ended(self._ask(lambda client: client.interrupt(self.id)))

    def cancel(self) -> jobs.Job:
        """End the job: politely, then by force after its grace period."""
        return self._ended(self._ask(lambda client: client.cancel(self.id)))

    def retry(self) -> jobs.Job:
        """Run the ended job again, as its next attempt.

        :raises Conflict: it has not ended.
        """
        return self._ended(self._ask(lambda client: client.retry(self.id)))

    def delete(self) -> None:
        """Delete the ended job, its output and its values.

        :raises Conflict: it has not ended.
        """
        self._ask(lambda client: client.delete(self.id))

    def _ask(self, question: Callable[[Client], T]) -> T:
        try:
            return question(self._connect())
        except errors.GpuPlatformError as error:
            raise failures.readable(error) from None

    # --- showing ---------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<{describe(self._job, time.time())}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        job = self._job
        in_shell = failures.current_shell() is not None
        if job.phase.ended:
            said = f"{describe(job, time.time())}. Its output:"
            how = f"%gpu output {job.id}" if in_shell else f"gpu.attach({job.id!r}).output()"
        else:
            said = f"Job {job.id} runs on its own. Come back with:"
            how = f"%gpu attach {job.id}" if in_shell else f"gpu.attach({job.id!r})"
        rich = html.escape(said).replace(job.id, f"<code>{job.id}</code>")
        return {
            MIME: {"format": 1, "job": job.id, "name": job.spec.name, "created": job.created},
            "text/html": f"<div>{rich} <code>{html.escape(how)}</code></div>",
            "text/plain": f"{said} {how}",
        }


class JobList(Sequence[Job[Any]]):
    """Some jobs, newest first; shows as a table."""

    def __init__(self, found: Sequence[Job[Any]]) -> None:
        self._jobs = list(found)

    def __len__(self) -> int:
        return len(self._jobs)

    @overload
    def __getitem__(self, index: int) -> Job[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> JobList: ...
    def __getitem__(self, index: int | slice) -> Job[Any] | JobList:
        return JobList(self._jobs[index]) if isinstance(index, slice) else self._jobs[index]

    @property
    def table(self) -> Table:
        now = time.time()
        return Table(describing.HEAD, [describing.row(job._job, now) for job in self._jobs], empty="no jobs")

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def _terminal(job_id: str) -> Terminal:
    from ..client.terminal import Terminal

    return Terminal(job=job_id)


def _text(record: dict[str, Any]) -> str:
    match record.get("type"):
        case "stream":
            return str(record["text"])
        case "result" | "display":
            plain = str((record.get("data") or {}).get("text/plain", ""))
            return plain + "\n" if plain else ""
        case "error":
            return "\n".join(record.get("traceback", ())) + "\n"
        case "gap":
            return f"[output is missing here: {record.get('message', '')}]\n"
        case _:
            return ""
