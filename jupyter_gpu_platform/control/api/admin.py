"""The service itself: tokens of people, its state, its end, and what monitoring reads."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ... import errors
from ...model.jobs import Slug
from .. import metrics
from ..store.rows import ApiToken
from .operation import ADMIN, ANYONE, READERS, Call, Operation, Reply, Route

UserName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
DAY = 86400


class TokenInfo(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    user: str
    role: Literal["admin", "user", "viewer"]
    project: str
    organisation: str
    created: float
    #: never, when null
    expires: float | None


class TokenList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[TokenInfo]


class NewToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    user: UserName
    role: Literal["admin", "user", "viewer"] = "user"
    project: Slug = "default"
    organisation: Slug = "default"
    #: seconds until it expires; never, when null
    ttl_seconds: Annotated[float, msgspec.Meta(gt=0, le=3650 * DAY)] | None = None


class TokenMade(msgspec.Struct, frozen=True, kw_only=True):
    info: TokenInfo
    #: the secret; shown this once
    token: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    #: names the store: another one means that all ids are of another world
    incarnation: str
    user: str
    role: str
    local: bool
    fake_gpus: int
    replica: str
    started: float


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: only where no job is open and no other call goes on
    when_idle: bool = False


class Stopping(msgspec.Struct, frozen=True, kw_only=True):
    stopping: bool = True


class Health(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["ok"] = "ok"


def _info(token: ApiToken) -> TokenInfo:
    return TokenInfo(
        id=token.id,
        user=token.user,
        role=token.role,
        project=token.project,
        organisation=token.organisation,
        created=token.created,
        expires=token.expires,
    )


async def tokens(call: Call) -> TokenList:
    return TokenList(items=[_info(token) for token in await call.services.reader.tokens()])


async def create_token(call: Call) -> Reply:
    asked: NewToken = call.body
    token, secret = await call.services.identity.create_token(
        asked.user, asked.role, asked.project, asked.organisation, asked.ttl_seconds
    )
    return Reply(value=TokenMade(info=_info(token), token=secret), headers={"Location": f"/api/v1/tokens/{token.id}"})


async def delete_token(call: Call) -> None:
    await call.services.identity.delete_token(call.path["token"])


async def status(call: Call) -> Status:
    services = call.services
    return Status(
        version=services.version,
        incarnation=services.database.incarnation,
        user=call.principal.user,
        role=call.principal.role,
        local=services.local,
        fake_gpus=services.fake_gpus,
        replica=services.replica_id,
        started=services.started,
    )


async def shutdown(call: Call) -> Stopping:
    asked: Shutdown = call.body
    if not call.services.local:
        raise errors.Forbidden(
            "this is not a platform of one person on one machine", hint="Stop its process where it was started."
        )
    if asked.when_idle:
        others = call.activity.calls - 1
        if others:
            raise errors.Conflict(f"{others} other calls go on", hint="Wait for their end, or leave when_idle out.")
        if await call.services.jobs.any_open():
            raise errors.Conflict("some jobs have not ended", hint="They would go on: leave when_idle out to stop now.")
    call.activity.stop()
    return Stopping()


async def healthz(_call: Call) -> Health:
    return Health()


async def readyz(call: Call) -> Health:
    await call.services.reader.ping()
    return Health()


async def figures(call: Call) -> Reply:
    services = call.services
    services.metrics.log_position.set(await services.reader.position())
    services.metrics.set_jobs(await services.reader.run(metrics.phase_counts))
    return Reply(value=services.metrics.text(), headers={"Content-Type": metrics.MEDIA_TYPE})


def routes(metrics_public: bool) -> tuple[Route, ...]:
    return (
        Route(
            path="/api/v1/tokens",
            operations=(
                Operation(
                    method="GET",
                    name="list_tokens",
                    summary="List people's tokens",
                    answer=tokens,
                    roles=ADMIN,
                    response=TokenList,
                ),
                Operation(
                    method="POST",
                    name="create_token",
                    summary="Make tokens for people",
                    answer=create_token,
                    roles=ADMIN,
                    request=NewToken,
                    response=TokenMade,
                    status=201,
                    headers=("Location",),
                ),
            ),
        ),
        Route(
            path="/api/v1/tokens/{token}",
            operations=(
                Operation(
                    method="DELETE",
                    name="delete_token",
                    summary="Revoke people's tokens",
                    answer=delete_token,
                    roles=ADMIN,
                    status=204,
                ),
            ),
        ),
        Route(
            path="/api/v1/status",
            operations=(
                Operation(
                    method="GET",
                    name="status",
                    summary="Read what this service is and who you are",
                    answer=status,
                    roles=READERS,
                    response=Status,
                ),
            ),
        ),
        Route(
            path="/api/v1/shutdown",
            operations=(
                Operation(
                    method="POST",
                    name="shutdown",
                    summary="Stop a local platform; its jobs go on",
                    answer=shutdown,
                    roles=ADMIN,
                    request=Shutdown,
                    response=Stopping,
                    status=202,
                    also=(409,),
                ),
            ),
        ),
        Route(
            path="/healthz",
            passive=True,
            operations=(
                Operation(
                    method="GET",
                    name="healthz",
                    summary="Say that the process answers",
                    answer=healthz,
                    roles=ANYONE,
                    response=Health,
                ),
            ),
        ),
        Route(
            path="/readyz",
            passive=True,
            operations=(
                Operation(
                    method="GET",
                    name="readyz",
                    summary="Say that the store can be reached",
                    answer=readyz,
                    roles=ANYONE,
                    response=Health,
                ),
            ),
        ),
        Route(
            path="/metrics",
            passive=True,
            operations=(
                Operation(
                    method="GET",
                    name="metrics",
                    summary="Read the service's figures, for Prometheus",
                    answer=figures,
                    roles=ANYONE if metrics_public else ADMIN,
                    stream=(metrics.MEDIA_TYPE,),
                ),
            ),
        ),
    )
