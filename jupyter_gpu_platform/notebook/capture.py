"""What a cell takes along: the names it needs, what their functions need in turn, measured before anything is packed.

`names` says what the code reads; here those names are looked up, checked against the limit, and packed by
`runner.values`. Every refusal names the variable and what to do.
"""

from __future__ import annotations

import builtins
import difflib
import re
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import errors
from ..model.jobs import ObjectRef
from ..runner.describing import array_size, size_of, size_text
from ..runner.values import CannotPack, Packer
from .names import Names, needed

DEFAULT_LIMIT = 512 * 2**20
#: What is only perhaps needed is sent up to so many bytes (1 MiB), and left out where it is larger.
UNCERTAIN_LIMIT = 2**20

#: Names of the shell and of every module; they exist on the other side too, or mean nothing there.
_HIDDEN = frozenset(
    ("In", "Out", "_oh", "_ih", "_dh", "_i", "_ii", "_iii", "exit", "quit", "get_ipython", "open", "display")
).union(("__name__", "__doc__", "__package__", "__loader__", "__spec__", "__builtin__", "__builtins__", "__session__"))
#: Earlier results. They are sent if the code itself reads them, and only perhaps meant even then.
_RESULTS = re.compile(r"^(_{1,3}|_\d+|Out)$")


@dataclass
class Capture:
    """What goes along with one cell."""

    names: Names
    #: None where nothing goes along
    packer: Packer | None = None
    #: names that the cell reads and that exist nowhere: it will fail, unless it makes them in a way not seen here
    missing: tuple[str, ...] = ()
    #: names that were not sent although the cell may need them, with the reason
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def entries(self) -> Sequence[Mapping[str, Any]]:
        """What goes along: name, kind, type, summary, size (bytes) of each."""
        return () if self.packer is None else self.packer.entries

    @property
    def sent(self) -> tuple[str, ...]:
        return tuple(str(entry["name"]) for entry in self.entries)

    @property
    def python_needed(self) -> bool:
        """Whether the job needs this very minor version of Python."""
        return self.packer is not None and self.packer.python_needed

    @property
    def ref(self) -> ObjectRef | None:
        """The object to upload before the job is submitted."""
        if self.packer is None:
            return None
        return ObjectRef(digest=self.packer.digest(), size=self.packer.size)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Give the object's bytes."""
        return iter(()) if self.packer is None else self.packer.chunks()

    def lines(self) -> list[str]:
        """Describe what goes along, modules aside, a line for each, the largest first."""
        shown = [entry for entry in self.entries if entry["type"] != "module"]
        shown.sort(key=lambda entry: -int(entry["size"]))
        return [describe(entry) for entry in shown]


def describe(entry: Mapping[str, Any]) -> str:
    """Give one line about a value: ``df: pandas.DataFrame, 1,000 rows × 3 columns, 24 KiB``."""
    parts = (entry["type"], entry["summary"], size_text(int(entry["size"])))
    return f"{entry['name']}: {', '.join(part for part in parts if part)}"


def capture(
    namespace: dict[str, Any],
    code: str,
    *,
    only: Sequence[str] | None = None,
    extra: Sequence[str] = (),
    limit: int = DEFAULT_LIMIT,
    encoding: str = "pickle",
    hidden: Collection[str] = (),
) -> Capture:
    """Pack what the cell *code* needs of *namespace*.

    :param only: send exactly these names, none of them for ``()``; by default those that the code needs.
    :param extra: names to send as well.
    :param limit: bytes.
    :param encoding: ``pickle``, or ``json`` for plain data only.
    :param hidden: more names of the shell's own; a mapping hides a name while it has that very value.
    :raises InvalidRequest: *only* or *extra* has a name that doesn't exist here.
    :raises CaptureTooLarge: it is more than *limit*.
    :raises NotPicklable: a value can't be sent.
    """
    names = needed(code)
    _check_exist(namespace, (*(only or ()), *extra))
    own = _Own(namespace, hidden)
    if only is None:
        wanted, uncertain = own.of(names.reads), own.of(names.uncertain)
    else:
        wanted, uncertain = list(only), []
    wanted += [name for name in extra if name not in wanted]
    results = [name for name in wanted if _RESULTS.match(name) and name not in (*(only or ()), *extra)]
    wanted = [name for name in wanted if name not in results]

    gathering = _Gathering(namespace, limit, encoding)
    gathering.check_sizes(wanted)
    for name in wanted:
        gathering.add(name)
    if only is None:
        gathering.add_needed(own.of, overwritten=names.writes)
    for name in (*results, *uncertain):
        gathering.try_to_add(name)
    if only is None:
        gathering.add_needed(own.of, overwritten=names.writes, sure=False)
    packer = gathering.packer
    if names.code is not None and packer.entries:
        packer.note_code(names.code, sent=False)
    missing = tuple(name for name in names.reads if name not in namespace and not hasattr(builtins, name))
    return Capture(names, packer if packer.entries else None, missing, gathering.left_out)


