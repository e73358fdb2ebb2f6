"""How one operation of the API is declared: enough to route it, to guard it and to document it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from ... import errors
from ..identity import NOBODY, Principal

if TYPE_CHECKING:
    from ..services import Services
    from .activity import Activity

JSON = "application/json"
NDJSON = "application/x-ndjson"
BYTES = "application/octet-stream"

ADMIN = frozenset({"admin"})
WRITERS = frozenset({"admin", "user"})
AGENTS = frozenset({"agent"})
READERS = frozenset({"admin", "user", "viewer"})
ANYONE: frozenset[str] = frozenset()


class NoQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No query parameters."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, decoded and admitted."""

    services: Services
    activity: Activity
    principal: Principal = NOBODY
    path: Mapping[str, str]
    #: an instance of the operation's query struct
    query: Any
    #: an instance of the operation's request struct, or a `Body` where it takes an upload; None where it takes none
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def idempotency_key(self) -> str | None:
        key = self.headers.get("Idempotency-Key")
        if key is not None and not (0 < len(key) <= 200 and key.isascii() and key.isprintable()):
            raise errors.InvalidRequest(
                "the header Idempotency-Key is not usable", hint="Send 1 to 200 printable ASCII characters."
            )
        return key


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer with headers, or with another status than the operation's usual one."""

    value: Any = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


#: Answers with a struct, a `Reply`, or (streams) an iterator of chunks.
Answer = Callable[[Call], Awaitable[Any]] | Callable[[Call], AsyncIterator[bytes]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    method: str
    #: names the operation in the OpenAPI document
    name: str
    summary: str
    answer: Answer
    #: who may; empty: anyone, without a token
    roles: frozenset[str] = READERS
    query: type[msgspec.Struct] = NoQuery
    request: type | None = None
    #: takes a body of so many bytes at most, which it reads while that comes
    upload: int = 0
    #: the struct of the success answer; None: it has no body, or is a stream
    response: type | None = None
    status: int = 200
    #: statuses besides the success and those that any operation of its kind can have
    also: tuple[int, ...] = ()
    #: the answer's media types where it is a stream
    stream: tuple[str, ...] = ()
    #: takes the header Idempotency-Key
    idempotent: bool = False
    #: names of answer headers
    headers: tuple[str, ...] = ()

    def statuses(self, path: str) -> list[int]:
        """Every status that can occur, the success first."""
        found = {400, 405, 429, 500, 503, *self.also}
        if self.roles:
            found |= {401, 403}
        if self.request is not None or self.upload:
            found.add(413)
        if "{" in path:
            found.add(404)
        return [self.status, *sorted(found)]


@dataclass(frozen=True, kw_only=True)
class Route:
    path: str
    operations: tuple[Operation, ...]
    #: kept out of the activity that keeps a local platform alive
    passive: bool = False

    @property
    def pattern(self) -> str:
        """The path as Tornado matches it; variables become named groups."""
        return self.path.replace("{", "(?P<").replace("}", ">[^/]+)")

    @property
    def methods(self) -> str:
        return ", ".join(operation.method for operation in self.operations)
