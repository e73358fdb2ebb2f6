"""Values on their way into a job and out of it: one file that holds several named values.

The same code packs and unpacks on both sides, so it needs Python 3.8 and its standard library alone. What a pickle
of plain data doesn't cover (functions and classes that a notebook defines) is cloudpickle's work, imported when used.

The file: ``JGPV1\\n``, length of the header (8 bytes, big endian), the header (JSON), zeros up to a multiple of 64,
the pickles one after the other, then the large arrays' bytes, each at a multiple of 64. Offsets in the header count
from where the first pickle begins.

All entries go through one pickler, so that what two names share is shared on the other side too. A notebook's
functions name their globals by a persistent id, which on the other side is the namespace there: a function still sees
what a later cell assigns. Arrays travel beside the pickles and are mapped, copy on write, when they are loaded.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib
import json
import linecache
import mmap
import os
import pickle
import re
import sys
import types
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple, Type, Union

from . import plain_data
from .describing import array_size, blame, size_of, size_text, summary, type_name

__all__ = ["CannotLoad", "CannotPack", "Packer", "Unpacked", "size_of", "size_text", "summary"]

MAGIC = b"JGPV1\n"
ALIGNMENT = 64
#: Buffers below this many bytes stay in the pickle: an entry of their own in the header would cost more.
SMALL_BUFFER = 16 * 1024
#: One earlier cell's source is sent for tracebacks if it has at most this many characters.
MAX_SOURCE = 1_000_000
MAX_HEADER = 64 * 2**20

Chunk = Union[bytes, memoryview]


class CannotPack(Exception):
    """*name* can't be sent: *why*, and what to do about it (*hint*). ``code``: not_picklable | too_large."""

    def __init__(self, name: str, code: str, why: str, hint: str) -> None:
        super().__init__(why, hint)
        self.name, self.code, self.why, self.hint = name, code, why, hint

    def __str__(self) -> str:
        return "%s\n%s" % (self.why, self.hint)


class CannotLoad(Exception):
    """*name* can't be made here: *why*, and what to do (*hint*). ``code``: values_failed | python_mismatch.

    ``loaded`` holds what came before it in the file, by name.
    """

    def __init__(self, name: str, why: str, hint: str, code: str = "values_failed") -> None:
        super().__init__(why, hint)
        self.name, self.why, self.hint, self.code = name, why, hint, code
        self.loaded: Dict[str, Any] = {}

    def __str__(self) -> str:
        return "%s\n%s" % (self.why, self.hint)


class _TooLarge(Exception):
    """The limit was passed while pickling."""


class _Sink:
    """Collects what a pickler writes, and stops it at the limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.chunks: List[bytes] = []
        self.pickled = 0
        self.buffers: List[memoryview] = []

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > self.limit:
            raise _TooLarge

    def write(self, data: Any) -> int:
        size = len(data)
        self._count(size)
        self.chunks.append(data if isinstance(data, bytes) else bytes(data))
        self.pickled += size
        return size

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Keep a large buffer beside the pickle; true: it is to stay inside."""
        try:
            raw = buffer.raw()
        except BufferError:
            return True
        if raw.nbytes < SMALL_BUFFER:
            return True
        self._count(raw.nbytes)
        self.buffers.append(raw)
        return False


# -- what pickles refer to; found on the other side by name, whatever this module is called there


def _make_cell() -> types.CellType:
    return types.CellType()


def _fill_cell(cell: types.CellType, contents: Tuple[Any]) -> None:
    cell.cell_contents = contents[0]


def _make_function(code: types.CodeType, namespace: Dict[str, Any], closure: Any) -> types.FunctionType:
    return types.FunctionType(code, namespace, None, None, closure)


def _fill_function(function: types.FunctionType, state: Tuple[Dict[str, Any], Dict[str, Any]]) -> None:
    attributes, slots = state
    function.__dict__.update(attributes)
    for name, value in slots.items():
        setattr(function, name, value)


_OURS = {f.__name__: f for f in (_make_cell, _fill_cell, _make_function, _fill_function)}
_SLOTS = ("__name__", "__qualname__", "__annotations__", "__kwdefaults__", "__defaults__", "__module__", "__doc__")


