"""How a failure looks under the cell.

What the job's code raised shows as its own traceback, alone: none of our frames around it. A job that ended badly
without raising (killed, out of time, never started) and an error of the platform itself show as one readable block.
IPython asks an exception for ``_render_traceback_`` before it formats one itself; all of this rests on that.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .. import errors
from ..model.jobs import Job, Phase

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


def current_shell() -> Any:
    """Return the IPython shell that this program is; None in plain Python, which needs no IPython for that."""
    module = sys.modules.get("IPython.core.getipython")
    return module.get_ipython() if module else None


class _Rendered(BaseException):
    """An exception that brings the text of its traceback along."""

    def __init__(self, message: str = "", *, lines: Sequence[str] = (), shown: bool = False) -> None:
        super().__init__(message)
        self.lines = list(lines)
        self.shown = shown

    def _render_traceback_(self) -> list[str]:
        if self.shown:
            # Only this once: `%tb` later shows it like any other.
            self.shown = False
            _skip_one_traceback(current_shell())
        return self.lines


class FarError(_Rendered, Exception):
    """What a job's code raised; the class that is raised is a child of this with the far class's name."""


class FarInterrupt(_Rendered, KeyboardInterrupt):
    """The wait for a job, or its code, was interrupted."""


class JobFailed(_Rendered, Exception):
    """A job ended badly, and not by an exception of its code."""


def _skip_one_traceback(shell: Any) -> None:
    """Let *shell* not show the traceback that it is about to show: it was replayed when it came."""
    if shell is None:
        return
    before = shell.__dict__.get("_showtraceback")

    def skip(_etype: object, _value: object, lines: list[str]) -> None:
        if before is None:
            del shell.__dict__["_showtraceback"]
        else:
            shell.__dict__["_showtraceback"] = before
        # ipykernel takes the traceback of its reply from here.
        shell._last_traceback = lines

    shell.__dict__["_showtraceback"] = skip


def from_record(record: Mapping[str, Any], *, shown: bool, interrupts: bool = True) -> BaseException:
    """Make the exception that an error record tells of.

    :param shown: its traceback was replayed already.
    :param interrupts: a KeyboardInterrupt there is one here, too: under a cell that shows the job it is.
    """
    ename, evalue = str(record.get("ename") or "Exception"), str(record.get("evalue", ""))
    base = FarInterrupt if ename == "KeyboardInterrupt" and interrupts else FarError
    return _named(ename, base, evalue, lines=record.get("traceback", ()), shown=shown)


def _named(name: str, base: type[_Rendered], message: str, *, lines: Sequence[str], shown: bool = False) -> _Rendered:
    """Make an exception of a class that has another's name: the reply and the front end show that."""
    kind = type(name, (base,), {"__module__": base.__module__, "__doc__": base.__doc__})
    error: _Rendered = kind(message, lines=lines, shown=shown)
    return error


def noted(error: BaseException, job: Job, note: str) -> BaseException:
    """Note on *error* which job raised it; show *note* as well, if there is one."""
    error.add_note(f"in job {job.id}" + (f" on {job.cluster}" if job.cluster else ""))
    if note:
        error.add_note(note)
        if isinstance(error, _Rendered) and not error.shown:
            error.lines.append(f"{_RED}note{_PLAIN}: {note}")
        else:
            sys.stderr.write(f"note: {note}\n")
    return error


def from_job(job: Job) -> JobFailed:
    """Make the error of a job that ended badly without an error record."""
    said = job.reason.message if job.reason else "no reason is known"
    code = job.reason.code if job.reason else job.phase.value
    message = f"job {job.id} {_ENDED.get(job.phase, job.phase.value)}: {said}"
    return JobFailed(message, lines=_block("JobFailed", message, code, _hint(job, code)))


_ENDED = {Phase.FAILED: "failed", Phase.CANCELLED: "was cancelled"}

_HINTS = {
    "signal": "Its process was killed. Signal 9 is often the system out of memory, 11 a crash in native code.",
    "max_run_time": "Give it longer with --max-run-time, for example --max-run-time 2h.",
    "queue_time": "Ask for less, or for another cluster with --cluster.",
    "no_gpu": "Leave out --gpus to run without one.",
    "supervisor_killed": "The process that watches the job was killed; run the cell again.",
    "machine_restarted": "The machine was restarted while the job ran; run the cell again.",
    "start_failed": "See that the interpreter and the working directory exist where the job runs.",
}


def _hint(job: Job, code: str) -> str:
    return _HINTS.get(code, "" if job.phase is Phase.CANCELLED else f"`%gpu logs {job.id}` shows its output again.")


def interrupted(message: str) -> BaseException:
    """Make the KeyboardInterrupt that ends a cell whose wait was interrupted."""
    lines = [f"{_RED}KeyboardInterrupt{_PLAIN}: {message}"]
    return _named("KeyboardInterrupt", FarInterrupt, message, lines=lines)


def readable(error: errors.GpuPlatformError) -> errors.GpuPlatformError:
    """Give a platform error its form in a notebook: one block, without a stack of frames."""
    lines = _block(type(error).__name__, error.message, error.code, error.hint)
    error.__dict__["_render_traceback_"] = lambda: lines
    return error


def _block(title: str, message: str, code: str, hint: str) -> list[str]:
    lines = [f"{_RED}{title}{_PLAIN}: {message}", f"  code: {code}"]
    if hint:
        lines.append(f"  hint: {hint}")
    return lines
