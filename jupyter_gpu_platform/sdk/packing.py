"""Calls of a function on their way into jobs: the function packed once, the arguments many calls to an object."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import errors
from ..client import fitting
from ..client.current import Connection
from ..client.specifying import Options, specify
from ..model.jobs import MAX_OBJECT_BYTES, Function, Job, JobSpec, ObjectRef
from ..runner.values import CannotPack, Packer

#: An object of arguments is full at so many bytes (8 MiB): each of its jobs reads it whole.
FULL = 8 * 2**20
#: A function may take along so much of the globals that it names: 512 MiB. Arguments are meant to go: no such limit.
MAX_FUNCTION_BYTES = 512 * 2**20
#: Jobs are created by so many at a time, all or none of them.
BATCH = 1000

#: Kinds of packed values: what is called, and globals for the namespace that it runs in.
_CALL, _GLOBAL = "call", "in"

Call = tuple[tuple[Any, ...], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Packed:
    packer: Packer
    #: calls whose arguments it holds
    count: int = 0

    @property
    def ref(self) -> ObjectRef:
        return ObjectRef(digest=self.packer.digest(), size=self.packer.size)


def submit(connection: Connection, function: Callable[..., Any], calls: Sequence[Call], options: Options) -> list[Job]:
    """Submit one job for each of *calls*, in order; of more than a thousand, none is left where some are refused.

    :raises InvalidRequest: the function or an argument can't be packed; the message names it.
    """
    qualname = getattr(function, "__qualname__", type(function).__name__)[:200]
    packed = _pack_function(function, qualname)
    jobs: list[Job] = []
    try:
        for start in range(0, len(calls), BATCH):
            arguments = list(_pack_arguments(calls[start : start + BATCH], qualname))
            jobs += _submit_batch(connection, qualname, packed, arguments, options)
    except BaseException:
        for job in jobs:
            connection.client().cancel(job.id)
        raise
    return jobs


def _submit_batch(
    connection: Connection, qualname: str, function: _Packed, arguments: Sequence[_Packed], options: Options
) -> Sequence[Job]:
    client = connection.client()
    named: Options = {**options, "name": options.get("name") or qualname}
    here = fitting.runs_here(client, named, local=connection.status.local)
    specs = [
        specify(Function(qualname=qualname, function=function.ref, arguments=ref, index=index), here=here, **named)
        for ref, count in ((each.ref, each.count) for each in arguments)
        for index in range(count)
    ]
    fitting.check(client, specs[0], local=connection.status.local)  # all ask for the same
    for packed in (function, *arguments):
        _upload(connection, packed, known=True)
    try:
        return _create(connection, specs)
    except errors.ObjectMissing:
        # What was there has been swept meanwhile.
        for packed in (function, *arguments):
            _upload(connection, packed, known=False)
        return client.submit_many(specs)


def _create(connection: Connection, specs: Sequence[JobSpec]) -> Sequence[Job]:
    client = connection.client()
    return [client.submit(specs[0])] if len(specs) == 1 else client.submit_many(specs)


def _upload(connection: Connection, packed: _Packed, *, known: bool) -> None:
    """:param known: trust what this connection remembers to have uploaded."""
    ref = packed.ref
    if known and ref.digest in connection.uploaded:
        return
    connection.client().put_object(ref.digest, ref.size, packed.packer.chunks)
    connection.uploaded.add(ref.digest)


def _pack_function(function: Callable[..., Any], qualname: str) -> _Packed:
    packer = Packer(_namespace(), limit=MAX_FUNCTION_BYTES)
    _add(packer, "function", function, _CALL, qualname)
    _add_needed(packer, qualname)
    return _Packed(packer)


def _pack_arguments(calls: Sequence[Call], qualname: str) -> Iterator[_Packed]:
    packer, size, count = Packer(_namespace(), limit=MAX_OBJECT_BYTES), 0, 0
    for args, kwargs in calls:
        try:
            size += packer.add(str(count), (args, dict(kwargs)), _CALL)["size"]
        except CannotPack as error:
            _check_each(args, kwargs, qualname)
            raise _unsendable(error, qualname) from error
        count += 1
        if size >= FULL:
            _add_needed(packer, qualname)
            yield _Packed(packer, count)
            packer, size, count = Packer(_namespace(), limit=MAX_OBJECT_BYTES), 0, 0
    if count:
        _add_needed(packer, qualname)
        yield _Packed(packer, count)


def _check_each(args: Sequence[Any], kwargs: Mapping[str, Any], qualname: str) -> None:
    """Find the argument that can't be packed, so that the error names it.

    :raises InvalidRequest: here it is.
    """
    named = {f"argument {place}": value for place, value in enumerate(args, 1)} | dict(kwargs)
    for name, value in named.items():
        try:
            Packer(_namespace(), limit=MAX_OBJECT_BYTES).add(name, value)
        except CannotPack as error:
            raise _unsendable(error, qualname) from error


def _add(packer: Packer, name: str, value: Any, kind: str, qualname: str) -> None:
    try:
        packer.add(name, value, kind)
    except CannotPack as error:
        raise _unsendable(error, qualname) from error


def _add_needed(packer: Packer, qualname: str) -> None:
    """Add the globals that what was packed names, and what those name in turn."""
    namespace = _namespace()
    there: set[str] = set()
    while wanted := sorted(packer.needed - there):
        for name in wanted:
            there.add(name)
            _add(packer, name, namespace[name], _GLOBAL, qualname)


def _unsendable(error: CannotPack, qualname: str) -> errors.InvalidRequest:
    if error.code == "too_large":
        hint = "Keep what is large in a file that the job can read, and pass its path."
    else:
        hint = error.hint.replace("in the cell", "in the function")
    return errors.InvalidRequest(f"{qualname}: {error.why}", hint=hint)


def _namespace() -> dict[str, Any]:
    return vars(sys.modules["__main__"])
