"""Reading the main store, each time in one snapshot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...model.jobs import Attempt, Job
from . import rows
from .database import Database
from .transaction import Transaction

T = TypeVar("T")


class Reader:
    def __init__(self, database: Database) -> None:
        raise NotImplementedError

    async def run(self, question: Callable[[Transaction], T]) -> T:
        raise NotImplementedError

    async def job(self, job_id: str) -> Job | None:
        raise NotImplementedError

    async def jobs(self, filter: rows.JobFilter, limit: int = 100, after: str | None = None) -> rows.JobPage:
        raise NotImplementedError

    async def attempts(self, job: str) -> list[Attempt]:
        raise NotImplementedError

    async def events(self, job: str, after: int = 0, limit: int = 100) -> list[rows.Event]:
        raise NotImplementedError

    async def changes(self, after: int, limit: int = 1000, filter: rows.ChangeFilter | None = None) -> rows.ChangePage:
        raise NotImplementedError

    async def position(self) -> int:
        raise NotImplementedError

    async def clusters(self) -> list[rows.Cluster]:
        raise NotImplementedError

    async def agents(self, cluster: str | None = None) -> list[rows.Agent]:
        raise NotImplementedError

    async def unknown(self, cluster: str | None = None) -> list[rows.UnknownAttempt]:
        raise NotImplementedError

    async def tokens(self) -> list[rows.ApiToken]:
        raise NotImplementedError

    async def ping(self) -> None:
        raise NotImplementedError  # Unavailable

    async def close(self) -> None:
        raise NotImplementedError
