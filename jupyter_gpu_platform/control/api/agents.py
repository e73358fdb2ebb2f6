"""Agents: how one gets its credential, and how that is taken away."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..store.rows import Agent
from .operation import ADMIN, ANYONE, Call, Operation, Reply, Route


class AgentInfo(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    cluster: str
    created: float
    revoked: bool
    version: str
    #: when it was last heard
    seen: float | None


class AgentList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[AgentInfo]


class Join(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: the join token
    token: Annotated[str, msgspec.Meta(max_length=200)]
    #: the credential that the agent had in this cluster; it is revoked
    replaces: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    agent_id: str
    #: shown this once
    credential: str
    cluster: str


def _info(agent: Agent) -> AgentInfo:
    return AgentInfo(
        id=agent.id,
        cluster=agent.cluster,
        created=agent.created,
        revoked=agent.revoked,
        version=agent.version,
        seen=agent.seen,
    )


async def find(call: Call) -> AgentList:
    return AgentList(items=[_info(agent) for agent in await call.services.reader.agents()])


async def revoke(call: Call) -> None:
    await call.services.identity.revoke_agent(call.path["agent"])


async def join(call: Call) -> Reply:
    asked: Join = call.body
    agent, credential = await call.services.identity.join(asked.token, asked.replaces)
    made = Joined(agent_id=agent.id, credential=credential, cluster=agent.cluster)
    return Reply(value=made, headers={"Location": f"/api/v1/agents/{agent.id}"})


ROUTES = (
    Route(
        path="/api/v1/agents",
        operations=(
            Operation(
                method="GET", name="list_agents", summary="List agents", answer=find, roles=ADMIN, response=AgentList
            ),
        ),
    ),
    # Before the next one: "join" is no agent's id.
    Route(
        path="/api/v1/agents/join",
        operations=(
            Operation(
                method="POST",
                name="join",
                summary="Trade a join token for an agent's credential",
                answer=join,
                roles=ANYONE,
                request=Join,
                response=Joined,
                status=201,
                also=(401,),
                headers=("Location",),
            ),
        ),
    ),
    Route(
        path="/api/v1/agents/{agent}",
        operations=(
            Operation(
                method="DELETE",
                name="revoke_agent",
                summary="Revoke agents",
                answer=revoke,
                roles=ADMIN,
                status=204,
            ),
        ),
    ),
)