def names_in_code(code: types.CodeType) -> Set[str]:
    """Give the global names that *code* and the functions and classes inside it read."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    if "query" in code.co_names or "eval" in code.co_names:  # pandas: df.query("a > @n")
        texts = " ".join(text for text in code.co_consts if isinstance(text, str))
        found |= set(re.findall(r"@([^\W\d]\w*)", texts)).difference(code.co_varnames)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= names_in_code(constant)
    return found


def _all_names(code: types.CodeType) -> Set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _all_names(constant)
    return found


@functools.lru_cache(maxsize=None)
def _pickler_class() -> Type[Any]:
    import cloudpickle  # here: plain Python must be able to load this module

    class _Pickler(cloudpickle.Pickler):  # type: ignore[misc, unused-ignore]  # untyped in some releases
        """cloudpickle's, but the functions of one namespace share it, and closures share their cells."""

        def __init__(self, packer: Packer, sink: _Sink) -> None:
            super().__init__(sink, protocol=5, buffer_callback=sink.take)
            self._packer = packer

        def persistent_id(self, obj: Any) -> Optional[str]:
            return "namespace" if obj is self._packer.namespace else None

        def reducer_override(self, obj: Any) -> Any:
            kind = type(obj)
            if kind is types.CellType:
                try:
                    return _make_cell, (), (obj.cell_contents,), None, None, _fill_cell
                except ValueError:
                    return _make_cell, ()
            if kind is types.CodeType:
                self._packer.note_code(obj)
            elif kind is types.FunctionType and obj.__globals__ is self._packer.namespace:
                slots = {name: getattr(obj, name) for name in _SLOTS}
                arguments = (obj.__code__, obj.__globals__, obj.__closure__)
                return _make_function, arguments, (dict(obj.__dict__), slots), None, None, _fill_function
            reduced = super().reducer_override(obj)
            slotted = isinstance(obj, type) and "__slots__" in obj.__dict__ and not hasattr(obj, "_fields")
            if slotted and type(reduced) is tuple:  # named tuples see to their slots themselves
                # cloudpickle's skeleton has no slots, and instances of it have a __dict__ that ours lack.
                reduced[1][3]["__slots__"] = obj.__dict__["__slots__"]
            return reduced

    return _Pickler


