"""What retention asks of the store, each small enough to share a transaction with everybody else's changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, delete, func, or_, select, text, tuple_
from sqlalchemy.sql.elements import ColumnElement

from . import tables
from .pending import replace_row
from .transaction import HOLDS, Transaction

_job = tables.job.c
_object, _held = tables.stored_object.c, tables.job_object.c


class Ended(NamedTuple):
    """An ended job's place in the order in which jobs go."""

    ended: float
    id: str


#: before every job
OLDEST = Ended(0.0, "")


class FileUse(NamedTuple):
    """What a database takes on its disk, bytes."""

    total: int
    #: given back by and by, or used again
    free: int


def ended(tx: Transaction, before: float, limit: int, after: Ended = OLDEST) -> list[Ended]:
    """List jobs that ended before a time, the one that ended first at the front."""
    return _listed(tx, before, limit, after, _job.ended.is_not(None))


def ended_with_objects(tx: Transaction, before: float, limit: int) -> list[Ended]:
    """List jobs that ended before a time and hold objects, the one that ended first at the front."""
    return _listed(tx, before, limit, OLDEST, select(_held.job).where(_held.job == _job.id).exists())


def _listed(tx: Transaction, before: float, limit: int, after: Ended, which: ColumnElement[bool]) -> list[Ended]:
    beyond = or_(_job.ended > after.ended, and_(_job.ended == after.ended, _job.id > after.id))
    query = select(_job.ended, _job.id).where(_job.ended < before, _job.ended >= after.ended, beyond, which)
    return [Ended(*row) for row in tx.connection.execute(query.order_by(_job.ended, _job.id).limit(limit))]


def count_ended(tx: Transaction) -> int:
    return int(tx.connection.execute(select(func.count()).where(_job.ended.is_not(None))).scalar_one())


def held_bytes(tx: Transaction) -> int:
    """Return the bytes of all objects that some job holds."""
    same = and_(_object.organisation == _held.organisation, _object.owner == _held.owner)
    held = select(_held.job).where(same, _object.digest == _held.digest).exists()
    return int(tx.connection.execute(select(func.sum(_object.size)).where(held)).scalar() or 0)


def delete_jobs(tx: Transaction, jobs: Sequence[Ended]) -> list[str]:
    """Delete those that ended when they are said to have: who was tried again meanwhile stays."""
    listed = {job.id: job.ended for job in jobs}
    now = tx.connection.execute(select(_job.id, _job.ended).where(tables.among(_job.id, listed)))
    return tx.delete_jobs([row.id for row in now if row.ended == listed[row.id]])


def end_of_old_changes(tx: Transaction, before: float, keep: int, limit: int) -> int:
    """Return the id up to which the oldest *limit* changes may go: by their time, or since more than *keep* follow."""
    row = tables.change.c
    beyond = tx.revision() - keep
    rows = tx.connection.execute(select(row.id, row.time).order_by(row.id).limit(limit)).all()
    end = 0
    for found in rows:
        if found.time >= before and found.id > beyond:
            break
        end = found.id
    return end


def delete_leftovers(tx: Transaction, before: float) -> int:
    """Remove join tokens and replicas' leases that ran out before a time: no replica uses another's name again."""
    token, lease = tables.join_token, tables.lease
    tokens = tx.connection.execute(delete(token).where(token.c.expires < before)).rowcount
    dead = lease.c.name.startswith("replica:"), lease.c.expires < before
    return tokens + tx.connection.execute(delete(lease).where(*dead)).rowcount


def unknown_jobs(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """Return which of these jobs are not in the store."""
    return set(ids) - set(tx.connection.execute(select(_job.id).where(tables.among(_job.id, ids))).scalars())


# --- the output lane


def output_bytes(connection: Connection) -> int:
    """Return the bytes of all output as it was written, before compression."""
    return int(connection.execute(select(func.sum(tables.output_job.c.size))).scalar() or 0)


def jobs_with_output(connection: Connection, after: str, limit: int) -> list[str]:
    """List, in the order of their names, the jobs beyond *after* that have a log."""
    row = tables.output_job.c
    return list(connection.execute(select(row.job).where(row.job > after).order_by(row.job).limit(limit)).scalars())


# --- the files


def file_use(connection: Connection) -> FileUse:
    if connection.dialect.name != "sqlite":
        size = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
        return FileUse(int(size), 0)
    page, total, free = (_pragma(connection, name) for name in ("page_size", "page_count", "freelist_count"))
    return FileUse(page * total, page * free)


def give_back(connection: Connection, pages: int) -> int:
    """Have SQLite give up to so many free pages back to the disk; returns how many it gave."""
    pages = min(pages, _pragma(connection, "freelist_count"))
    driver: Any = connection.connection.driver_connection
    for _ in range(pages):
        driver.execute("PRAGMA incremental_vacuum(1)")  # Python's sqlite3 gives back one a call, whatever it is told
    return pages


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def trim_remembered(tx: Transaction, before: float, limit: int = 1000) -> int:
    """Forget so many of the answers given before this time; returns how many."""
    row = tables.remembered.c
    old = select(row.owner, row.key).where(row.created < before).limit(limit)
    return tx.connection.execute(delete(tables.remembered).where(tuple_(row.owner, row.key).in_(old))).rowcount


def trim_changes(tx: Transaction, before_id: int) -> int:
    """Remove the changes with smaller ids, as far as no reader holds them; who has not read them gets Gone.

    Returns how many.
    """
    row, holds = tables.change.c, tables.meta.c
    held = tx.connection.execute(select(holds.value).where(holds.key.startswith(HOLDS))).scalars()
    before_id = min([before_id, *(int(position) + 1 for position in held)])
    last = tx.connection.execute(select(func.max(row.id)).where(row.id < before_id)).scalar()
    if last is None:
        return 0
    replace_row(tx.connection, tables.meta, {"key": "trimmed", "value": str(last)})
    return tx.connection.execute(delete(tables.change).where(row.id <= last)).rowcount
