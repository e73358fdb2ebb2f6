"""Objects: values on their way into jobs and out of them, for people and for agents."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from ... import errors
from ...model.jobs import MAX_OBJECT_BYTES, ObjectRef
from ..store.rows import StoredObject
from .jobs import job_id
from .operation import AGENTS, BYTES, WRITERS, Call, Operation, Reply, Route

_DIGEST = re.compile(r"^[0-9a-f]{64}$")


class IncarnationQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: what has claimed the attempt
    incarnation: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


def _digest(call: Call) -> str:
    digest = call.path["digest"]
    if not _DIGEST.match(digest):
        raise errors.InvalidRequest(
            f"{digest[:80]!r} names no object", hint="Objects are named by their SHA-256, in lower-case hexadecimal."
        )
    return digest


def _headers(stored: StoredObject) -> dict[str, str]:
    return {"Content-Length": str(stored.size), "Content-Type": BYTES}


def _made(made: tuple[ObjectRef, bool]) -> Reply:
    ref, new = made
    return Reply(value=ref, status=201 if new else 200)


async def put(call: Call) -> Reply:
    return _made(await call.services.objects.put(call.principal, _digest(call), call.body))


async def look(call: Call) -> Reply:
    return Reply(headers=_headers(await call.services.objects.find(call.principal, _digest(call))))


async def get(call: Call) -> Reply:
    stored = await call.services.objects.find(call.principal, _digest(call))
    return Reply(value=_bytes(call, stored), headers=_headers(stored))


async def _bytes(call: Call, stored: StoredObject) -> AsyncIterator[bytes]:
    async for piece in call.services.objects.read(stored):
        yield piece


def _attempt(call: Call) -> tuple[str, str, int]:
    """Return the agent that calls, and the attempt that the path names."""
    agent, number = call.path["agent"], call.path["attempt"]
    if agent != call.principal.user or not (number.isascii() and number.isdigit() and len(number) < 10):
        raise errors.NotFound("you are no such agent, or there is no such attempt")
    return agent, job_id(call), int(number)


async def get_for_attempt(call: Call) -> Reply:
    stored = await call.services.objects.find_for_attempt(*_attempt(call), _digest(call))
    return Reply(value=_bytes(call, stored), headers=_headers(stored))


async def put_from_attempt(call: Call) -> Reply:
    query: IncarnationQuery = call.query
    agent, job, number = _attempt(call)
    made = await call.services.objects.put_from_attempt(agent, job, number, query.incarnation, _digest(call), call.body)
    return _made(made)


ROUTES = (
    Route(
        path="/api/v1/objects/{digest}",
        operations=(
            Operation(
                method="GET",
                name="get_object",
                summary="Read your own objects",
                answer=get,
                roles=WRITERS,
                stream=(BYTES,),
                headers=("Content-Length",),
            ),
            Operation(
                method="HEAD",
                name="look_for_object",
                summary="Say whether an object is there",
                answer=look,
                roles=WRITERS,
                headers=("Content-Length",),
            ),
            Operation(
                method="PUT",
                name="put_object",
                summary="Keep bytes under their SHA-256",
                answer=put,
                roles=WRITERS,
                upload=MAX_OBJECT_BYTES,
                response=ObjectRef,
                status=201,
                also=(200,),
            ),
        ),
    ),
    Route(
        path="/api/v1/agents/{agent}/objects/{job}/{attempt}/{digest}",
        operations=(
            Operation(
                method="GET",
                name="get_object_for_attempt",
                summary="Read an object that an attempt needs",
                answer=get_for_attempt,
                roles=AGENTS,
                stream=(BYTES,),
                headers=("Content-Length",),
            ),
            Operation(
                method="PUT",
                name="put_object_from_attempt",
                summary="Keep what an attempt has made, for its job's owner",
                answer=put_from_attempt,
                roles=AGENTS,
                query=IncarnationQuery,
                upload=MAX_OBJECT_BYTES,
                response=ObjectRef,
                status=201,
                also=(200, 409),
            ),
        ),
    ),
)