class Packer:
    """Packs named values of *namespace* into one file of at most *limit* bytes.

    ``encoding``: ``pickle``, or ``json`` for plain data that any Python can read.
    """

    def __init__(self, namespace: Dict[str, Any], *, limit: int, encoding: str = "pickle") -> None:
        self.namespace = namespace
        self.limit = limit
        self.encoding = encoding
        self.entries: List[Dict[str, Any]] = []
        #: names of the namespace that functions and classes packed so far use
        self.needed: Set[str] = set()
        self._values: List[Any] = []
        #: submodules that packed code reaches as attributes of their packages
        self._imports: Set[str] = set()
        self._files: Set[str] = set()
        self._python_needed = False
        self._head: Optional[bytes] = None
        self._digest: Optional[str] = None
        self._start()

    def _start(self) -> None:
        self._sink = _Sink(self.limit)
        self._pickler = self._new_pickler(self._sink) if self.encoding == "pickle" else None

    def _new_pickler(self, sink: _Sink) -> Any:
        try:
            return _pickler_class()(self, sink)
        except ModuleNotFoundError as error:
            why = "%s can't be sent: %s has no module %s" % ("values", sys.executable, error.name)
            raise CannotPack("", "not_picklable", why, "Install it (pip install cloudpickle).") from None

    def _dump(self, value: Any) -> None:
        if self._pickler is None:
            self._sink.write(plain_data.encode(value))
        else:
            self._pickler.dump(value)

    def add(self, name: str, value: Any, kind: str = "in") -> Dict[str, Any]:
        """Pack *value*; gives its entry of the header.

        :raises CannotPack: it can't be pickled, or the file would become larger than the limit. What was packed
            before stays.
        """
        self._head = self._digest = None
        before, offset = self._sink.size, self._sink.pickled
        noted = set(self.needed), set(self._imports), set(self._files), self._python_needed
        try:
            if (array_size(value) or 0) > self.limit:
                raise _TooLarge
            self._dump(value)
        except Exception as error:  # pickling runs any class's own code
            self.needed, self._imports, self._files, self._python_needed = noted
            self._again()
            raise self._explain(name, value, error) from error
        entry = {
            "name": name,
            "kind": kind,
            "type": type_name(value),
            "summary": summary(value),
            "size": self._sink.size - before,
            "offset": offset,
            "length": self._sink.pickled - offset,
        }
        self.entries.append(entry)
        self._values.append(value)
        return entry

    def _again(self) -> None:
        """Pack the kept values anew: a pickler that failed remembers objects that it never wrote."""
        self._start()
        for entry, value in zip(self.entries, self._values):
            before, offset = self._sink.size, self._sink.pickled
            self._dump(value)
            entry.update(size=self._sink.size - before, offset=offset, length=self._sink.pickled - offset)

    def _explain(self, name: str, value: Any, error: Exception) -> CannotPack:
        if isinstance(error, _TooLarge):
            return self._too_large(name, value)
        if isinstance(error, plain_data.NotPlain):
            why = "`%s` can't be sent as plain data: %s" % (name, error.describe(name))
            return CannotPack(name, "not_picklable", why, error.hint)
        where, why, hint = blame(name, value, error, self._picklable)
        subject = "`%s`" % name if where == name else "`%s` (in `%s`)" % (name, where)
        return CannotPack(name, "not_picklable", "%s can't be sent: %s" % (subject, why), hint)

    def _too_large(self, name: str, value: Any) -> CannotPack:
        limit, size = size_text(self.limit), size_of(value)
        hint = "Leave it out with --in, keep it in a file, or raise the limit with --capture-limit."
        if size > self.limit:
            why = "`%s` is %s (limit %s)" % (name, size_text(size), limit)
        elif not self._sink.size:
            why = "`%s` is larger than the limit of %s" % (name, limit)
        else:
            largest = max(self.entries, key=lambda entry: int(entry["size"]))
            why = "`%s` and what else is sent are together larger than the limit of %s; `%s` alone is %s" % (
                name,
                limit,
                largest["name"],
                size_text(largest["size"]),
            )
        return CannotPack(name, "too_large", why, hint)

    def _picklable(self, value: Any) -> Optional[Exception]:
        """Try a part of a value that failed: what is wrong with it, if anything."""
        try:
            self._new_pickler(_Sink(self.limit)).dump(value)
        except _TooLarge:
            return None
        except Exception as error:  # noqa: BLE001 - pickling runs any class's own code
            return error
        return None

    @property
    def python_needed(self) -> bool:
        """Whether only the same minor version of Python can load the file: functions and classes are bytecode."""
        return self._python_needed

    def note_code(self, code: types.CodeType, *, sent: bool = True) -> None:
        """Remember what *code* uses of the namespace, and its source; *sent*: it is in the file itself."""
        names = _all_names(code)
        if sent:
            self.needed |= {name for name in names_in_code(code) if name in self.namespace}
            self._python_needed = True
            self._files.add(code.co_filename)
        for name in names:
            value = self.namespace.get(name)
            if isinstance(value, types.ModuleType):
                self._note_submodules(value.__name__, names)

    def _note_submodules(self, package: str, names: Set[str]) -> None:
        prefix = package + "."
        for module in list(sys.modules):
            if module.startswith(prefix) and names.issuperset(module[len(prefix) :].split(".")):
                self._imports.add(module)

    # -- the file

    def _header(self) -> Dict[str, Any]:
        buffers, at = [], _aligned(self._sink.pickled)
        for buffer in self._sink.buffers:
            buffers.append([at, buffer.nbytes])
            at = _aligned(at + buffer.nbytes)
        return {
            "encoding": self.encoding,
            "python": list(sys.version_info[:2]),
            "python_needed": self._python_needed,
            "entries": self.entries,
            "buffers": buffers,
            "imports": sorted(self._imports),
            "sources": dict(_sources(self._files)),
            "cells": _cells(self._files),
            "path": _own_path(),
        }

    def _begin(self) -> bytes:
        if self._head is None:
            header = json.dumps(self._header()).encode()
            head = MAGIC + len(header).to_bytes(8, "big") + header
            self._head = head + bytes(_aligned(len(head)) - len(head))
        return self._head

    def chunks(self) -> Iterator[Chunk]:
        """Give the file's bytes, without a copy of the arrays."""
        yield self._begin()
        yield from self._sink.chunks
        at = self._sink.pickled
        for buffer in self._sink.buffers:
            yield bytes(_aligned(at) - at)
            yield buffer
            at = _aligned(at) + buffer.nbytes

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(memoryview(chunk).nbytes for chunk in self.chunks())

    def digest(self) -> str:
        """Give the file's SHA-256 in hexadecimal."""
        if self._digest is None:
            sha = hashlib.sha256()
            for chunk in self.chunks():
                sha.update(chunk)
            self._digest = sha.hexdigest()
        return self._digest

    def write(self, path: Union[str, os.PathLike[str]]) -> None:
        """Write the file."""
        with open(path, "wb") as file:
            file.writelines(self.chunks())


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _sources(files: Iterable[str]) -> Iterator[Tuple[str, str]]:
    """Give the text of code that no file holds (cells), for tracebacks and `inspect.getsource` over there."""
    for name in files:
        lines = linecache.cache.get(name)
        if lines is not None and len(lines) == 4 and not os.path.exists(name):
            text = "".join(lines[2])
            if len(text) <= MAX_SOURCE:
                yield name, text


