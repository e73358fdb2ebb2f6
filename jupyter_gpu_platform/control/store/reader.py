"""Reading the main store, each time in one snapshot, on threads of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Select, or_, select, text

from ... import errors
from ...model.jobs import Attempt, Job
from . import rows, tables
from .database import Database, translated
from .listing import page_of
from .transaction import Transaction, decode_jobs

T = TypeVar("T")


class Reader:
    """Questions to the main store; none waits for the writer."""

    def __init__(self, database: Database, *, threads: int = 4) -> None:
        self._database = database
        self._pool = ThreadPoolExecutor(threads, "store-reader")

    async def run(self, question: Callable[[Transaction], T]) -> T:
        """Run *question*, which only reads, in one snapshot.

        :raises Unavailable: the database can't be reached.
        """

        def ask() -> T:
            with translated(), self._database.read() as connection:
                transaction = Transaction(connection, time.time)
                answer = question(transaction)
                transaction.flush()  # which the connection refuses: who writes here learns it
                return answer

        try:
            asked = asyncio.get_running_loop().run_in_executor(self._pool, ask)
        except RuntimeError:
            raise errors.Unavailable("the store is being closed", hint="Try again in a moment.") from None
        return await asked

    async def job(self, job_id: str) -> Job | None:
        return await self.run(lambda transaction: transaction.job(job_id))

    async def jobs(self, filter: rows.JobFilter, limit: int = 100, after: str | None = None) -> rows.JobPage:  # noqa: A002 -- the word for it
        """List jobs, the newest first.

        :raises FilterTooBroad: no index finds them, and the newest that one finds hold too few.
        """
        return await self.run(lambda transaction: _jobs(transaction, filter, limit, after))

    async def attempts(self, job: str) -> list[Attempt]:
        return await self.run(lambda transaction: transaction.attempts(job))

    async def events(self, job: str, after: int = 0, limit: int = 100) -> list[rows.Event]:
        """Return a job's events with ids above *after*, in order."""
        return await self.run(lambda transaction: _events(transaction, job, after, limit))

    async def changes(
        self,
        after: int,
        limit: int = 1000,
        filter: rows.ChangeFilter | None = None,  # noqa: A002 -- the word for it
    ) -> rows.ChangePage:
        """Return the changes after a position, in order.

        :raises Gone: rows after that position were trimmed away, or this store never reached it.
        """
        return await self.run(lambda transaction: changes_of(transaction, after, limit, filter or rows.ChangeFilter()))

    async def position(self) -> int:
        """Return the change log's position."""
        return await self.run(Transaction.revision)

    async def clusters(self) -> list[rows.Cluster]:
        return await self.run(Transaction.clusters)

    async def agents(self, cluster: str | None = None) -> list[rows.Agent]:
        return await self.run(lambda transaction: transaction.agents(cluster))

    async def unknown(self, cluster: str | None = None) -> list[rows.UnknownAttempt]:
        return await self.run(lambda transaction: transaction.unknown(cluster))

    async def tokens(self) -> list[rows.ApiToken]:
        return await self.run(Transaction.tokens)

    async def ping(self) -> None:
        """Raise Unavailable where the database doesn't answer."""
        await self.run(lambda transaction: transaction.connection.execute(text("SELECT 1")).scalar())

    async def close(self) -> None:
        """End the threads, once what they do is done."""
        await asyncio.to_thread(self._pool.shutdown)


def _jobs(transaction: Transaction, wanted: rows.JobFilter, limit: int, after: str | None) -> rows.JobPage:
    found, more = page_of(transaction, wanted, limit, after)
    jobs = decode_jobs(found)
    return rows.JobPage(jobs, jobs[-1].id if more else None, transaction.revision())


def _events(transaction: Transaction, job: str, after: int, limit: int) -> list[rows.Event]:
    row = tables.event.c
    query = select(tables.event).where(row.job == job, row.id > after).order_by(row.id).limit(limit)
    return [rows.Event(**found) for found in transaction.connection.execute(query).mappings()]


def changes_of(transaction: Transaction, after: int, limit: int, wanted: rows.ChangeFilter) -> rows.ChangePage:
    oldest, newest = transaction.span()
    if not oldest <= after <= newest:
        raise errors.Gone(
            f"the change log can't be followed from {after}: it begins after {oldest} and ends at {newest}",
            hint="List again, and follow from the position that the list answers with.",
        )
    query = _wanted(wanted).where(tables.change.c.id > after).order_by(tables.change.c.id).limit(limit)
    found = [rows.ChangeRow(**row) for row in transaction.connection.execute(query).mappings()]
    return rows.ChangePage(found, found[-1].id if len(found) == limit else newest)


def _wanted(wanted: rows.ChangeFilter) -> Select[tuple[object, ...]]:
    row = tables.change.c
    query = select(*(column for column in row if column.name != "payload_version"))
    for column in ("owner", "project"):
        value = getattr(wanted, column)
        if value is not None:
            query = query.where(or_(row[column] == value, row[column] == ""))
    for column in ("organisation", "cluster"):
        value = getattr(wanted, column)
        if value is not None:
            query = query.where(row[column] == value)
    if wanted.kinds:
        query = query.where(row.kind.in_(wanted.kinds))
    return query
