"""What a job kept comes back: names into the notebook, a result, an exception; large ones when they are asked for.

Loading runs code that the values name. So they are loaded from a job of one's own only, whoever may read its output.
"""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .. import errors
from ..model.jobs import Job
from ..runner.describing import size_text
from ..runner.values import CannotLoad, Unpacked

#: Values of up to so many bytes (64 MiB) are loaded at once; larger ones come as a :class:`LazyValue`.
DEFAULT_EAGER = 64 * 2**20

_FAILED = {
    "not_assigned": "`{name}` was not brought back: the cell never assigned it",
    "deleted": "`{name}` was not brought back: the cell deleted it",
}


class Downloads(Protocol):
    """The part of the client that is needed here."""

    def get_object(self, digest: str, path: Path) -> Any: ...


class LazyValue:
    """A large value that stays where it is until it is asked for.

    ``value.get()`` downloads and loads it, once. Sent into a job, it goes as its value.
    """

    def __init__(self, entry: Mapping[str, Any], load: Callable[[], Mapping[str, Any]]) -> None:
        self._entry = entry
        self._load = load

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self._entry["size"])

    def get(self) -> Any:
        """Give the value.

        :raises NotFound: the job was deleted, and its values with it.
        :raises InvalidRequest: it can't be loaded here; the message says why.
        """
        return self._load()[self._entry["name"]]

    def __repr__(self) -> str:
        entry = self._entry
        about = ", ".join(part for part in (entry["type"], entry["summary"], size_text(self.size)) if part)
        return f"<{entry['name']}: {about}; not loaded yet: {entry['name']}.get()>"

    def __reduce__(self) -> Any:
        # By a function that every Python has: a job doesn't have this class.
        return operator.itemgetter(0), ((self.get(),),)


@dataclass
class Returned:
    """What came back of one job."""

    #: what was asked for, by name
    values: dict[str, Any] = field(default_factory=dict)
    #: the last expression's value or the function's return, if ``has_result``
    result: Any = None
    has_result: bool = False
    #: what a function raised
    exception: BaseException | None = None
    #: what didn't come back and why, a sentence each
    warnings: list[str] = field(default_factory=list)
    #: why, by name
    missing: dict[str, str] = field(default_factory=dict)


def take(
    client: Downloads,
    job: Job,
    record: Mapping[str, Any],
    namespace: dict[str, Any],
    *,
    user: str,
    eager: int = DEFAULT_EAGER,
) -> Returned:
    """Put the values of *job* that were asked for into *namespace*; else as :func:`read`."""
    returned = read(client, job, record, namespace, user=user, eager=eager)
    namespace.update(returned.values)
    return returned


def read(
    client: Downloads,
    job: Job,
    record: Mapping[str, Any],
    namespace: dict[str, Any],
    *,
    user: str,
    eager: int = DEFAULT_EAGER,
) -> Returned:
    """Load what *job* kept.

    :param record: the job's ``values`` record.
    :param namespace: the globals of functions among the values.
    :param user: who asks, as the service calls them.
    :param eager: bytes up to which values are loaded at once.
    :raises Forbidden: it is another user's job.
    """
    missing = {failed["name"]: _why_not(failed) for failed in record.get("failed", ())}
    # A last result that stayed there (a widget, a figure) is no news: it was shown, as it is in a kernel.
    told = [missing[failed["name"]] for failed in record.get("failed", ()) if failed.get("kind") != "result"]
    returned = Returned(warnings=told, missing=missing)
    entries, kept = record.get("entries") or [], record.get("object")
    if not kept or not entries:
        return returned
    if job.owner != user:
        raise errors.Forbidden(
            f"Job {job.id} belongs to {job.owner}: its values are not loaded here, since loading runs their code",
            hint="Its output can be read: %gpu attach " + job.id,
        )
    source = _Source(client, kept["digest"], namespace)
    if kept["size"] <= eager:
        try:
            found: Mapping[str, Any] = source.load()
        except CannotLoad as error:
            found = error.loaded
            returned.warnings.append(str(error))
            missing.update((entry["name"], str(error)) for entry in entries if entry["name"] not in found)
    else:
        found = {entry["name"]: LazyValue(entry, source.load_or_refuse) for entry in entries}
    _hand_out(returned, entries, found)
    return returned


def _hand_out(returned: Returned, entries: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> None:
    for entry in entries:
        name, kind = entry["name"], entry["kind"]
        if name not in found:
            continue
        if kind == "out":
            returned.values[name] = found[name]
        elif kind == "result":
            returned.result, returned.has_result = found[name], True
        elif isinstance(found[name], BaseException):
            returned.exception = found[name]


def _why_not(failed: Mapping[str, Any]) -> str:
    known = _FAILED.get(failed["code"])
    if known:
        return known.format(name=failed["name"])
    what = "The last result" if failed.get("kind") == "result" else f"`{failed['name']}`"
    return f"{what} was not brought back: {failed['message']}"


class _Source:
    """One job's object; all its values are loaded together, since they may share parts."""

    def __init__(self, client: Downloads, digest: str, namespace: dict[str, Any]) -> None:
        self._client = client
        self._digest = digest
        self._namespace = namespace
        self._loaded: dict[str, Any] | None = None

    def load(self) -> dict[str, Any]:
        """:raises CannotLoad: a value can't be made here."""
        if self._loaded is None:
            with tempfile.TemporaryDirectory(prefix="jupyter-gpu-") as folder:
                path = Path(folder) / self._digest
                self._client.get_object(self._digest, path)
                # The file stays mapped as long as an array lies in it, without its name.
                self._loaded = Unpacked(path, self._namespace).load()
        return self._loaded

    def load_or_refuse(self) -> dict[str, Any]:
        """:raises InvalidRequest: a value can't be made here."""
        try:
            return self.load()
        except CannotLoad as error:
            raise errors.InvalidRequest(error.why, hint=error.hint) from error