def _cells(files: Iterable[str]) -> Dict[str, int]:
    """Give the numbers of the notebook's cells behind *files*, by which tracebacks call them."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    numbers = getattr(getattr(shell, "compile", None), "_filename_map", {})
    return {name: numbers[name] for name in files if name in numbers}


def _own_path() -> List[str]:
    """Give the directories of `sys.path` with the user's own modules, not this interpreter's."""
    installed = tuple(os.path.join(p, "") for p in {sys.prefix, sys.base_prefix, sys.exec_prefix})
    found = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]
    return [
        entry
        for entry in dict.fromkeys(found)
        if os.path.isdir(entry)
        and not (entry + os.sep).startswith(installed)
        and "site-packages" not in entry
        and "dist-packages" not in entry
    ]


class Unpacked:
    """Reads a file that a :class:`Packer` wrote.

    Loading runs code that the pickles name: load only what the same user packed.

    :raises CannotLoad: it isn't such a file.
    """

    def __init__(self, path: Union[str, os.PathLike[str]], namespace: Dict[str, Any]) -> None:
        self._namespace = namespace
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size < len(MAGIC) + 8:
                raise self._broken()
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        size = int.from_bytes(self._map[len(MAGIC) : len(MAGIC) + 8], "big")
        end = len(MAGIC) + 8 + size
        if self._map[: len(MAGIC)] != MAGIC or size > MAX_HEADER or end > len(self._map):
            raise self._broken()
        self.header: Dict[str, Any] = json.loads(self._map[len(MAGIC) + 8 : end])
        self.entries: List[Dict[str, Any]] = self.header["entries"]
        self._body = _aligned(end)

    @staticmethod
    def _broken() -> CannotLoad:
        hint = "Both sides may have different versions of jupyter-gpu-platform: install the same one."
        return CannotLoad("", "The packed values can't be read: not a file of this format", hint)

    def add_path(self) -> None:
        """Let the packing side's own modules be found here, where their directories exist here too."""
        sys.path += [p for p in self.header["path"] if p not in sys.path and os.path.isdir(p)]

    def load(self) -> Dict[str, Any]:
        """Give all values by name; of two with one name (a result, an output) the first.

        :raises CannotLoad: one can't be made here; what came before it is in the error's ``loaded``.
        """
        return _by_name(self.load_entries())

    def load_entries(self) -> List[Tuple[Dict[str, Any], Any]]:
        """Give all values with their entries, in the order in which they were packed.

        :raises CannotLoad: as :meth:`load`.
        """
        self._check_python()
        for name, text in self.header["sources"].items():
            linecache.cache.setdefault(name, (len(text), None, text.splitlines(True), name))
        for module in self.header["imports"]:
            _import_quietly(module)
        read = self._reader()
        loaded: List[Tuple[Dict[str, Any], Any]] = []
        for entry in self.entries:
            try:
                loaded.append((entry, read(entry)))
            except Exception as error:  # loading runs any class's own code
                failure = _explain_load(entry["name"], error)
                failure.loaded = _by_name(loaded)
                raise failure from error
        return loaded

    def _check_python(self) -> None:
        packed, here = tuple(self.header["python"]), sys.version_info[:2]
        if self.header["python_needed"] and packed != here:
            names = "Python %d.%d" % packed, "Python %d.%d" % here
            why = "The values hold functions or classes of %s, this is %s" % names
            hint = "Use --image or --python with %s, or --source, which sends plain data only." % names[0]
            raise CannotLoad("", why, hint, "python_mismatch")

    def _reader(self) -> Callable[[Dict[str, Any]], Any]:
        if self.header["encoding"] == "json":
            return lambda entry: plain_data.decode(self._slice(entry["offset"], entry["length"]).tobytes())
        self._map.seek(self._body)
        buffers = [self._slice(offset, length) for offset, length in self.header["buffers"]]
        unpickler = _Unpickler(self._map, buffers, self._namespace)

        def next_one(_entry: Dict[str, Any]) -> Any:
            return unpickler.load()

        return next_one

    def _slice(self, offset: int, length: int) -> memoryview:
        start = self._body + offset
        if start + length > len(self._map):
            raise self._broken()
        return memoryview(self._map)[start : start + length]


