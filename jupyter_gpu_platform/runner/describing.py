"""Words for values: their type, shape and size, and which part of one it is that can't be pickled."""

from __future__ import annotations

import itertools
import sys
import time
import types
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

#: How many items of a container are looked at; the rest is taken to be like them.
SAMPLE = 1000
#: Looking for the part that can't be pickled ends after this many seconds.
BLAME_SECONDS = 2.0

#: Types whose `nbytes` is what a pickle of them holds. Elsewhere (dask) it may be what they stand for.
_ARRAYS = {"numpy", "torch", "pandas", "cupy", "jax", "jaxlib", "pyarrow", "array"}


def size_text(size: float) -> str:
    """Give *size* (bytes) as people write it: ``3.1 GiB``."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return "%d %s" % (size, unit) if unit == "bytes" or size >= 100 else "%.3g %s" % (size, unit)
        size /= 1024
    return "%.1f GiB" % size


def type_name(value: Any) -> str:
    """Give the type's name with its module where that is not obvious: ``pandas.DataFrame``."""
    kind = type(value)
    module = (getattr(kind, "__module__", None) or "").split(".")[0]
    return kind.__qualname__ if module in ("builtins", "__main__", "") else "%s.%s" % (module, kind.__qualname__)


def _root(value: Any) -> str:
    return str(getattr(type(value), "__module__", None) or "").split(".")[0]


def array_size(value: Any) -> Optional[int]:
    """Give the bytes of an array or table; None for other values."""
    try:
        return _array_size(value)
    except Exception:  # noqa: BLE001 - a foreign type's own code; the pickle itself will tell
        return None


def _array_size(value: Any) -> Optional[int]:
    if _root(value) == "polars" and hasattr(value, "estimated_size"):
        return int(value.estimated_size())
    if _root(value) not in _ARRAYS:
        return None
    if hasattr(value, "memory_usage"):
        usage = value.memory_usage(deep=False)
        return int(usage.sum() if hasattr(usage, "sum") else usage)
    if hasattr(value, "element_size") and hasattr(value, "nelement"):
        return int(value.element_size() * value.nelement())
    nbytes = getattr(value, "nbytes", None)
    return nbytes if isinstance(nbytes, int) else None


def size_of(value: Any) -> int:
    """Estimate how many bytes a pickle of *value* has, quickly: a look at the first items, three levels deep."""
    return _size(value, 3, set())


def _size(value: Any, depth: int, seen: Set[int]) -> int:
    if isinstance(value, (types.ModuleType, type, types.FunctionType)) or id(value) in seen:
        return 0
    size = array_size(value)
    if size is not None:
        return size
    if isinstance(value, memoryview):
        return value.nbytes
    if isinstance(value, (bytes, bytearray, str)):
        return len(value)
    if depth == 0:
        return 8
    seen.add(id(value))
    items, count = _sample(value)
    total = sum(_size(item, depth - 1, seen) for item in items)
    return total * count // len(items) + 8 if items else 8


def _sample(value: Any) -> Tuple[List[Any], int]:
    """Give the first items of a container or the attributes of an object, and how many there are."""
    if type(value) in (list, tuple, set, frozenset):
        return list(itertools.islice(value, SAMPLE)), len(value)
    if type(value) is dict:
        return [part for pair in itertools.islice(value.items(), SAMPLE) for part in pair], 2 * len(value)
    attributes = getattr(value, "__dict__", None)
    if type(attributes) is dict:
        return list(attributes.values()), len(attributes)
    return [], 0


def summary(value: Any) -> str:
    """Give the value's shape in a few words: ``1,000 rows × 3 columns``; never a string's contents."""
    try:
        return _summary(value)[:200]
    except Exception:  # noqa: BLE001 - a foreign type's own code; the words are not worth failing for
        return ""


def _summary(value: Any) -> str:
    if value is None or type(value) in (bool, int, float, complex):
        return repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "%d bits" % value.bit_length()
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, type):
        return "class " + value.__qualname__
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        return value.__qualname__ + "()"
    if isinstance(value, str):
        return "%s characters" % format(len(value), ",")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return size_text(len(value))
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        return "1 item" if len(value) == 1 else "%s items" % format(len(value), ",")
    return _shape(value)


