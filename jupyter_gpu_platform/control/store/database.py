"""The databases behind the store: opening, migrating, and turning their errors into ours.

SQLite: two files in one directory, ``control.db`` and ``output.db``, so that output never waits for the change log's
writer. PostgreSQL: one database; the two sets of tables never share a lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ... import errors
from . import schema, tables
from .signals import Listener, Position, Signals
from .transaction import Transaction

#: f_type of file systems that are shared by machines, where SQLite's WAL breaks: NFS, SMB, CIFS, SMB2, AFS.
_SHARED = {0x6969: "NFS", 0x517B: "SMB", 0xFF534D42: "CIFS", 0xFE534D42: "SMB", 0x5346414F: "AFS"}

#: Keys of PostgreSQL's advisory locks: writers of the change log take turns; one process migrates at a time.
TURN_LOCK = 0x6A677031
_MIGRATION_LOCK = 0x6A677032

#: Of a PostgreSQL that is gone without a word (its machine, or the way to it), the system would tell us after two hours
#: where we wait for an answer, and after a quarter of one where we send. What the URL says itself goes before these.
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

#: A write-ahead log that has grown beyond this (a long read held it) is cut to it once it could be written back, bytes.
_KEPT_WAL = 16 * 2**20


def refuse_shared_filesystem(fs_type: int, path: Path) -> None:
    """Raise LocalPlatformError where *fs_type* (statfs's ``f_type``) is one that several machines share."""
    kind = _SHARED.get(fs_type & 0xFFFFFFFF)
    if kind is not None:
        raise errors.LocalPlatformError(
            f"{path} is on {kind}, where the platform's SQLite database would be damaged",
            hint="Set JUPYTER_GPU_STATE_DIR to a directory on a local disk, for example below /var/tmp.",
        )


def filesystem_type(path: Path) -> int:
    """Return statfs's ``f_type`` of *path*; 0 where the system can't say."""
    statfs = getattr(ctypes.CDLL(None, use_errno=True), "statfs", None)
    buffer = ctypes.create_string_buffer(256)
    if statfs is None or statfs(bytes(path), buffer) != 0:
        return 0
    # The first field of Linux's struct statfs is f_type, a long.
    return ctypes.c_long.from_buffer(buffer).value


def translate(error: SQLAlchemyError) -> errors.GpuPlatformError:
    """Turn a database's error into ours."""
    original = getattr(error, "orig", None)
    name = getattr(original, "sqlite_errorname", "")
    state = getattr(original, "sqlstate", "") or ""
    if name == "SQLITE_FULL" or name.startswith("SQLITE_READONLY") or state == "53100":
        return errors.StorageFull(
            f"the store can't be written: {original}", hint="Free disk space, or make its directory writable."
        )
    if isinstance(error, IntegrityError):
        return errors.Conflict("the store has such a row already")
    if isinstance(error, (OperationalError, InterfaceError, PoolTimeout)):
        return errors.Unavailable(f"the store can't be used now: {original or error}", hint="Try again.")
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return errors.Unavailable("the connection to the store was lost", hint="Try again.")
    return errors.InternalError(f"the store refused a statement: {original or error}")


@contextmanager
def translated() -> Iterator[None]:
    """Let the database's errors inside become ours."""
    try:
        yield
    except SQLAlchemyError as error:
        raise translate(error) from error


class Database:
    """The opened store; what `Writer`, `Reader`, `ChangeFeed` and `OutputLane` stand on."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        #: random, made with the store: tells a restored or another store from the one an agent knew
        self.incarnation = ""
        if self.is_sqlite:
            control, output = Path(str(url.database)), Path(str(url.database)).with_name("output.db")
            self._control, self._control_reads = _sqlite(control), _sqlite(control, read_only=True)
            self._output, self._output_reads = _sqlite(output), _sqlite(output, read_only=True)
        else:
            # Recycled before use: a server that was restarted costs nobody an error.
            engine = create_engine(
                url, pool_size=12, max_overflow=8, pool_timeout=30, pool_pre_ping=True, hide_parameters=True
            )
            self._control = self._output = engine
            snapshot = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._control_reads = self._output_reads = snapshot
        #: wakes who waits for the change log, and who waits for a job's output
        self.changes = Position()
        self.outputs = Signals()
        self._listener = None if self.is_sqlite else Listener(self)

    @property
    def first(self) -> bool:
        """Whether this replica, of those that live, is the one whose connection holds the lock (`Listener`)."""
        return self._listener is not None and self._listener.first

    @property
    def reconnects(self) -> int:
        """How often the listening connection had to be made again."""
        return max(self._listener.connections - 1, 0) if self._listener is not None else 0

    @classmethod
    def open(cls, url: str) -> Database:
        """Open the store at *url*, made or migrated where it has to be.

        :param url: ``sqlite:////path/control.db`` (``output.db`` lies beside it) or ``postgresql://…``.
        :raises StoreTooNew: a newer release wrote it.
        :raises LocalPlatformError: the file would lie on a file system where SQLite breaks.
        :raises StorageFull: nothing can be written there.
        :raises Unavailable: the database can't be reached.
        """
        database = cls(_checked(url))
        try:
            with translated():
                database._migrate()
                database._identify()
        except BaseException:
            database.close()
            raise
        if database._listener is not None:
            database._listener.start()
        return database

    @classmethod
    def inspect(cls, url: str) -> Database:
        """Open the store at *url* as it is, made by this release or one like it: nothing is made or migrated.

        :raises LocalPlatformError: there is none, or an older release wrote it.
        :raises StoreTooNew: a newer release wrote it.
        :raises Unavailable: the database can't be reached.
        """
        parsed = _checked(url)
        if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).exists():
            raise errors.LocalPlatformError(f"there is no store {parsed.database}", hint="Name it with --state-dir.")
        database = cls(parsed)
        try:
            with translated(), database.read() as connection, database.read_output() as output:
                for part, side in (("control", connection), ("output", output)):
                    have = schema.known(side, part)
                    if have != schema.revisions()[-1]:
                        raise errors.LocalPlatformError(
                            f"an older release wrote the store (its schema: {have or 'none'})",
                            hint="Start the service once: it brings the store up to date.",
                        )
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Close every connection. Writers, readers and the output lane are closed first."""
        if self._listener is not None:
            self._listener.close()
        for engine in (self._control, self._control_reads, self._output, self._output_reads):
            engine.dispose()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give the main store's one writing transaction: writers, of all replicas, take turns.

        So change ids become visible in their order, and no reader of the log can skip a row.
        """
        with self._control.connect() as connection, connection.begin():
            if not self.is_sqlite:
                # A replica that hangs with the turn in its hands loses it, and the others say so meanwhile.
                connection.exec_driver_sql(
                    "SET LOCAL lock_timeout = '15s'; SET LOCAL idle_in_transaction_session_timeout = '30s'; "
                    f"SELECT pg_advisory_xact_lock({TURN_LOCK})"
                )
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a snapshot of the main store."""
        with self._control_reads.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write_output(self) -> Iterator[Connection]:
        """Give a writing transaction of the output lane, which waits for rows of the same jobs at most."""
        with self._output.connect() as connection, connection.begin():
            if not self.is_sqlite:
                connection.exec_driver_sql(
                    "SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '30s'"
                )
            yield connection

    @contextmanager
    def read_output(self) -> Iterator[Connection]:
        """Give a snapshot of the output lane."""
        with self._output_reads.connect() as connection, connection.begin():
            yield connection

    def checkpoint(self) -> int:
        """Write SQLite's logs back into its files as far as no reader needs them; returns the bytes they have left.

        It waits for nobody: where a reader or the writer is in the way, the next look goes on.
        """
        left = 0
        for engine in (self._control, self._output) if self.is_sqlite else ():
            path = Path(f"{engine.url.database}-wal")
            with (
                contextlib.suppress(sqlite3.OperationalError),
                contextlib.closing(sqlite3.connect(str(engine.url.database), timeout=0)) as connection,
            ):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").close()
                if path.exists() and path.stat().st_size > _KEPT_WAL:
                    # What is left is little by now, so the writer is held up for a moment at most.
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
            left += path.stat().st_size if path.exists() else 0
        return left

    def notify(self, connection: Connection, channel: str, payloads: list[str]) -> None:
        """Tell the other replicas, at this transaction's commit. With SQLite there are none."""
        if payloads and not self.is_sqlite:
            rows = [{"channel": channel, "payload": payload} for payload in payloads]
            connection.execute(text("SELECT pg_notify(:channel, :payload)"), rows)

    def _migrate(self) -> None:
        for part, engine in (("control", self._control), ("output", self._output)):
            with schema.migrating, engine.connect() as connection, connection.begin():
                if not self.is_sqlite:
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
                schema.bring_up_to_date(connection, part)

    def _identify(self) -> None:
        with self.write() as connection:
            made = {"key": "incarnation", "value": secrets.token_hex(8)}
            connection.execute(tables.insert_missing(connection.dialect, tables.meta), made)
            query = select(tables.meta.c.value).where(tables.meta.c.key == "incarnation")
            self.incarnation = connection.execute(query).scalar_one()
            self.changes.advance(Transaction(connection, time.time).revision())


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except ArgumentError as error:
        raise errors.InvalidRequest("the database URL can't be read", hint="sqlite:////path/control.db") from error
    if backend == "sqlite" and parsed.database:
        directory = Path(parsed.database).parent
        if not directory.is_dir():
            raise errors.LocalPlatformError(f"there is no directory {directory}", hint="Make it, then try again.")
        refuse_shared_filesystem(filesystem_type(directory), directory)
        return parsed
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg", query={**_PATIENCE, **parsed.query})
    raise errors.InvalidRequest(
        f"the store can't live in {backend}", hint="Use sqlite:////path/control.db or postgresql://user@host/name."
    )


def _sqlite(path: Path, *, read_only: bool = False) -> Engine:
    url = URL.create("sqlite+pysqlite", database=str(path))
    # What a statement carries, such as a job's environment, is in no error's text.
    engine = create_engine(url, pool_size=8, pool_timeout=30, hide_parameters=True)
    # One writer per file, and its transaction takes the lock at once: it never has to give up a snapshot half-way.
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, _record: Any) -> None:
        # Python's own handling of transactions is off: we say BEGIN ourselves.
        connection.isolation_level = None
        pragmas = ["busy_timeout = 10000", "foreign_keys = ON", "temp_store = MEMORY"]
        if read_only:
            pragmas.append("query_only = ON")
        else:
            # A new file can give freed pages back in small steps; of an older one only VACUUM would make such a file.
            pragmas.append("auto_vacuum = INCREMENTAL")
            # FULL: what was acknowledged survives a power cut, too; group commit pays for the fsync.
            pragmas += ["journal_mode = WAL", "synchronous = FULL", f"journal_size_limit = {_KEPT_WAL}"]
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
