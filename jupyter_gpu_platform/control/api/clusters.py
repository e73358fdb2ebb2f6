"""Clusters: which there are, how one joins, and what its agent holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from ... import charts, errors
from ...model.jobs import Slug
from ...model.resources import Capacity
from ...wire.messages import Owned
from ..store.rows import Cluster, UnknownAttempt
from .operation import ADMIN, ANYONE, Call, Operation, Reply, Route

if TYPE_CHECKING:
    from ..store.transaction import Transaction


#: of an archive
GZIP = "application/gzip"


class ClusterList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Cluster]


class NewCluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Slug


class ClusterChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: closed for new jobs; those that run go on
    drained: bool


class JoinTokenMade(msgspec.Struct, frozen=True, kw_only=True):
    cluster: str
    #: usable once, shown once
    join_token: str
    expires: float


class UnknownList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[UnknownAttempt]


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster's agent really holds, asked at this moment."""

    cluster: str
    agent: str
    owned: list[Owned]
    capacity: Capacity


def _missing(name: str) -> errors.NotFound:
    return errors.NotFound(f"there is no cluster {name[:100]!r}", hint="GET /api/v1/clusters lists them.")


async def chart(_call: Call) -> Reply:
    return Reply(value=charts.packed(), headers={"Content-Type": GZIP})


async def find(call: Call) -> ClusterList:
    return ClusterList(items=await call.services.reader.clusters())


async def _cluster(call: Call) -> Cluster:
    name = call.path["cluster"]
    cluster = await call.services.reader.run(lambda tx: tx.cluster(name))
    if cluster is None:
        raise _missing(name)
    return cluster


async def get(call: Call) -> Cluster:
    return await _cluster(call)


async def create(call: Call) -> Reply:
    asked: NewCluster = call.body
    cluster = Cluster(name=asked.name, organisation=call.principal.organisation, created=call.services.now())

    def operation(tx: Transaction) -> None:
        if tx.cluster(cluster.name) is not None:
            raise errors.Conflict(
                f"there is a cluster {cluster.name} already",
                hint=f"For one more join token: POST /api/v1/clusters/{cluster.name}/join-tokens.",
            )
        tx.put_cluster(cluster)

    await call.services.writer.run(operation)
    secret, expires = await call.services.identity.create_join_token(cluster.name)
    made = JoinTokenMade(cluster=cluster.name, join_token=secret, expires=expires)
    return Reply(value=made, headers={"Location": f"/api/v1/clusters/{cluster.name}"})


async def change(call: Call) -> Cluster:
    name, asked = call.path["cluster"], call.body

    def operation(tx: Transaction) -> Cluster:
        cluster = tx.cluster(name)
        if cluster is None:
            raise _missing(name)
        if cluster.drained != asked.drained:
            cluster = replace(cluster, drained=asked.drained)
            tx.put_cluster(cluster)
        return cluster

    return await call.services.writer.run(operation)


async def delete(call: Call) -> None:
    """Remove a cluster and revoke its agents, once no attempt runs there."""
    name = call.path["cluster"]

    def operation(tx: Transaction) -> None:
        if tx.cluster(name) is None:
            raise _missing(name)
        running = sum(attempt.cluster == name for attempt in tx.attempts_open())
        if running:
            raise errors.Conflict(
                f"cluster {name} has {running} open attempts", hint="Cancel or abandon their jobs first."
            )
        for agent in tx.agents(name):
            if not agent.revoked:
                tx.put_agent(replace(agent, revoked=True))
        tx.delete_cluster(name)

    await call.services.writer.run(operation)
    call.services.identity.forget()


async def create_join_token(call: Call) -> JoinTokenMade:
    name = call.path["cluster"]
    secret, expires = await call.services.identity.create_join_token(name)
    return JoinTokenMade(cluster=name, join_token=secret, expires=expires)


async def unknown(call: Call) -> UnknownList:
    cluster = await _cluster(call)
    return UnknownList(items=await call.services.reader.unknown(cluster.name))