def _shape(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if _root(value) in ("pandas", "polars") and isinstance(shape, tuple):
        columns = " × %s columns" % format(shape[1], ",") if len(shape) == 2 else ""
        return "%s rows%s" % (format(shape[0], ","), columns)
    if isinstance(shape, tuple):
        dtype = str(getattr(value, "dtype", "")).replace("torch.", "")
        device = str(getattr(value, "device", "")) if _root(value) == "torch" else ""
        size = " × ".join(format(n, ",") for n in shape) or "scalar"
        return " ".join(part for part in (dtype, size, device if device != "cpu" else "") if part)
    return ""


# -- why a value can't be pickled

_REASONS: List[Tuple[Tuple[str, ...], str, str]] = [
    (
        ("lock", "RLock", "Condition", "Semaphore", "Event"),
        "a lock, which belongs to this process",
        "make it in the cell",
    ),
    (("generator",), "a generator, which can't be copied half-way", "send list(…) of it, or make it in the cell"),
    (
        ("coroutine", "async_generator"),
        "a coroutine, which belongs to this event loop",
        "call the function in the cell",
    ),
    (("Task", "Future"), "a task of this event loop or pool", "send its result, or start it in the cell"),
    (("Thread", "_MainThread", "Process", "Popen"), "a running thread or process", "start it in the cell"),
    (("ThreadPoolExecutor", "ProcessPoolExecutor", "Pool"), "a pool of this process's workers", "make it in the cell"),
    (("socket", "SSLSocket", "SSLContext"), "a network connection of this process", "connect in the cell"),
    (("Connection", "Cursor"), "an open connection to a database", "connect in the cell"),
    (
        ("TextIOWrapper", "BufferedWriter", "BufferedReader", "BufferedRandom", "FileIO"),
        "an open file",
        "send its path and open it in the cell",
    ),
    (("frame", "traceback"), "a frame of this process's stack", "leave it out with --in"),
    (
        ("weakref", "ReferenceType", "WeakKeyDictionary", "WeakValueDictionary"),
        "a weak reference",
        "send what it refers to",
    ),
    (("ContextVar", "Token", "Context"), "a context variable of this process", "make it in the cell"),
    (("mmap", "SharedMemory"), "memory mapped into this process", "map it in the cell"),
    (("PyCapsule",), "a pointer into this process's memory", "make it in the cell"),
]


def _known(value: Any) -> Optional[Tuple[str, str]]:
    """Give why and the hint for types that can never be pickled."""
    for base in type(value).__mro__:
        # Only Python's own types go by their bare names: anybody may call a class Event.
        root = base.__module__.split(".")[0]
        if root in getattr(sys, "stdlib_module_names", (root,)) or base.__name__ == "Connection":
            for names, why, hint in _REASONS:
                if base.__name__ in names:
                    return why, hint
    return None


def reason(value: Any, error: Exception) -> Tuple[str, str]:
    """Say why *value* can't be pickled, and what to do instead."""
    known = _known(value)
    if known:
        return known
    if "excessively deep" in str(error) or isinstance(error, RecursionError):
        return "it is nested too deeply to be pickled", "send it in a flatter form, or keep it in a file"
    text = str(error).strip() or type(error).__name__
    return "%s (%s)" % (type_name(value), text[:300]), "make it in the cell, or leave it out with --in"


def blame(
    name: str, value: Any, error: Exception, attempt: Callable[[Any], Optional[Exception]]
) -> Tuple[str, str, str]:
    """Find the innermost part of *value* that can't be pickled: its path, why, and the hint.

    :param attempt: pickles a part; gives the error, or None where that works.
    """
    path, end, seen = name, time.monotonic() + BLAME_SECONDS, {id(value)}
    while not _known(value):
        for step, part in _parts(value):
            if time.monotonic() > end:
                break
            failed = attempt(part) if id(part) not in seen else None
            if failed is not None:
                path, value, error = path + step, part, failed
                seen.add(id(part))
                break
        else:
            break
        if time.monotonic() > end:
            break
    why, hint = reason(value, error)
    return path, ("it is %s" if path == name else "that is %s") % why, hint[0].upper() + hint[1:] + "."


def _parts(value: Any) -> Iterator[Tuple[str, Any]]:
    """Give the parts of a value with how Python would reach them."""
    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield "[%.40r]" % (key,), item
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield "[%d]" % i, item
    elif isinstance(value, (set, frozenset)):
        for item in list(value):
            yield " item", item
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    else:
        yield from _attributes(value)


def _function_parts(function: types.FunctionType) -> Iterator[Tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            yield "'s variable %s" % name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for default in function.__defaults__ or ():
        yield "'s default", default
    for name, default in (function.__kwdefaults__ or {}).items():
        yield "'s default of %s" % name, default


def _attributes(value: Any) -> Iterator[Tuple[str, Any]]:
    attributes: Dict[str, Any] = dict(getattr(value, "__dict__", None) or {})
    if not isinstance(value, type):
        for base in type(value).__mro__:
            slots = base.__dict__.get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, slot):
                    attributes[slot] = getattr(value, slot)
    if type(value).__module__ == "functools" and hasattr(value, "args"):
        attributes.update(func=value.func, args=value.args, keywords=value.keywords)
    for name, part in attributes.items():
        if not (isinstance(value, type) and name.startswith("__") and name != "__init__"):
            yield "." + name, part
