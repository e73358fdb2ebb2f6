"""What the store keeps besides jobs and attempts, and what its readers ask and get."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from ...model.jobs import Job, Phase
from ...model.resources import Capacity

Role = Literal["admin", "user", "viewer"]
ChangeKind = Literal["job", "job.deleted", "attempt", "cluster", "cluster.deleted", "agent", "token.deleted"]


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster that has joined, or that was added and may join."""

    name: str
    organisation: str = "default"
    #: what its connection is like: "new" | "connected" | "away"
    state: str = "new"
    capacity: Capacity = Capacity()
    #: seconds since the epoch, as are all times
    created: float
    #: when the capacity was reported
    capacity_at: float | None = None
    #: closed for new jobs by its admin
    drained: bool = False
    #: what its agent can do beyond the protocol's first form
    capabilities: tuple[str, ...] = ()


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's identity; only the SHA-256 of its credential is known."""

    id: str
    cluster: str
    credential_hash: str
    created: float
    revoked: bool = False
    version: str = ""
    #: when it was last heard
    seen: float | None = None
    boot_id: str = ""


class JoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """A short-lived token, usable once, by which an agent joins a cluster."""

    hash: str
    cluster: str
    expires: float


class ApiToken(msgspec.Struct, frozen=True, kw_only=True):
    """A person's token; only its SHA-256 is known."""

    id: str
    hash: str
    user: str
    role: Role = "user"
    project: str = "default"
    organisation: str = "default"
    created: float
    #: never, when absent
    expires: float | None = None


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who may act as the one holder of a name, until when; a new holder has a higher epoch."""

    name: str
    holder_id: str
    holder_url: str
    epoch: int
    expires: float


class UnknownAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that an agent holds and this store doesn't know: kept for an admin to decide about."""

    cluster: str
    job: str
    attempt: int
    incarnation: str
    #: when it was first reported
    since: float


class ChangeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the change log."""

    id: int
    time: float
    kind: ChangeKind
    #: job id, "<job>/<attempt number>", cluster name or agent id
    object_id: str
    organisation: str
    #: empty for what belongs to no project (clusters, agents)
    project: str
    #: empty for what belongs to no person (clusters, agents)
    owner: str
    #: empty where none is concerned
    cluster: str
    #: the object as JSON, as it was after the change; {"id": …} when it was deleted
    payload: bytes


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something in a job's life, for people to read."""

    id: int
    job: str
    time: float
    code: str
    message: str
    attempt: int | None = None


class StoredObject(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that are kept for their owner."""

    organisation: str
    owner: str
    #: SHA-256, hexadecimal
    digest: str
    #: bytes
    size: int
    #: of its file
    name: str
    created: float
    #: when it was last stored, asked for or let go of by a job
    used: float


class Remembered(NamedTuple):
    """What was answered to an idempotent request: the request's digest and the answer."""

    digest: str
    answer: bytes


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs to list; what is absent doesn't narrow."""

    owner: str | None = None
    project: str | None = None
    organisation: str | None = None
    phases: tuple[Phase, ...] = ()
    cluster: str | None = None
    #: all of these labels
    label: dict[str, str] = {}
    #: part of the job's name, without regard to case
    name: str | None = None


class ChangeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes to read. *owner* and *project* narrow only what belongs to somebody: clusters and agents pass."""

    owner: str | None = None
    project: str | None = None
    organisation: str | None = None
    cluster: str | None = None
    kinds: tuple[ChangeKind, ...] = ()

    def admits(self, row: ChangeRow) -> bool:
        """Say of a row that was read without a filter whether this one would have let it pass."""
        return (
            (self.owner is None or row.owner in (self.owner, ""))
            and (self.project is None or row.project in (self.project, ""))
            and self.organisation in (None, row.organisation)
            and self.cluster in (None, row.cluster)
            and (not self.kinds or row.kind in self.kinds)
        )


class JobPage(NamedTuple):
    items: list[Job]
    #: pass it as *after* for the next page; None at the end
    next: str | None
    #: the change log's position in the very snapshot that was listed: follow changes from here and miss nothing
    log_position: int


class ChangePage(NamedTuple):
    items: list[ChangeRow]
    #: pass it as *after* next time; it moves past rows that the filter left out, too
    next: int


class OutputPage(NamedTuple):
    #: (position, attempt, replica, line): positions count from 1 without holes; lines end with a newline
    records: list[tuple[int, int, int, bytes]]
    #: pass it as *after* next time
    next: int
