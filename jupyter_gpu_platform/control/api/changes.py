"""The change log, as far as the reader may see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from ..store.rows import ChangeRow
from .operation import NDJSON, Call, Operation, Route

PAGE = 500


class ChangeQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: id of the last change already read, or a list's ``log_position``
    after: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    #: 1: stay and send each change as it is made
    follow: bool = False


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One line."""

    id: int
    time: float
    kind: str
    object_id: str
    #: the object as it was after the change
    payload: msgspec.Raw


def line(row: ChangeRow) -> bytes:
    change = Change(id=row.id, time=row.time, kind=row.kind, object_id=row.object_id, payload=msgspec.Raw(_public(row)))
    return msgspec.json.encode(change) + b"\n"


def _public(row: ChangeRow) -> bytes:
    """Leave the hash of an agent's credential out: it is nobody's business."""
    if row.kind != "agent":
        return row.payload
    agent = msgspec.json.decode(row.payload)
    agent.pop("credential_hash", None)
    return msgspec.json.encode(agent)


async def changes(call: Call) -> AsyncIterator[bytes]:
    query: ChangeQuery = call.query
    services, position = call.services, query.after
    allowed = services.jobs.change_filter(call.principal)
    page = await services.reader.changes(position, PAGE, allowed)
    yield b"".join(map(line, page.items))  # though it be nothing: the headers go out at once
    if not query.follow:
        while page.items:
            page = await services.reader.changes(page.next, PAGE, allowed)
            yield b"".join(map(line, page.items))
        return
    position, tail = page.next, services.tail
    with tail.follow():
        while True:
            if tail.covers(position):
                lines, position = tail.after(position, PAGE, allowed)
            else:
                page = await services.reader.changes(position, PAGE, allowed)
                lines, position = list(map(line, page.items)), page.next
            if lines:
                yield b"".join(lines)
            elif not await tail.news(position):
                yield b"\n"


ROUTES = (
    Route(
        path="/api/v1/changes",
        operations=(
            Operation(
                method="GET",
                name="read_changes",
                summary="Read the change log",
                answer=changes,
                query=ChangeQuery,
                stream=(NDJSON,),
                also=(410,),
            ),
        ),
    ),
)
