"""A job in the user's hands: what ``%%gpu_run --detach`` returns."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from IPython.core.getipython import get_ipython

from .. import errors
from ..model.jobs import Job
from . import failures
from .following import Feed, watch
from .replay import Replay
from .waiting import describe

if TYPE_CHECKING:
    from ..client import Client, OutputPage

T = TypeVar("T")

#: A display of this type stands for a job: front ends that know it load the job's own output log into the cell.
MIME = "application/vnd.jupyter-gpu-platform.job+json"


class JobHandle:
    """A job to come back to.

    ``job.status()`` says how it is, ``job.wait()`` waits for its end, ``job.output()`` shows what it has put out so
    far as if it had run here, ``job.attach()`` goes on showing it until the end, ``job.logs()`` returns its text,
    ``job.cancel()`` ends it. A new kernel finds it again with ``%gpu attach ID``.
    """

    def __init__(self, connect: Callable[[], Client], job: Job) -> None:
        self._connect = connect
        self._job = job

    @property
    def id(self) -> str:
        return self._job.id

    def status(self) -> Job:
        """Return the job as it is now."""
        self._job = self._ask(lambda client: client.job(self.id))
        return self._job

    def wait(self, timeout: float | None = None) -> Job:
        """Wait until the job has ended and return it, whether it ended well or not.

        :param timeout: seconds; for ever when absent.
        :raises TimeoutError: it has not ended by then. It goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        pause, alarm = 0.05, threading.Event()
        while not (job := self.status()).phase.ended:
            left = pause if end is None else min(pause, end - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"job {self.id} is {job.phase} after {timeout:g} s; it goes on")
            alarm.wait(left)
            pause = min(pause * 1.5, 2.0)
        return job

    def output(self) -> None:
        """Show under this cell what the job has put out so far; an error of its code is shown, not raised."""
        replay = Replay(get_ipython())
        for record in self._records():
            replay.record(record)
        replay.release()
        replay.flush()

    def logs(self) -> str:
        """Return the text that the job has printed so far: stdout and stderr, results and errors, in their order."""
        return "".join(_text(record) for record in self._records())

    def cancel(self) -> Job:
        """End the job: politely, then by force after its grace period."""
        self._job = self._ask(lambda client: client.cancel(self.id))
        return self._job

    def attach(self) -> None:
        """Show the job's output from its beginning until it ends, and raise what it raised.

        Interrupting leaves the job running.
        """
        feed = Feed(self._connect, lambda client: client.job(self.id))
        self._job = watch(get_ipython(), feed, on_interrupt="detach")

    def _records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page = self._page("")
        while page.records:
            found += page.records
            page = self._page(page.cursor)
        return found

    def _page(self, after: str) -> OutputPage:
        return self._ask(lambda client: client.output(self.id, after=after))

    def _ask(self, question: Callable[[Client], T]) -> T:
        try:
            return question(self._connect())
        except errors.GpuPlatformError as error:
            raise failures.readable(error) from None

    def __repr__(self) -> str:
        return f"<{describe(self._job, time.time())}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        job = self._job
        come_back = f"%gpu attach {job.id}"
        return {
            MIME: {"format": 1, "job": job.id, "name": job.spec.name, "created": job.created},
            "text/html": (
                f"<div>Job <code>{html.escape(job.id)}</code> runs on its own. Come back with "
                f"<code>{html.escape(come_back)}</code>.</div>"
            ),
            "text/plain": f"Job {job.id} runs on its own. Come back with: {come_back}",
        }


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
