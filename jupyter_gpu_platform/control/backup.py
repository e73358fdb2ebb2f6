"""A copy of the whole store while it runs, and the way back from one (docs/contract.md, rule 7).

The copy is of one moment: both databases are read from snapshots taken one right after the other, the output's last,
so that no job's end is in it without the job's output. Segments and objects never change once they are named; one that
is gone before it was copied belonged to a job that was deleted meanwhile, which the copy then leaves out as well.

What is restored is another store, with an incarnation of its own: whatever the lost one did after the copy is unknown.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import msgspec
from fsspec.implementations.local import LocalFileSystem
from sqlalchemy import Connection, delete, func, select, text, update
from sqlalchemy.engine import make_url

from .. import errors
from .._version import __version__
from ..model.jobs import new_job_id
from .store import pending, tables
from .store.database import Database, translated
from .store.rows import Cluster
from .store.transaction import RESTORED

FORMAT = 1
MANIFEST = "backup.json"
#: Readers' positions in the lost store's log are below this many rows more than the copy has, so none is valid.
_SKIPPED_CHANGES = 1_000_000_000
#: Attempts are numbered from the seconds since then (2026) once a store was restored: above all that the lost one gave.
_EPOCH = 1_767_225_600
_PIECE = 2**20


class Manifest(msgspec.Struct, kw_only=True):
    """What ``backup.json`` says; it is written last, so where it is the backup is whole."""

    format: int = FORMAT
    version: str = __version__
    created: float
    incarnation: str
    #: schema of each database
    schema: dict[str, str]
    jobs: int
    #: segments and objects, and their bytes
    files: int
    bytes: int


def backup(database_url: str, segments_url: str, objects_url: str, target: Path) -> Manifest:
    """Copy a store, running or stopped, into a new directory.

    :raises LocalPlatformError: there is no such store, or *target* can't be used.
    """
    control = _sqlite_path(database_url, "backed up")
    if not control.exists():
        raise errors.LocalPlatformError(f"there is no store {control}", hint="Choose one with --state-dir.")
    with _disk(target):
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise errors.LocalPlatformError(f"{target} is not empty", hint="Choose a new directory for each backup.")
        copies = (target / "control.db", target / "output.db")
        _copy_databases((control, control.with_name("output.db")), copies)
        with contextlib.closing(_opened(copies[0])) as main, contextlib.closing(_opened(copies[1])) as output:
            files, size, lost = _copy_files(segments_url, target / "segments", _names(output, "output_segment"))
            _leave_out_jobs(main, output, lost)
            more, bytes_, lost = _copy_files(objects_url, target / "objects", _names(main, "object"))
            for name in lost:
                main.execute("DELETE FROM object WHERE name = ?", (name,))
            made = Manifest(
                created=time.time(),
                incarnation=main.execute("SELECT value FROM meta WHERE key = 'incarnation'").fetchone()[0],
                schema={"control": _schema(main, "control"), "output": _schema(output, "output")},
                jobs=main.execute("SELECT count(*) FROM job").fetchone()[0],
                files=files + more,
                bytes=size + bytes_,
            )
        _sync(*copies)
        (target / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(made)) + b"\n")
        _sync(target / MANIFEST, target)
    return made


def restore(source: Path, database_url: str, segments_url: str, objects_url: str) -> tuple[Manifest, Path | None]:
    """Put a backup in the place of a store that is stopped; returns where what was there before lies now.

    :raises LocalPlatformError: *source* is no backup, or can't be put there.
    """
    control = _sqlite_path(database_url, "restored")
    manifest = _manifest(source)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    staging, aside = control.parent / f"restoring-{stamp}", control.parent / f"replaced-{stamp}"
    with _disk(control.parent):
        staging.mkdir(mode=0o700)
        for name in ("control.db", "output.db"):
            shutil.copyfile(source / name, staging / name)
            with contextlib.closing(_opened(staging / name)) as copy:
                if copy.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                    raise errors.LocalPlatformError(f"{source / name} is damaged", hint="Restore another backup.")
        database = Database(make_url(f"sqlite:///{staging / 'control.db'}"))
        try:
            with translated(), database.write() as connection:
                renew(connection, time.time())
        finally:
            database.close()
        moved = _move_aside(aside, control, segments_url, objects_url)
        for url, name in ((segments_url, "segments"), (objects_url, "objects")):
            _put_files(source / name, url)
        for name, path in (("output.db", control.with_name("output.db")), ("control.db", control)):
            (staging / name).replace(path)
        staging.rmdir()
        _sync(control, control.with_name("output.db"), control.parent)
    return manifest, aside if moved else None


def renew(connection: Connection, now: float) -> None:
    """Make another store of one that was put back: nobody may take it for the one that went on after the copy."""
    pending.replace_row(connection, tables.meta, {"key": "incarnation", "value": secrets.token_hex(8)})
    newest = new_job_id(now, bytes([255] * 5))
    pending.replace_row(connection, tables.meta, {"key": RESTORED, "value": f"{newest} {int(now) - _EPOCH}"})
    _skip_changes(connection)
    # A cluster counts as reachable once its agent has said, to this store, what it holds.
    row = tables.cluster.c
    for name, payload in connection.execute(select(row.name, row.payload)).all():
        away = msgspec.structs.replace(msgspec.json.decode(bytes(payload), type=Cluster), state="away")
        connection.execute(update(tables.cluster).where(row.name == name).values(payload=msgspec.json.encode(away)))


def _skip_changes(connection: Connection) -> None:
    """Empty the change log and go on far above its end: every position that a reader may have is behind it."""
    key = tables.meta.c.key == "trimmed"
    newest = connection.execute(select(func.max(tables.change.c.id))).scalar() or 0
    trimmed = int(connection.execute(select(tables.meta.c.value).where(key)).scalar() or 0)
    end = max(newest, trimmed) + _SKIPPED_CHANGES
    connection.execute(delete(tables.change))
    pending.replace_row(connection, tables.meta, {"key": "trimmed", "value": str(end)})
    if connection.dialect.name == "sqlite":
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = 'change'"))
        connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES ('change', :end)"), {"end": end})
    else:
        connection.execute(text("SELECT setval('change_id_seq', :end)"), {"end": end})


# --- within


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise errors.LocalPlatformError(
            f"{path} can't be used: {error}", hint="Choose another directory, or free disk space."
        ) from error


def _sqlite_path(database_url: str, what: str) -> Path:
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise errors.InvalidRequest(
            f"a store in PostgreSQL is not {what} by this command",
            hint="Use pg_dump and pg_restore, then --restored: docs/operations-upkeep.md.",
        )
    return Path(url.database)


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=30)


def _copy_databases(sources: tuple[Path, Path], targets: tuple[Path, Path]) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(contextlib.closing(_opened(path))) for path in sources]
        for connection in opened:
            # From its first read on a transaction sees one moment, and the copy is made inside it.
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        for connection, path in zip(opened, targets, strict=True):
            with contextlib.closing(sqlite3.connect(path)) as copy:
                connection.backup(copy)


def _names(connection: sqlite3.Connection, table: str) -> list[str]:
    """List the files that a table names; an older store may lack the table."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone():
        return []
    return [name for (name,) in connection.execute(f'SELECT name FROM "{table}"')]  # noqa: S608 -- a table of ours


