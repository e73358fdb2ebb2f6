"""The tables. Two sets, since output has a lane of its own: with SQLite each set is a file of its own.

What queries look at has a column; the object itself is JSON in ``payload``, with the version of its form beside it.
A new store gets these tables as they are; the revisions in ``migrations/`` make them of an older one (`schema`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    Index,
    Insert,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)
from sqlalchemy import event as sqlalchemy_event

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.sql.elements import ColumnElement

T = TypeVar("T")

#: The form of stored payloads; fields are only added within one.
PAYLOAD_VERSION = 1

#: SQLite numbers rows by itself only in a column declared INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")

control = MetaData()
output = MetaData()


def _payload() -> tuple[Column[int], Column[bytes]]:
    return Column("payload_version", Integer, nullable=False), Column("payload", LargeBinary, nullable=False)


def _scope() -> tuple[Column[str], Column[str], Column[str]]:
    return (
        Column("organisation", String, nullable=False),
        Column("project", String, nullable=False),
        Column("owner", String, nullable=False),
    )


meta = Table("meta", control, Column("key", String, primary_key=True), Column("value", String, nullable=False))

change = Table(
    "change",
    control,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("object_id", String, nullable=False),
    *_scope(),
    Column("cluster", String, nullable=False),
    *_payload(),
    # Ids are never given twice, even after the newest rows were trimmed.
    sqlite_autoincrement=True,
)

job = Table(
    "job",
    control,
    Column("id", String, primary_key=True),
    *_scope(),
    Column("phase", String, nullable=False),
    Column("cluster", String),
    Column("name", String, nullable=False),
    *_payload(),
    # seconds since the epoch; what retention goes by
    Column("ended", Float),
    Index("job_by_owner", "organisation", "owner", "phase", "id"),
    Index("job_by_project", "organisation", "project", "phase", "id"),
    Index("job_by_cluster", "cluster", "phase", "id"),
    Index("job_by_phase", "phase", "id"),
)
# Said in SQL, as an index of some rows: SQLAlchemy's own way to say it loads the dialects of both databases.
_by_end: DDL = DDL("CREATE INDEX job_by_end ON job (ended) WHERE ended IS NOT NULL")  # type: ignore[no-untyped-call]  # SQLAlchemy's DDL is untyped
sqlalchemy_event.listen(job, "after_create", _by_end)

job_label = Table(
    "job_label",
    control,
    Column("job", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
    Index("job_label_by_value", "key", "value", "job"),
)

event = Table(
    "event",
    control,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("job", String, nullable=False),
    Column("time", Float, nullable=False),
    Column("code", String, nullable=False),
    Column("message", String, nullable=False),
    Column("attempt", Integer),
    Index("event_by_job", "job", "id"),
    sqlite_autoincrement=True,
)

attempt = Table(
    "attempt",
    control,
    Column("job", String, primary_key=True),
    Column("number", Integer, primary_key=True),
    # its job's, kept here since an attempt may outlive its job
    *_scope(),
    Column("cluster", String, nullable=False),
    Column("state", String, nullable=False),
    Column("forgotten", Boolean, nullable=False),
    *_payload(),
    Index("attempt_by_cluster", "cluster", "forgotten"),
    Index("attempt_by_state", "state"),
)

remembered = Table(
    "remembered",
    control,
    Column("owner", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
    Index("remembered_by_age", "created"),
)

cluster = Table(
    "cluster",
    control,
    Column("name", String, primary_key=True),
    Column("organisation", String, nullable=False),
    *_payload(),
)

agent = Table(
    "agent",
    control,
    Column("id", String, primary_key=True),
    Column("cluster", String, nullable=False),
    Column("credential_hash", String, nullable=False, unique=True),
    *_payload(),
    Index("agent_by_cluster", "cluster"),
)

join_token = Table(
    "join_token",
    control,
    Column("hash", String, primary_key=True),
    Column("cluster", String, nullable=False),
    Column("expires", Float, nullable=False),
)

api_token = Table(
    "api_token",
    control,
    Column("id", String, primary_key=True),
    Column("hash", String, nullable=False, unique=True),
    *_payload(),
)

lease = Table(
    "lease",
    control,
    Column("name", String, primary_key=True),
    Column("holder_id", String, nullable=False),
    Column("holder_url", String, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires", Float, nullable=False),
)

unknown_attempt = Table(
    "unknown_attempt",
    control,
    Column("cluster", String, primary_key=True),
    Column("job", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("incarnation", String, nullable=False),
    Column("since", Float, nullable=False),
)

#: Values in and out: bytes kept for their owner, named by their SHA-256. The bytes are in a file.
stored_object = Table(
    "object",
    control,
    Column("organisation", String, primary_key=True),
    Column("owner", String, primary_key=True),
    Column("digest", String, primary_key=True),
    Column("size", BigInteger, nullable=False),
    # relative to the objects' URL, so that they can be moved; each upload has a name of its own
    Column("name", String, nullable=False, unique=True),
    Column("created", Float, nullable=False),
    # when it was last stored, asked for or let go of by a job
    Column("used", Float, nullable=False),
    Index("object_by_digest", "digest"),
    Index("object_by_use", "used"),
)

#: Which objects a job needs or has made: they stay while it does.
job_object = Table(
    "job_object",
    control,
    Column("job", String, primary_key=True),
    Column("organisation", String, primary_key=True),
    Column("owner", String, primary_key=True),
    Column("digest", String, primary_key=True),
    Index("job_object_by_object", "organisation", "owner", "digest"),
)

#: One row per job: the end of its log and the fence. Whoever appends locks it.
output_job = Table(
    "output_job",
    output,
    Column("job", String, primary_key=True),
    Column("newest_attempt", Integer, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
)

output_stream = Table(
    "output_stream",
    output,
    Column("job", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("replica", Integer, primary_key=True),
    Column("execution", Integer, primary_key=True),
    Column("incarnation", String, nullable=False),
    Column("cluster", String, nullable=False),
    Column("next_seq", BigInteger, nullable=False),
    Column("max_bytes", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    # its output reached max_bytes: the notice is written, the rest is dropped
    Column("cut", Boolean, nullable=False),
)

output_chunk = Table(
    "output_chunk",
    output,
    Column("job", String, primary_key=True),
    # position of its last record
    Column("last", BigInteger, primary_key=True),
    Column("records", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("replica", Integer, nullable=False),
    # bytes before compression
    Column("size", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
# The chunks are compressed already; the server's own compression would only slow it down.
_as_it_is: DDL = DDL("ALTER TABLE output_chunk ALTER COLUMN data SET STORAGE EXTERNAL")  # type: ignore[no-untyped-call]  # SQLAlchemy's DDL is untyped
sqlalchemy_event.listen(output_chunk, "after_create", _as_it_is.execute_if(dialect="postgresql"))

output_segment = Table(
    "output_segment",
    output,
    Column("job", String, primary_key=True),
    # position of its last record
    Column("last", BigInteger, primary_key=True),
    # relative to the segments' URL, so that they can be moved
    Column("name", String, nullable=False),
    # msgpack: [[last, count, attempt, replica, size, offset, stored size], …]
    Column("index", LargeBinary, nullable=False),
)


def padded(values: Iterable[T]) -> list[T]:
    """Repeat the last of some values until there are as many as a power of two.

    Each connection keeps the statements that it has seen, and one with a list is another for each length of it.
    """
    listed = list(values)
    return listed + listed[-1:] * (2 ** (len(listed) - 1).bit_length() - len(listed)) if listed else listed


def among(column: ColumnElement[str], values: Iterable[str]) -> ColumnElement[bool]:
    """Say that a column holds one of some values."""
    return column.in_(padded(values))


def _insert(dialect: Dialect, table: Table) -> sqlite.Insert | postgresql.Insert:
    # Only the dialect in use is loaded: the other one is megabytes that an idle service would hold for nothing.
    if dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def insert_missing(dialect: Dialect, table: Table) -> Insert:
    """Return an insert that leaves a row alone which is there already."""
    return _insert(dialect, table).on_conflict_do_nothing()
