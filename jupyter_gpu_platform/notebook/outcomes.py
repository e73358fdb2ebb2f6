"""What became of an ended job: the values that were kept, and the exception to raise for it.

Both come from the job's output log: the ``values`` record names an object, which is downloaded and unpickled only
from one's own jobs; the ``error`` record holds the far traceback. An exception is raised as what it was where it
could be kept, else as a `failures.FarError` with its name. Either way the traceback that is shown is the far one: in
IPython alone, in plain Python as the cause.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import errors
from ..model.jobs import MAX_OBJECT_BYTES, Function, Job, Phase
from . import failures, returning
from .returning import Returned

if TYPE_CHECKING:
    from ..client import Client

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ValueMissing(LookupError):
    """A value that was asked for was not kept, or can't be made here; the message says why."""


class FarTraceback(Exception):
    """The traceback of an exception raised in a job, as plain Python shows it: the exception's cause."""

    # Python shows where a class is from: the shorter, the better.
    __module__ = "jupyter_gpu_platform"

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class _Rendering:
    """Gives IPython the far traceback of an exception; a class, so that the exception can be pickled on."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def __call__(self) -> list[str]:
        return self.lines


@dataclass(slots=True)
class Outcome:
    """What an attempt left behind."""

    job: Job
    returned: Returned
    #: why its values are not loaded at all
    refusal: errors.GpuPlatformError | None = None
    #: what it ended with, where it ended badly
    error: BaseException | None = None

    def value(self, name: str) -> Any:
        """Return what was kept under *name*.

        :raises ValueMissing: nothing was, or it can't be made here.
        :raises Forbidden: it is another user's job.
        """
        if self.refusal is not None:
            raise self.refusal
        if name in self.returned.values:
            return self.returned.values[name]
        kept = ", ".join(self.returned.values) or "nothing"
        why = self.returned.missing.get(name, f"it was not asked for (--out {name}); there is: {kept}")
        raise ValueMissing(f"job {self.job.id} has no value {name}: {why}")

    def given(self) -> Any:
        """Return the result.

        :raises BaseException: what the job's code raised.
        :raises JobFailed: it ended badly in another way.
        :raises ValueMissing: it ended well, but its result was not kept or can't be made here.
        :raises Forbidden: it is another user's job.
        """
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.refusal is not None:
            raise self.refusal
        if self.returned.has_result:
            return self.returned.result
        is_function = isinstance(self.job.spec.source, Function)
        why = self.returned.missing.get("result" if is_function else "_", "nothing was kept" if is_function else "")
        if why:
            raise ValueMissing(f"job {self.job.id} ended well, but its result is not here: {why}")
        return None


def read(client: Client, job: Job, *, own: bool) -> Outcome:
    """Read what the ended *job* left behind.

    :param own: its owner is who asks, which the service is asked about otherwise; nobody else's pickles are loaded.
    """
    values, error = _newest(client.follow(job.id))
    outcome = Outcome(job, Returned())
    if values is not None:
        user = job.owner if own else client.status().user
        namespace = vars(sys.modules["__main__"])
        try:
            outcome.returned = returning.read(client, job, values, namespace, user=user, eager=MAX_OBJECT_BYTES)
        except errors.Forbidden as refusal:
            outcome.refusal = failures.readable(refusal)
    if job.phase is not Phase.SUCCEEDED:
        outcome.error = _exception(job, outcome.returned.exception, error)
    return outcome


def _newest(records: Iterable[dict[str, Any]]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the ``values`` and the ``error`` record of the last attempt."""
    attempt, values, error = 0, None, None
    for record in records:
        if record.get("attempt", 1) != attempt:
            attempt, values, error = record.get("attempt", 1), None, None
        match record.get("type"):
            case "values":
                values = record
            case "error":
                error = record
    return values, error


def _exception(job: Job, raised: BaseException | None, record: dict[str, Any] | None) -> BaseException:
    reason = job.reason
    if reason is not None and reason.code != "error":
        return failures.from_job(job)
    if record is None:
        # It was put out as text (an exception group, say): only its name and message are known.
        if reason is None or not reason.details.get("ename"):
            return failures.from_job(job)
        record = dict(reason.details)
    # KeyboardInterrupt and SystemExit of a job are no wish to end this program.
    error = raised if isinstance(raised, Exception) else failures.from_record(record, shown=False, interrupts=False)
    lines = [str(line) for line in record.get("traceback", ())]
    error.__cause__ = error.__cause__ or FarTraceback(_ANSI.sub("", "\n".join(lines)))
    error = failures.noted(error, job, "")
    error.__dict__["_render_traceback_"] = _Rendering([*lines, *error.__notes__[-1:]])
    return error