def _schema(connection: sqlite3.Connection, part: str) -> str:
    return str(connection.execute(f"SELECT version_num FROM schema_version_{part}").fetchone()[0])  # noqa: S608 -- ours


def _copy_files(url: str, target: Path, names: list[str]) -> tuple[int, int, list[str]]:
    """Copy files into a directory; returns how many, their bytes, and the names of those that are gone."""
    fs, root = fsspec.core.url_to_fs(url)
    target.mkdir(mode=0o700)
    size, lost = 0, []
    for name in names:
        try:
            with fs.open(f"{root}/{name}", "rb") as source, (target / name).open("wb") as copy:
                shutil.copyfileobj(source, copy, _PIECE)
                copy.flush()
                os.fsync(copy.fileno())
                size += copy.tell()
        except FileNotFoundError:
            (target / name).unlink(missing_ok=True)
            lost.append(name)
    _sync(target)
    return len(names) - len(lost), size, lost


def _leave_out_jobs(main: sqlite3.Connection, output: sqlite3.Connection, segments: list[str]) -> None:
    """Leave jobs out that were deleted while they were copied, told by segments that are gone."""
    for name in segments:
        (job,) = output.execute("SELECT job FROM output_segment WHERE name = ?", (name,)).fetchone() or ("",)
        for table in ("output_chunk", "output_segment", "output_stream", "output_job"):
            output.execute(f"DELETE FROM {table} WHERE job = ?", (job,))  # noqa: S608 -- a table of ours
        main.execute("DELETE FROM job WHERE id = ?", (job,))
        for table in ("job_label", "event", "attempt", *(("job_object",) if _names(main, "object") else ())):
            main.execute(f"DELETE FROM {table} WHERE job = ?", (job,))  # noqa: S608 -- a table of ours


def _manifest(source: Path) -> Manifest:
    try:
        found = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise errors.LocalPlatformError(
            f"{source} holds no whole backup: {error}", hint="Name a directory that --backup has made."
        ) from error
    if found.format != FORMAT:
        raise errors.StoreTooNew(
            f"{source} was made by a newer release ({found.version})", hint="Upgrade jupyter-gpu-platform."
        )
    return found


def _move_aside(aside: Path, control: Path, *urls: str) -> bool:
    """Move what is there into a directory beside it; files elsewhere than on this machine's disks stay."""
    there = [path.with_name(f"{path.name}{end}") for path in (control, control.with_name("output.db")) for end in _ENDS]
    for url in urls:
        fs, root = fsspec.core.url_to_fs(url)
        if isinstance(fs, LocalFileSystem):
            there.append(Path(root))
    there = [path for path in there if path.exists()]
    for path in there:
        aside.mkdir(mode=0o700, exist_ok=True)
        shutil.move(path, aside / path.name)
    return bool(there)


#: of the files that make up one SQLite database
_ENDS = ("", "-wal", "-shm")


def _put_files(source: Path, url: str) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    fs.makedirs(root, exist_ok=True)
    for path in sorted(source.iterdir()):
        with path.open("rb") as file, fs.open(f"{root}/{path.name}", "wb") as copy:
            shutil.copyfileobj(file, copy, _PIECE)
            if isinstance(fs, LocalFileSystem):
                copy.flush()
                os.fsync(copy.fileno())
    if isinstance(fs, LocalFileSystem):
        _sync(Path(root))


def _sync(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