class _Own:
    """Tells the user's names from the shell's."""

    def __init__(self, namespace: Mapping[str, Any], hidden: Collection[str]) -> None:
        self._namespace = namespace
        self._hidden = hidden

    def of(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._is_own(name)]

    def _is_own(self, name: str) -> bool:
        if name not in self._namespace:
            return False
        if _RESULTS.match(name):
            value = self._namespace[name]
            return not (isinstance(value, str) and not value)  # an empty text: there is no such result yet
        if name in ("open", "display") and not self._is_shells(name):
            return True
        return name not in _HIDDEN and not re.match(r"^_i\d+$", name) and not self._is_shells(name)

    def _is_shells(self, name: str) -> bool:
        if name not in self._hidden:
            return False
        return not isinstance(self._hidden, Mapping) or self._hidden[name] is self._namespace[name]


class _Gathering:
    def __init__(self, namespace: dict[str, Any], limit: int, encoding: str) -> None:
        self._namespace = namespace
        self._limit = limit
        self.left_out: dict[str, str] = {}
        self._done: set[str] = set()
        try:
            self.packer = Packer(namespace, limit=limit, encoding=encoding)
        except CannotPack as error:
            raise errors.NotPicklable(error.why, hint=error.hint) from error

    def check_sizes(self, names: Sequence[str]) -> None:
        """Refuse by the sizes of arrays and tables alone, before anything is copied."""
        values = {id(self._namespace[name]): name for name in reversed(names)}
        sizes = {name: array_size(self._namespace[name]) or 0 for name in values.values()}
        if sum(sizes.values()) <= self._limit:
            return
        largest = sorted(sizes, key=lambda name: -sizes[name])
        if sizes[largest[0]] > self._limit:
            self._refuse_size(f"`{largest[0]}` is {size_text(sizes[largest[0]])} (limit {size_text(self._limit)})")
        listed = ", ".join(f"`{name}` ({size_text(sizes[name])})" for name in largest[:3] if sizes[name])
        total = size_text(sum(sizes.values()))
        self._refuse_size(f"What the cell needs is {total} (limit {size_text(self._limit)}), most of it {listed}")

    @staticmethod
    def _refuse_size(why: str) -> None:
        hint = "Leave it out with --in, keep it in a file, or raise the limit with --capture-limit."
        raise errors.CaptureTooLarge(why, hint=hint)

    def add(self, name: str) -> None:
        if name in self._done:
            return
        self._done.add(name)
        try:
            self.packer.add(name, self._namespace[name])
        except CannotPack as error:
            users = self._users(name)
            why = f"{error.why} ({', '.join(users)} needs it)" if users else error.why
            kind = errors.CaptureTooLarge if error.code == "too_large" else errors.NotPicklable
            raise kind(why, hint=error.hint) from error

    def try_to_add(self, name: str) -> None:
        """Add what is only perhaps needed, unless that is expensive or impossible."""
        if name in self._done:
            return
        self._done.add(name)
        value = self._namespace[name]
        size = size_of(value)
        if size > UNCERTAIN_LIMIT:
            self.left_out[name] = f"it is {size_text(size)} and only perhaps needed"
            return
        try:
            self.packer.add(name, value)
        except CannotPack as error:
            self.left_out[name] = error.why

    def add_needed(
        self, own: Callable[[Iterable[str]], list[str]], *, overwritten: Collection[str], sure: bool = True
    ) -> None:
        """Add what packed functions and classes use, and what that uses in turn.

        :param overwritten: names that the cell assigns itself: what they are here may not be needed.
        """
        while wanted := [name for name in own(sorted(self.packer.needed)) if name not in self._done]:
            for name in wanted:
                if sure and name not in overwritten:
                    self.add(name)
                else:
                    self.try_to_add(name)

    def _users(self, name: str) -> list[str]:
        """Name the functions and classes packed so far that use *name*."""
        users = []
        for entry in self.packer.entries:
            value = self._namespace[entry["name"]]
            if isinstance(value, (type, types.FunctionType)):
                alone = Packer(self._namespace, limit=self._limit, encoding=self.packer.encoding)
                alone.add(entry["name"], value)
                users += [f"`{entry['name']}`"] if name in alone.needed else []
        return users


def _check_exist(namespace: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if name not in namespace:
            near = difflib.get_close_matches(name, [n for n in namespace if not n.startswith("_")], n=1)
            hint = f"Did you mean `{near[0]}`?" if near else "Run the cell that assigns it, or leave it out of --in."
            raise errors.InvalidRequest(f"--in: there is no `{name}` in this notebook", hint=hint)
