"""Does the store hold what it promises? Looks at a snapshot, running or stopped, and changes nothing.

Each finding says what is wrong and what to do. What one look finds is looked at again in a fresh snapshot, and only
what both have found is told: a service that runs may have been in the midst of something that takes two steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Connection, Select, Table, select

from ..model.jobs import Attempt, AttemptState, Job, Phase
from .checking_output import output_findings
from .store import tables
from .store.database import Database
from .store.object_files import ObjectFiles
from .store.segments import Segments

S = TypeVar("S", bound=msgspec.Struct)

#: rows looked at in one go
PAGE = 1000

_ASK = "Keep a copy of the store as it is, then restore the newest backup: jupyter gpu control --restore DIR."
_STRAY = "It takes space and does no harm: remove the row, or leave it."
#: what the newest attempt of an open job is
_OPEN = {
    Phase.STARTING: AttemptState.PLACED,
    Phase.RUNNING: AttemptState.RUNNING,
    Phase.SUSPENDED: AttemptState.RUNNING,
}


class Finding(NamedTuple):
    """One thing that is wrong."""

    code: str
    what: str
    fix: str


def check(database: Database, segments_url: str, objects_url: str) -> list[Finding]:
    """Return all that is wrong with a store.

    :raises Unavailable: it can't be read now.
    """
    first = _look(database, segments_url, objects_url)
    return [finding for finding in first if finding in set(_look(database, segments_url, objects_url))] if first else []


def _look(database: Database, segments_url: str, objects_url: str) -> list[Finding]:
    with database.read_output() as output, database.read() as control:
        # The output's snapshot is the older one, so every job that it names is in the other, or was deleted.
        output.execute(select(tables.output_job.c.job).limit(1)).all()
        control.execute(select(tables.job.c.id).limit(1)).all()
        found = [*_files_of_sqlite("control.db", control), *_files_of_sqlite("output.db", output)]
        if found:
            return found  # whatever else is read from such a file proves nothing
        changes, found = _changes(control)
        found += _jobs(control, changes)
        found += _strays(control)
        found += _objects(control, ObjectFiles(objects_url))
        known = set(control.execute(select(tables.job.c.id)).scalars())
        found += [Finding(*parts) for parts in output_findings(output, known, Segments(segments_url))]
    return list(dict.fromkeys(found))


def _files_of_sqlite(name: str, connection: Connection) -> Iterator[Finding]:
    if connection.dialect.name == "sqlite":
        for line in connection.exec_driver_sql("PRAGMA quick_check(5)").scalars():
            if line != "ok":
                yield Finding("file_damaged", f"{name}: {line}", _ASK)


# --- the change log


def _changes(connection: Connection) -> tuple[dict[str, int | None], list[Finding]]:
    """Read the change log; returns what it says last of each job (a hash of it, None for *deleted*), and findings."""
    row = tables.change.c
    found = []
    trimmed = int(connection.execute(select(tables.meta.c.value).where(tables.meta.c.key == "trimmed")).scalar() or 0)
    newest, last = trimmed, dict[str, int | None]()
    for number, kind, job, payload in _paged(connection, select(row.id, row.kind, row.object_id, row.payload), row.id):
        if number <= trimmed:
            what = f"change {number} is there, though all up to {trimmed} were trimmed"
            found.append(Finding("change_position", what, f"Delete the changes with ids up to {trimmed}."))
        newest = max(newest, number)
        if kind in ("job", "job.deleted"):
            last[job] = hash(bytes(payload)) if kind == "job" else None
    given = _given_ids(connection)
    if given < newest:
        what = f"the next change would get id {given + 1}, though {newest} was given already"
        fix = "Readers would miss changes: set the table's sequence to the newest id while the service is stopped."
        found.append(Finding("change_position", what, fix))
    return last, found


def _given_ids(connection: Connection) -> int:
    """Return the newest id that the database remembers to have given."""
    if connection.dialect.name == "sqlite":
        return int(connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'change'").scalar() or 0)
    query = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM change_id_seq"
    return int(connection.exec_driver_sql(query).scalar_one())


# --- jobs and attempts


def _jobs(connection: Connection, changes: dict[str, int | None]) -> Iterator[Finding]:
    row, attempt = tables.job.c, tables.attempt.c
    seen = set()
    jobs = _paged(connection, select(tables.job), row.id)
    while page := list(itertools.islice(jobs, PAGE)):
        ids = [job.id for job in page]
        seen.update(ids)
        of: dict[str, list[Any]] = {}
        for found in connection.execute(select(tables.attempt).where(attempt.job.in_(ids))):
            of.setdefault(found.job, []).append(found)
        for stored in page:
            yield from _job(stored, of.get(stored.id, []))
            if stored.id in changes and changes[stored.id] != hash(bytes(stored.payload)):
                what = f"the change log's last row of job {stored.id} is not the job as it is"
                yield Finding("change_missing", what, "Programs that follow the job show an older state: list anew.")
    for job_id in sorted(changes.keys() - seen):
        if changes[job_id] is not None:
            what = f"job {job_id} is gone, and the change log doesn't say so"
            yield Finding("change_missing", what, "Programs that follow the job go on showing it: list anew.")


def _job(stored: Any, attempts: Sequence[Any]) -> Iterator[Finding]:
    job = _decoded(stored.payload, Job)
    if job is None:
        yield Finding("unreadable", f"what is stored of job {stored.id} can't be read", _ASK)
        return
    columns = ("id", "owner", "project", "organisation", "phase", "cluster", "ended")
    yield from _columns(f"job {job.id}", stored, job, columns)
    known = {}
    for row in attempts:
        attempt = _decoded(row.payload, Attempt)
        if attempt is None:
            yield Finding("unreadable", f"what is stored of attempt {job.id}/{row.number} can't be read", _ASK)
            return
        yield from _columns(f"attempt {job.id}/{row.number}", row, attempt, ("number", "cluster", "state", "forgotten"))
        known[row.number] = attempt
    yield from _phase(job, known)


def _phase(job: Job, attempts: dict[int, Attempt]) -> Iterator[Finding]:
    for number, attempt in attempts.items():
        if number > job.attempt or (number != job.attempt and attempt.state in _OPEN.values()):
            what = f"attempt {job.id}/{number} is {attempt.state}, though the job's newest is {job.attempt}"
            yield Finding("attempt_not_newest", what, f"Two may run: cancel job {job.id} and submit it again.")
    newest = attempts.get(job.attempt)
    if newest is None and job.attempt:
        yield Finding("attempt_missing", f"job {job.id} has no row of its newest attempt, {job.attempt}", _ASK)
        return
    state = newest.state if newest is not None and newest.state in _OPEN.values() else None
    if state is not _OPEN.get(job.phase):
        what = f"job {job.id} is {job.phase}, and its newest attempt is {newest.state if newest else 'not there'}"
        fix = f"Cancel the job (jupyter gpu cancel {job.id}) and submit it again."
        yield Finding("phase_without_attempt", what, fix)


def _columns(name: str, row: Any, value: object, columns: Sequence[str]) -> Iterator[Finding]:
    for column in columns:
        if getattr(row, column) != getattr(value, column):
            what = f"{name}: column {column} says {getattr(row, column)!r}, its payload {getattr(value, column)!r}"
            yield Finding("column_differs", what, "The payload is right: set the column to what it says.")


# --- rows that belong to nothing


def _strays(connection: Connection) -> Iterator[Finding]:
    job, cluster = tables.job, tables.cluster
    for table, column, owner, key in (
        (tables.job_label, "job", job, "id"),
        (tables.event, "job", job, "id"),
        (tables.job_object, "job", job, "id"),
        (tables.agent, "cluster", cluster, "name"),
        (tables.join_token, "cluster", cluster, "name"),
        (tables.unknown_attempt, "cluster", cluster, "name"),
    ):
        for name in _without(connection, table, column, owner, key):
            yield Finding("stray_row", f"table {table.name} has rows of {owner.name} {name}, which is gone", _STRAY)
    row = tables.attempt.c
    query = select(row.job, row.number, row.state, row.forgotten).where(
        ~select(job.c.id).where(job.c.id == row.job).exists()
    )
    for found in connection.execute(query):
        if found.state in _OPEN.values():
            what = f"attempt {found.job}/{found.number} is {found.state}, and its job is gone"
            yield Finding("attempt_without_job", what, f"It holds GPUs. {_ASK}")
        elif found.forgotten:
            yield Finding("stray_row", f"attempt {found.job}/{found.number} is forgotten, and its job is gone", _STRAY)


def _without(connection: Connection, table: Table, column: str, owner: Table, key: str) -> list[str]:
    names = table.c[column]
    there = select(owner.c[key]).where(owner.c[key] == names).exists()
    return list(connection.execute(select(names).where(~there).distinct().order_by(names)).scalars())


# --- objects


def _objects(connection: Connection, files: ObjectFiles) -> Iterator[Finding]:
    row, held = tables.stored_object.c, tables.job_object.c
    same = (row.organisation == held.organisation, row.owner == held.owner, row.digest == held.digest)
    missing = select(held.job, held.digest).where(~select(row.digest).where(*same).exists())
    for found in connection.execute(missing):
        what = f"job {found.job} holds object {found.digest}, of which there is no row"
        yield Finding("object_missing", what, "The job can't be run again: submit it anew, which uploads the value.")
    sizes = files.sizes()
    for found in _paged(connection, select(row.name, row.digest, row.size), row.name):
        size = sizes.pop(found.name, None)
        if size != found.size:
            state = "is gone" if size is None else f"has {size} bytes, not {found.size}"
            what = f"object {found.digest}: its file {found.name} {state}"
            yield Finding("object_file", what, "Put the file back from a backup, or submit the jobs that use it anew.")


# --- within


def _decoded(payload: bytes, kind: type[S]) -> S | None:
    try:
        return msgspec.json.decode(bytes(payload), type=kind)
    except msgspec.DecodeError:
        return None


def _paged(connection: Connection, query: Select[Any], key: Any) -> Iterator[Any]:
    """Yield a query's rows by its key, some at a time: a store may hold more than fits into memory."""
    some = connection.execute(query.order_by(key).limit(PAGE)).all()
    while some:
        yield from some
        some = connection.execute(query.where(key > getattr(some[-1], key.name)).order_by(key).limit(PAGE)).all()
