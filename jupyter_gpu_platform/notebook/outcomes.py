"""What became of an ended job: the values that were kept, and the exception to raise for it.

Both come from the job's output log: the ``values`` record names an object, which is downloaded and unpickled only
from one's own jobs; the ``error`` record holds the far traceback. An exception is raised as what it was where it
could be kept, else as a `failures.FarError` with its name. Either way the traceback that is shown is the far one: in
IPython alone, in plain Python as the cause.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model.jobs import Function, Job, Phase
from ..runner.values import CannotLoad, Unpacked
from . import failures

if TYPE_CHECKING:
    from ..client import Client

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NOT_OWN = "it is {owner}'s job, and values are loaded from your own jobs only, since loading runs code; see job.logs()"


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
    #: by name
    values: dict[str, Any] = field(default_factory=dict)
    #: of a function's return or a cell's last expression
    result: Any = None
    #: why values that were to be kept are not there, by name
    missing: dict[str, str] = field(default_factory=dict)
    #: why there is no result where there should be one
    no_result: str = ""
    error: BaseException | None = None

    def value(self, name: str) -> Any:
        """Return what was kept under *name*.

        :raises ValueMissing: nothing was, or it can't be made here.
        """
        if name in self.values:
            return self.values[name]
        why = self.missing.get(name) or self.missing.get("")
        if why is None:
            kept = ", ".join(self.values) or "nothing"
            why = f"it was not asked for (--out {name}); kept were: {kept}"
        raise ValueMissing(f"job {self.job.id} has no value {name}: {why}")

    def given(self) -> Any:
        """Return the result.

        :raises BaseException: what the job's code raised.
        :raises JobFailed: it ended badly in another way.
        :raises ValueMissing: it ended well, but its result was not kept or can't be made here.
        """
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.no_result:
            raise ValueMissing(f"job {self.job.id} ended well, but its result is not here: {self.no_result}")
        return self.result


def read(client: Client, job: Job, *, own: bool) -> Outcome:
    """Read what the ended *job* left behind.

    :param own: its owner is who asks; nobody else's pickles are loaded.
    """
    values, error = _newest(client.follow(job.id))
    outcome = Outcome(job)
    raised = _load(client, outcome, values, own=own) if values else None
    if job.phase is not Phase.SUCCEEDED:
        outcome.error = _exception(job, raised, error)
    elif isinstance(job.spec.source, Function) and not values:
        outcome.no_result = "its record is missing"
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


def _load(client: Client, outcome: Outcome, record: dict[str, Any], *, own: bool) -> BaseException | None:
    """Put the kept values into *outcome*; return the exception among them."""
    entries = {entry["name"]: entry for entry in record.get("entries") or ()}
    loaded: list[tuple[dict[str, Any], Any]] = []
    failed = {each["name"]: each["message"] for each in record.get("failed") or ()}
    if entries and record.get("object"):
        if own:
            try:
                loaded = download(client, record["object"]["digest"])
            except CannotLoad as error:
                loaded = [(entries[name], value) for name, value in error.loaded.items()]
                failed |= {name: str(error) for name in entries if name not in error.loaded}
        else:
            failed |= dict.fromkeys(entries, _NOT_OWN.format(owner=outcome.job.owner))
    by_kind = {entry["kind"]: value for entry, value in loaded}
    outcome.values = {entry["name"]: value for entry, value in loaded if entry["kind"] == "out"}
    outcome.result = by_kind.get("result")
    outcome.missing = failed
    if isinstance(outcome.job.spec.source, Function) and "result" not in by_kind:
        outcome.no_result = "; ".join(failed.values()) or "it was not kept"
    raised = by_kind.get("exception")
    return raised if isinstance(raised, BaseException) else None


def download(client: Client, digest: str) -> list[tuple[dict[str, Any], Any]]:
    """Fetch an object of one's own and load the values in it, with their entries, for the user's namespace.

    :raises CannotLoad: they can't be made here.
    """
    with tempfile.TemporaryDirectory(prefix="jupyter-gpu-") as folder:
        path = Path(folder) / digest
        client.get_object(digest, path)
        # What is large stays mapped; the file itself isn't needed any more.
        return Unpacked(path, vars(sys.modules["__main__"])).load_entries()


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
    error = raised if isinstance(raised, Exception) else failures.from_record(record, shown=False)
    lines = [str(line) for line in record.get("traceback", ())]
    note = f"in job {job.id}" + (f" on {job.cluster}" if job.cluster else "")
    error.__cause__ = error.__cause__ or FarTraceback(_ANSI.sub("", "\n".join(lines)))
    error.__dict__["_render_traceback_"] = _Rendering([*lines, note])
    error.add_note(note)
    return error
