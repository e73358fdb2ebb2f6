"""The one way to change the main store: operations, committed in groups (design §4.4)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError, SQLAlchemyError

from ... import errors
from .batches import BatchThread, Limits, Waiting, answer_all
from .database import Database, translate, translated
from .signals import CHANGE_CHANNEL
from .transaction import Transaction

T = TypeVar("T")

Operation = Callable[[Transaction], Any]
#: Whose Idempotency-Key: (owner, key).
Key = tuple[str, str]


class Asked(NamedTuple):
    """An operation, and the key whose earlier answer it will look up: those of a batch are looked up together."""

    operation: Operation
    key: Key | None


#: Errors of one operation's own statements; any other says that the database itself is in trouble.
_OWN_FAULT = (IntegrityError, DataError, ProgrammingError)

#: What an operation returned, or how it failed.
Outcome = tuple[Any, Exception | None]


class _Spoiled(Exception):
    """An operation failed after it had written something."""


class Writer:
    """Runs operations on a thread of its own, all that wait in one transaction.

    :param clock: gives the time of changes and events.
    :param queue_limit: so many operations may wait; more get TooManyRequests.
    """

    def __init__(
        self, database: Database, *, clock: Callable[[], float] = time.time, queue_limit: int = 10_000
    ) -> None:
        self._database = database
        self._clock = clock
        limits = Limits(batch_items=256, batch_weight=256, items=queue_limit, weight=queue_limit)
        self._batches = BatchThread[Asked]("store-writer", self._commit, limits)
        #: transactions committed so far, and operations in them
        self.transactions = 0
        self.operations = 0

    async def run(self, operation: Callable[[Transaction], T], *, own: bool = False, key: Key | None = None) -> T:
        """Run *operation* and return what it returns, once it is committed.

        It must do nothing but read and write the transaction: it holds up everybody else. What it raises undoes its
        own changes only, and is raised here.

        :param own: of the service itself or an agent, of which few wait at one time: a flood of requests must not turn
            away leases, plans, claims and ends.
        :param key: what the operation will look up with `Transaction.idempotent`.
        :raises TooManyRequests: too many wait already.
        :raises Unavailable: the database can't be reached, or the commit failed.
        """
        return cast("T", await self._batches.submit(Asked(operation, key), own=own))

    @property
    def lane(self) -> BatchThread[Asked]:
        """The queue and its thread, for figures."""
        return self._batches

    @property
    def waiting(self) -> int:
        """How many operations wait for their transaction."""
        return self._batches.waiting

    async def close(self) -> None:
        """Commit what waits, then end the thread."""
        await self._batches.close()

    def _commit(self, batch: Sequence[Waiting[Asked]]) -> None:
        try:
            with translated():
                try:
                    outcomes, position = self._transact(batch, _together)
                except _Spoiled:
                    outcomes, position = self._transact(batch, _each_apart)
        except errors.GpuPlatformError as error:
            answer_all(batch, error)
            return
        self.transactions += 1
        self.operations += len(batch)
        self._database.changes.advance(position)
        for waiting, (result, failure) in zip(batch, outcomes, strict=True):
            if failure is None:
                waiting.answer.set_result(result)
            else:
                waiting.answer.set_exception(failure)

    def _transact(
        self, batch: Sequence[Waiting[Asked]], run: Callable[[Transaction, Sequence[Operation]], list[Outcome]]
    ) -> tuple[list[Outcome], int]:
        """Run the operations in one transaction; returns what each came to, and the change log's position."""
        with self._database.write() as connection:
            transaction = Transaction(connection, self._clock)
            transaction.recall([waiting.item.key for waiting in batch if waiting.item.key])
            outcomes = run(transaction, [waiting.item.operation for waiting in batch])
            transaction.flush()
            position = transaction.revision() if transaction.changed else 0
            if position:
                self._database.notify(connection, CHANGE_CHANNEL, [str(position)])
        return outcomes, position


def _together(transaction: Transaction, operations: Sequence[Operation]) -> list[Outcome]:
    """Run operations without savepoints, which cost as much as the rows: most batches have no use for one.

    :raises _Spoiled: one failed and has to be undone alone; nothing of this transaction may stay.
    """
    outcomes: list[Outcome] = []
    for operation in operations:
        transaction.touched = False
        try:
            outcomes.append((operation(transaction), None))
        except Exception as error:
            if transaction.touched or isinstance(error, SQLAlchemyError):
                raise _Spoiled from error
            # Nothing is swallowed: it is raised again where the operation was asked for.
            outcomes.append((None, error))
    try:
        transaction.flush()
    except _OWN_FAULT as error:
        raise _Spoiled from error
    return outcomes


def _each_apart(transaction: Transaction, operations: Sequence[Operation]) -> list[Outcome]:
    """Run each operation inside a savepoint, so that one that fails undoes its own changes only."""
    return [_attempted(transaction, operation) for operation in operations]


def _attempted(transaction: Transaction, operation: Operation) -> Outcome:
    savepoint = transaction.connection.begin_nested()
    try:
        result = operation(transaction)
        transaction.flush()
    except Exception as error:
        if isinstance(error, SQLAlchemyError) and not isinstance(error, _OWN_FAULT):
            raise
        savepoint.rollback()
        transaction.forget()
        return None, translate(error) if isinstance(error, SQLAlchemyError) else error
    savepoint.commit()
    return result, None
