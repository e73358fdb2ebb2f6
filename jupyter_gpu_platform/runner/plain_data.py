"""Plain data as JSON, for values that are to go between any two Pythons.

JSON alone would turn tuples into lists and knows no modules, which nearly every cell names. Both are written as an
object with one key that no user's data may have; everything else is refused rather than changed on its way.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from typing import Any, Dict, Set, Tuple

TUPLE, MODULE, GLOBAL = "__tuple__", "__module__", "__global__"
_MARKS = {TUPLE, MODULE, GLOBAL}
HINT = (
    "--source sends None, bools, numbers, strings, lists, tuples, dicts and names of modules: leave it out with --in."
)


class NotPlain(Exception):
    """The part of a value at *path* isn't plain data: *why*."""

    def __init__(self, path: str, why: str, hint: str = HINT) -> None:
        super().__init__(why)
        self.path, self.why, self.hint = path, why, hint

    def describe(self, name: str) -> str:
        return "%s is %s" % ("`%s%s`" % (name, self.path) if self.path else "it", self.why)


def encode(value: Any) -> bytes:
    """Give *value* as JSON.

    :raises NotPlain: a part of it is something else.
    """
    return json.dumps(_plain(value, "", set())).encode()


def decode(data: bytes) -> Any:
    """Give the value back."""
    return json.loads(data, object_hook=_object)


def _plain(value: Any, path: str, above: Set[int]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, types.ModuleType) and value.__name__ != "__main__":
        return {MODULE: value.__name__}
    if type(value) in (list, tuple, dict):
        if id(value) in above:
            raise NotPlain(path, "a %s that holds itself" % type(value).__name__)
        return _container(value, path, above | {id(value)})
    found = _global(value)
    if found:
        return {GLOBAL: list(found)}
    if isinstance(value, (type, types.FunctionType)):
        raise NotPlain(path, "code of this notebook", "Define it in the cell, or leave out --source.")
    raise NotPlain(path, "of type %s" % type(value).__qualname__)


def _container(value: Any, path: str, above: Set[int]) -> Any:
    if type(value) is dict:
        for key in value:
            if type(key) is not str or key in _MARKS:
                raise NotPlain(path, "a dict with the key %.40r, and keys here are strings" % (key,))
        return {key: _plain(item, "%s[%r]" % (path, key), above) for key, item in value.items()}
    items = [_plain(item, "%s[%d]" % (path, i), above) for i, item in enumerate(value)]
    return {TUPLE: items} if type(value) is tuple else items


def _global(value: Any) -> Tuple[str, ...]:
    """Find a function or class of an installed module again by its name."""
    if not isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return ()
    module, name = value.__module__, value.__qualname__
    if module in (None, "__main__") or module not in sys.modules:
        return ()
    return (module, name) if getattr(sys.modules[module], name, None) is value else ()


def _object(pairs: Dict[str, Any]) -> Any:
    if len(pairs) == 1:
        ((key, item),) = pairs.items()
        if key == TUPLE:
            return tuple(item)
        if key == MODULE:
            return importlib.import_module(item)
        if key == GLOBAL:
            return getattr(importlib.import_module(item[0]), item[1])
    return pairs