async def delete_unknown(call: Call) -> None:
    name, job, number = call.path["cluster"], call.path["job"], call.path["attempt"]
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise errors.NotFound(f"there is no attempt {number[:40]!r}", hint="Attempts are numbered from 1.")
    listed = await call.services.reader.unknown(name)
    if not any(found.job == job and found.attempt == int(number) for found in listed):
        raise errors.NotFound(
            f"cluster {name[:100]!r} has no unknown attempt {job[:40]}.{number}",
            hint="GET /api/v1/clusters/{cluster}/unknown-attempts lists them.",
        )
    if call.services.gateway is None:
        raise errors.Unavailable("this process serves no agents")
    await call.services.gateway.forget_unknown(name, job, int(number))


async def inspect(call: Call) -> Inspection:
    cluster = await _cluster(call)
    agents = [agent for agent in await call.services.reader.agents(cluster.name) if not agent.revoked]
    if not agents or call.services.gateway is None:
        raise errors.Unavailable(f"cluster {cluster.name} has no agent", hint="Join it with a join token.")
    agent = max(agents, key=lambda agent: agent.seen or 0.0)
    found = await call.services.gateway.inspect(agent.id)
    return Inspection(cluster=cluster.name, agent=agent.id, owned=list(found.owned), capacity=found.capacity)


ROUTES = (
    Route(
        path=charts.CHART_PATH,
        operations=(
            Operation(
                method="GET",
                name="get_chart",
                summary="Download the Helm chart of the cluster agent",
                answer=chart,
                roles=ANYONE,  # Helm sends no token; there is nothing of this platform in it
                stream=(GZIP,),
            ),
        ),
    ),
    Route(
        path="/api/v1/clusters",
        operations=(
            Operation(method="GET", name="list_clusters", summary="List clusters", answer=find, response=ClusterList),
            Operation(
                method="POST",
                name="create_cluster",
                summary="Add clusters",
                answer=create,
                roles=ADMIN,
                request=NewCluster,
                response=JoinTokenMade,
                status=201,
                # 404: removed again before its join token was made
                also=(404, 409),
                headers=("Location",),
            ),
        ),
    ),
    Route(
        path="/api/v1/clusters/{cluster}",
        operations=(
            Operation(method="GET", name="get_cluster", summary="Read a cluster", answer=get, response=Cluster),
            Operation(
                method="PATCH",
                name="change_cluster",
                summary="Close clusters for new jobs, or open them again",
                answer=change,
                roles=ADMIN,
                request=ClusterChange,
                response=Cluster,
            ),
            Operation(
                method="DELETE",
                name="delete_cluster",
                summary="Remove clusters",
                answer=delete,
                roles=ADMIN,
                status=204,
                also=(409,),
            ),
        ),
    ),
    Route(
        path="/api/v1/clusters/{cluster}/join-tokens",
        operations=(
            Operation(
                method="POST",
                name="create_join_token",
                summary="Make join tokens",
                answer=create_join_token,
                roles=ADMIN,
                response=JoinTokenMade,
                status=201,
            ),
        ),
    ),
    Route(
        path="/api/v1/clusters/{cluster}/unknown-attempts",
        operations=(
            Operation(
                method="GET",
                name="list_unknown_attempts",
                summary="List attempts that run on a cluster and that this store doesn't know",
                answer=unknown,
                roles=ADMIN,
                response=UnknownList,
            ),
        ),
    ),
    Route(
        path="/api/v1/clusters/{cluster}/unknown-attempts/{job}/{attempt}",
        operations=(
            Operation(
                method="DELETE",
                name="delete_unknown_attempt",
                summary="Have an agent stop and forget an unknown attempt",
                answer=delete_unknown,
                roles=ADMIN,
                # It goes from the list once the agent says that nothing is left of it.
                status=202,
                also=(409,),
            ),
        ),
    ),
    Route(
        path="/api/v1/clusters/{cluster}/inspect",
        operations=(
            Operation(
                method="GET",
                name="inspect_cluster",
                summary="Ask a cluster's agent what it holds",
                answer=inspect,
                roles=ADMIN,
                response=Inspection,
            ),
        ),
    ),
)
