"""Who holds what among replicas: leases with epochs, so that what an older holder does is recognised as old.

Three names: ``planner`` (one replica plans), ``replica:<id>`` (the replica lives; renewed every few seconds) and
``agent:<id>`` (the connection that speaks for an agent). An agent's lease isn't renewed: it is as alive as its
replica's, so that a thousand agents cost one write, and ends a moment after its connection.
"""

from __future__ import annotations

from collections.abc import Collection

from .store.rows import Lease
from .store.transaction import Transaction

#: Seconds that a replica's or the planner's lease lasts without being renewed, and that a lost agent may stay unheard.
TTL = 15.0
RENEW = TTL / 3
_CONNECTED = 10 * 365 * 86400.0

PLANNER = "planner"


def agent_lease(agent_id: str) -> str:
    return f"agent:{agent_id}"


def _replica_lease(replica_id: str) -> str:
    return f"replica:{replica_id}"


def replica_of(lease: Lease) -> str:
    """The replica that an agent's lease names."""
    return lease.holder_id.partition("/")[0]


def of_agents(tx: Transaction, agent_ids: Collection[str]) -> dict[str, Lease]:
    """Return the leases of these agents, by agent: one question for a thousand."""
    names = {agent_lease(agent_id): agent_id for agent_id in agent_ids}
    return {names[lease.name]: lease for lease in tx.leases(names)}


def keep_replica(tx: Transaction, replica_id: str, url: str, now: float) -> None:
    """Say that this replica lives."""
    tx.acquire_lease(_replica_lease(replica_id), url, replica_id, TTL, now, force=True)


def end_replica(tx: Transaction, replica_id: str) -> None:
    tx.release_lease(_replica_lease(replica_id), replica_id)


def connected(tx: Transaction, agent_id: str, *, holder_id: str, url: str, now: float) -> int:
    """Give an agent to its newest connection; returns the epoch."""
    lease = tx.acquire_lease(agent_lease(agent_id), url, holder_id, _CONNECTED, now, force=True)
    if lease is None:
        raise AssertionError("a forced lease was refused")
    return lease.epoch


def disconnected(tx: Transaction, agent_id: str, *, holder_id: str, epoch: int, url: str, now: float) -> None:
    """Let the lease run out, unless a newer connection holds it by now."""
    lease = tx.lease(agent_lease(agent_id))
    if lease is not None and lease.holder_id == holder_id and lease.epoch == epoch:
        tx.acquire_lease(agent_lease(agent_id), url, holder_id, TTL, now)


def alive(tx: Transaction, lease: Lease | None, now: float) -> bool:
    """Whether an agent's lease still stands for a connection, or for one just lost."""
    if lease is None or lease.expires <= now:
        return False
    replica = tx.lease(_replica_lease(replica_of(lease)))
    return replica is not None and replica.expires > now


def heard(tx: Transaction, now: float, cluster: str | None = None) -> set[str]:
    """Name the clusters (or that one) of which an agent is connected, or was a moment ago: a few questions for all."""
    agents = [agent for agent in tx.agents(cluster) if not agent.revoked]
    held = {name: lease for name, lease in of_agents(tx, [agent.id for agent in agents]).items() if lease.expires > now}
    replicas = tx.leases({_replica_lease(replica_of(lease)) for lease in held.values()})
    living = {replica.name for replica in replicas if replica.expires > now}
    speaking = {name for name, lease in held.items() if _replica_lease(replica_of(lease)) in living}
    return {agent.cluster for agent in agents if agent.id in speaking}