class _Unpickler(pickle.Unpickler):
    """Stands the namespace in for the packing side's, and keeps classes that are already here as they are."""

    def __init__(self, file: mmap.mmap, buffers: Sequence[memoryview], namespace: Dict[str, Any]) -> None:
        super().__init__(file, buffers=buffers)
        self._namespace = namespace
        self._kept: Set[int] = set()

    def persistent_load(self, pid: Any) -> Any:
        if pid != "namespace":
            raise pickle.UnpicklingError("unknown persistent id %r" % (pid,))
        return self._namespace

    def find_class(self, module: str, name: str) -> Any:
        if name in _OURS and module.endswith(".values"):
            return _OURS[name]
        found = super().find_class(module, name)
        if module == "cloudpickle.cloudpickle":
            if name in ("_make_skeleton_class", "_make_skeleton_enum"):
                return functools.partial(self._make_class, found)
            if name == "_class_setstate":
                return functools.partial(self._fill_class, found)
        return found

    def _make_class(self, make: Callable[..., type], *arguments: Any) -> type:
        known: Dict[str, type] = sys.modules["cloudpickle.cloudpickle"]._DYNAMIC_CLASS_TRACKER_BY_ID
        here = known.get(arguments[-2])
        if here is None:
            return make(*arguments)
        self._kept.add(id(here))
        return here

    def _fill_class(self, fill: Callable[..., type], cls: type, state: Any) -> type:
        return cls if id(cls) in self._kept else fill(cls, state)


def _by_name(loaded: List[Tuple[Dict[str, Any], Any]]) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for entry, value in loaded:
        found.setdefault(entry["name"], value)
    return found


def _import_quietly(module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception:  # noqa: BLE001 - the code that needs it says so better, if it comes that far
        pass


def _explain_load(name: str, error: Exception) -> CannotLoad:
    missing = getattr(error, "name", None)
    if isinstance(error, ModuleNotFoundError) and missing:
        why = "`%s` can't be loaded: it needs the module %s, which %s doesn't have" % (name, missing, sys.executable)
        return CannotLoad(name, why, "Install it there (or take an image or interpreter that has it), or leave it out.")
    why = "`%s` can't be loaded: %s: %s" % (name, type(error).__name__, error)
    hint = "Both sides need the same versions of the packages that define it; or leave it out."
    return CannotLoad(name, why, hint)
