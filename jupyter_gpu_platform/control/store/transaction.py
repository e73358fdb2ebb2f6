"""What may be done inside one transaction of the main store. Every change appends its row to the change log."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from ...model.jobs import Attempt, Job
from . import rows


class Transaction:
    """The main store as one transaction sees it; made by `Writer.run` and `Reader.run`."""

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        raise NotImplementedError

    # jobs
    def job(self, job_id: str) -> Job | None:
        raise NotImplementedError

    def jobs_queued(self) -> list[Job]:
        raise NotImplementedError

    def insert_job(self, job: Job) -> None:
        raise NotImplementedError  # Conflict: exists

    def put_job(self, job: Job) -> None:
        raise NotImplementedError

    def delete_job(self, job_id: str) -> bool:
        raise NotImplementedError

    def event(self, job: str, code: str, message: str, attempt: int | None = None) -> None:
        raise NotImplementedError

    # attempts
    def attempt(self, job: str, number: int) -> Attempt | None:
        raise NotImplementedError

    def attempts(self, job: str) -> list[Attempt]:
        raise NotImplementedError

    def attempts_open(self) -> list[Attempt]:
        raise NotImplementedError

    def attempts_of(self, cluster: str) -> list[Attempt]:
        raise NotImplementedError

    def put_attempt(self, attempt: Attempt) -> None:
        raise NotImplementedError

    # idempotency
    def idempotent(self, owner: str, key: str) -> rows.Remembered | None:
        raise NotImplementedError

    def remember(self, owner: str, key: str, digest: str, answer: bytes) -> None:
        raise NotImplementedError

    def trim_remembered(self, before: float) -> int:
        raise NotImplementedError

    # clusters and agents
    def cluster(self, name: str) -> rows.Cluster | None:
        raise NotImplementedError

    def clusters(self) -> list[rows.Cluster]:
        raise NotImplementedError

    def put_cluster(self, cluster: rows.Cluster) -> None:
        raise NotImplementedError

    def delete_cluster(self, name: str) -> bool:
        raise NotImplementedError

    def agent(self, agent_id: str) -> rows.Agent | None:
        raise NotImplementedError

    def agent_by_hash(self, credential_hash: str) -> rows.Agent | None:
        raise NotImplementedError

    def agents(self, cluster: str | None = None) -> list[rows.Agent]:
        raise NotImplementedError

    def put_agent(self, agent: rows.Agent) -> None:
        raise NotImplementedError

    # tokens
    def put_join_token(self, token: rows.JoinToken) -> None:
        raise NotImplementedError

    def take_join_token(self, token_hash: str) -> rows.JoinToken | None:
        raise NotImplementedError

    def put_token(self, token: rows.ApiToken) -> None:
        raise NotImplementedError

    def token_by_hash(self, token_hash: str) -> rows.ApiToken | None:
        raise NotImplementedError

    def tokens(self) -> list[rows.ApiToken]:
        raise NotImplementedError

    def delete_token(self, token_id: str) -> bool:
        raise NotImplementedError

    # leases
    def lease(self, name: str) -> rows.Lease | None:
        raise NotImplementedError

    def acquire_lease(
        self, name: str, holder_url: str, holder_id: str, ttl: float, now: float, *, force: bool = False
    ) -> rows.Lease | None:
        raise NotImplementedError

    def release_lease(self, name: str, holder_id: str) -> None:
        raise NotImplementedError

    # attempts that this store doesn't know
    def put_unknown(self, cluster: str, job: str, attempt: int, incarnation: str, now: float) -> None:
        raise NotImplementedError

    def unknown(self, cluster: str | None = None) -> list[rows.UnknownAttempt]:
        raise NotImplementedError

    def delete_unknown(self, cluster: str, job: str, attempt: int) -> bool:
        raise NotImplementedError

    # the change log
    def revision(self) -> int:
        raise NotImplementedError

    def trim_changes(self, before_id: int) -> int:
        raise NotImplementedError  # rows with id < before_id go
