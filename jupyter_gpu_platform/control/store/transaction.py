"""What may be done inside one transaction of the main store. Every change appends its row to the change log."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec
from msgspec.structs import replace
from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Table,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from ... import errors
from ...model.jobs import Attempt, AttemptState, Job, Phase
from . import rows, tables
from .pending import Pending, batched, replace_row
from .tables import PAYLOAD_VERSION

S = TypeVar("S", bound=msgspec.Struct)

#: Key of `meta` that a restored store has: up to which id jobs may have been in the lost one, and above which number
#: the attempts of these go on.
RESTORED = "restored"
#: Keys of `meta` under which readers hold the change log.
HOLDS = "reader:"
#: Where the change log begins and ends.
_SPAN = "SELECT (SELECT value FROM meta WHERE key = 'trimmed'), (SELECT max(id) FROM change)"
#: ids in one question
_MANY = 500
_OPEN = (AttemptState.PLACED, AttemptState.RUNNING)
_encode = msgspec.json.Encoder().encode
_job = msgspec.json.Decoder(Job).decode
_attempt = msgspec.json.Decoder(Attempt).decode
_cluster = msgspec.json.Decoder(rows.Cluster).decode
_agent = msgspec.json.Decoder(rows.Agent).decode
_token = msgspec.json.Decoder(rows.ApiToken).decode


def _plain(text: str) -> str:
    """Leave out what PostgreSQL can't keep in a text column; the payload holds the text as it was."""
    return text.replace("\0", "")


class Transaction:
    """The main store as one transaction sees it; made by `Writer.run` and `Reader.run`.

    What is asked for most (a job, an attempt, an earlier answer) is kept once it was read or written, and what is
    written waits in `Pending`. Whatever else looks at the database does so through `connection`, which writes all
    that waits first.
    """

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._sqlite = connection.dialect.name == "sqlite"
        self._clock = clock
        #: some operation has appended to the change log
        self.changed = False
        #: something was written, or may have been, since this was last set to False
        self.touched = False
        self._pending = Pending()
        self._jobs: dict[str, Job | None] = {}
        self._attempts: dict[tuple[str, int], Attempt | None] = {}
        self._answers: dict[tuple[str, str], rows.Remembered | None] = {}

    @property
    def connection(self) -> Connection:
        """The database's connection, for any statement."""
        self.touched = True
        self.flush()
        return self._connection

    def flush(self) -> None:
        """Write what waits."""
        if self._pending:
            self._pending.write(self._connection)

    def forget(self) -> None:
        """Drop what waits and all that was read: the database has gone back to an earlier state."""
        self._pending.clear()
        self._jobs.clear()
        self._attempts.clear()
        self._answers.clear()

    def read(self, query: str, values: Sequence[object] = ()) -> Sequence[Sequence[Any]]:
        """Return the rows of a question in SQL, with ``?`` for each value."""
        connection = self.connection
        return connection.exec_driver_sql(query if self._sqlite else query.replace("?", "%s"), tuple(values)).fetchall()

    def _rows(self, query: str, *values: object) -> Sequence[Sequence[Any]]:
        """Return the rows of a look-up by key, none of which waits to be written.

        In SQL: building and looking up the same few statements with SQLAlchemy costs ten times what SQLite takes.
        """
        query = query if self._sqlite else query.replace("?", "%s")
        return self._connection.exec_driver_sql(query, values).fetchall()

    def _row(self, query: str, *values: object) -> Sequence[Any] | None:
        return next(iter(self._rows(query, *values)), None)

    # --- jobs --------------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> Job | None:
        if job_id not in self._jobs:
            found = self._row("SELECT payload FROM job WHERE id = ?", job_id)
            self._jobs[job_id] = None if found is None else _job(found[0])
        return self._jobs[job_id]

    def jobs(self, job_ids: Collection[str]) -> dict[str, Job]:
        """Return those of the jobs that exist, by id: one question for a thousand."""
        missing = [job_id for job_id in job_ids if job_id not in self._jobs]
        for some in batched(missing, _MANY):
            row = tables.job.c
            for job_id, payload in self.connection.execute(
                select(row.id, row.payload).where(tables.among(row.id, some))
            ):
                self._jobs[job_id] = _job(payload)
        return {job_id: job for job_id in job_ids if (job := self._jobs.get(job_id)) is not None}

    def jobs_open(self) -> Iterator[Job]:
        """Give all jobs that have not ended, the oldest of each phase first, without keeping them."""
        row = tables.job.c
        for phase in Phase:
            if not phase.ended:
                query = select(row.payload).where(row.phase == phase.value).order_by(row.id)
                yield from map(_job, self.connection.execute(query.execution_options(yield_per=_MANY)).scalars())

    def insert_job(self, job: Job) -> None:
        """Add a job.

        :raises Conflict: there is one with this id.
        """
        if self._jobs.get(job.id) is not None:
            raise errors.Conflict(f"there is a job {job.id} already")
        payload = _stored(job)
        self._insert(tables.job, self._job_row(job) | payload)
        for key, value in job.spec.labels.items():
            self._insert(tables.job_label, {"job": job.id, "key": key, "value": _plain(value)})
        self._jobs[job.id] = job
        self._changed_job(job, payload)

    def put_job(self, job: Job) -> None:
        """Replace a job.

        :raises NotFound: it is not there (any more).
        """
        if self.job(job.id) is None:
            raise errors.NotFound(f"there is no job {job.id}")
        payload = _stored(job)
        self._put(tables.job, job.id, self._job_row(job) | payload)
        self._jobs[job.id] = job
        self._changed_job(job, payload)

    def delete_jobs(self, job_ids: Collection[str]) -> list[str]:
        """Remove jobs with their events, hold on objects, and forgotten attempts; return the ids of those that were."""
        gone = self.jobs(job_ids)
        if not gone:
            return []
        attempt = tables.attempt.c
        self.connection.execute(delete(tables.job).where(tables.among(tables.job.c.id, gone)))
        for table in (tables.job_label, tables.event):
            self.connection.execute(delete(table).where(tables.among(table.c.job, gone)))
        self._let_go_of_objects(gone)
        self.connection.execute(
            delete(tables.attempt).where(tables.among(attempt.job, gone), attempt.forgotten.is_(True))
        )
        self._attempts = {key: kept for key, kept in self._attempts.items() if key[0] not in gone}
        for job_id, job in gone.items():
            self._jobs[job_id] = None
            self._change("job.deleted", job_id, _stored({"id": job_id}), _scope(job), job.cluster or "")
        return list(gone)

    def event(self, job: str, code: str, message: str, attempt: int | None = None) -> None:
        """Note something in a job's life for people to read."""
        row = {"job": job, "time": self._clock(), "code": code, "message": _plain(message), "attempt": attempt}
        self._insert(tables.event, row)

    # --- attempts ----------------------------------------------------------------------------------------------

    def attempt(self, job: str, number: int) -> Attempt | None:
        key = (job, number)
        if key not in self._attempts:
            found = self._row("SELECT payload FROM attempt WHERE job = ? AND number = ?", *key)
            self._attempts[key] = None if found is None else _attempt(found[0])
        return self._attempts[key]

    def attempts(self, job: str) -> list[Attempt]:
        row = tables.attempt.c
        return self._payloads(select(row.payload).where(row.job == job).order_by(row.number), _attempt)

    def attempts_open(self) -> list[Attempt]:
        """Return all attempts that were placed or run."""
        row = tables.attempt.c
        return self._payloads(select(row.payload).where(row.state.in_(_OPEN)).order_by(row.job), _attempt)

    def attempts_with_jobs(self, cluster: str) -> list[tuple[Attempt, Job | None]]:
        """Return the attempts of *cluster* that its agent has not forgotten, each with its job, if that exists."""
        query = (
            "SELECT attempt.payload, job.payload FROM attempt LEFT JOIN job ON job.id = attempt.job "
            "WHERE attempt.cluster = ? AND attempt.forgotten = ? ORDER BY attempt.job, attempt.number"
        )
        found = self.read(query, (cluster, False))
        return [(_attempt(attempt), None if job is None else _job(job)) for attempt, job in found]

    def attempts_of(self, cluster: str) -> list[Attempt]:
        """Return the attempts of *cluster* that its agent has not forgotten."""
        row = tables.attempt.c
        query = select(row.payload).where(row.cluster == cluster, row.forgotten.is_(False))
        return self._payloads(query.order_by(row.job, row.number), _attempt)

    def newest_attempts(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Return the number of each job's newest attempt, where it has one.

        Where the store was restored, jobs from before that may have had more in the lost one: these are skipped.
        """
        row = tables.attempt.c
        restored = self._row("SELECT value FROM meta WHERE key = ?", RESTORED)
        last, above = str(restored[0]).split() if restored else ("", "0")
        found = {job_id: int(above) for job_id in job_ids if job_id <= last}
        for some in batched(job_ids, _MANY):
            query = select(row.job, func.max(row.number)).where(tables.among(row.job, some)).group_by(row.job)
            for job_id, number in self.connection.execute(query):
                found[job_id] = max(number, found.get(job_id, 0))
        return found

    def attempt_keys(self, cluster: str) -> set[tuple[str, int]]:
        """Name the attempts of *cluster* that its agent has not forgotten."""
        query = "SELECT job, number FROM attempt WHERE cluster = ? AND forgotten = ?"
        return {(job, number) for job, number in self.read(query, (cluster, False))}

    def clusters_in_use(self) -> set[str]:
        """Name the clusters that have attempts which were placed or run."""
        row = tables.attempt.c
        return set(self.connection.execute(select(row.cluster).where(row.state.in_(_OPEN)).distinct()).scalars())

    def put_attempt(self, attempt: Attempt) -> None:
        """Add or replace an attempt; one that is forgotten, and whose job is gone, goes too."""
        job = self.job(attempt.job)
        scope: Mapping[str, Any] | None = None if job is None else _scope(job)
        if scope is None:
            row = tables.attempt.c
            kept = _scope_of(tables.attempt).where(row.job == attempt.job, row.number == attempt.number)
            scope = cast("Mapping[str, Any] | None", self._first(kept))
        if scope is None:
            raise errors.NotFound(f"there is no job {attempt.job}")
        payload, key = _stored(attempt), (attempt.job, attempt.number)
        if job is None and attempt.forgotten:
            row = tables.attempt.c
            self.connection.execute(delete(tables.attempt).where(row.job == attempt.job, row.number == attempt.number))
            self._attempts[key] = None
        else:
            values = {
                **scope,
                "job": attempt.job,
                "number": attempt.number,
                "cluster": attempt.cluster,
                "state": attempt.state.value,
                "forgotten": attempt.forgotten,
            }
            self._put(tables.attempt, key, values | payload)
            self._attempts[key] = attempt
        self._change("attempt", f"{attempt.job}/{attempt.number}", payload, scope, attempt.cluster)

    # --- objects -----------------------------------------------------------------------------------------------

    def stored_object(self, organisation: str, owner: str, digest: str) -> rows.StoredObject | None:
        row = tables.stored_object.c
        mine = (row.organisation == organisation, row.owner == owner, row.digest == digest)
        return self._stored_object(select(tables.stored_object).where(*mine))

    def anyones_object(self, digest: str) -> rows.StoredObject | None:
        row = tables.stored_object.c
        return self._stored_object(select(tables.stored_object).where(row.digest == digest).limit(1))

    def object_of_job(self, job_id: str, digest: str) -> rows.StoredObject | None:
        """Return an object that a job needs or has made."""
        held = tables.job_object.c
        query = select(tables.stored_object).where(held.job == job_id, held.digest == digest, _same_object())
        return self._stored_object(query)

    def put_object(self, stored: rows.StoredObject) -> bool:
        """Add an object; False where its owner has it already: then that one stays, and counts as used now."""
        if self.stored_object(stored.organisation, stored.owner, stored.digest) is not None:
            self.use_object(stored)
            return False
        self.connection.execute(insert(tables.stored_object), msgspec.structs.asdict(stored))
        return True

    def use_object(self, stored: rows.StoredObject) -> None:
        """Keep an object for another while."""
        row = tables.stored_object.c
        mine = (row.organisation == stored.organisation, row.owner == stored.owner, row.digest == stored.digest)
        self.connection.execute(update(tables.stored_object).where(*mine).values(used=self._clock()))

    def hold_object(self, job_id: str, organisation: str, owner: str, digest: str) -> None:
        """Keep an object for as long as a job is kept."""
        values = {"job": job_id, "organisation": organisation, "owner": owner, "digest": digest}
        self.connection.execute(tables.insert_missing(self.connection.dialect, tables.job_object), values)

    def take_unheld_objects(self, before: float, limit: int) -> list[str]:
        """Remove objects that no job holds and that were last used before this time; returns their files' names."""
        row = tables.stored_object.c
        held = select(tables.job_object.c.job).where(_same_object()).exists()
        names = select(row.name).where(row.used < before, ~held).limit(limit)
        found = list(self.connection.execute(names).scalars())
        self.connection.execute(delete(tables.stored_object).where(tables.among(row.name, found)))
        return found

    def known_object_names(self, names: Sequence[str]) -> set[str]:
        """Return which of these files belong to an object."""
        row = tables.stored_object.c
        return set(self.connection.execute(select(row.name).where(tables.among(row.name, names))).scalars())

    def _stored_object(self, query: Select[Any]) -> rows.StoredObject | None:
        found = self._first(query)
        return rows.StoredObject(**found) if found else None

    def _let_go_of_objects(self, job_ids: Collection[str]) -> None:
        theirs = tables.among(tables.job_object.c.job, job_ids)
        held = select(tables.job_object.c.job).where(theirs, _same_object()).exists()
        self.connection.execute(update(tables.stored_object).where(held).values(used=self._clock()))
        self.connection.execute(delete(tables.job_object).where(theirs))

    # --- idempotency -------------------------------------------------------------------------------------------

    def idempotent(self, owner: str, key: str) -> rows.Remembered | None:
        """Return what *owner* was answered under this Idempotency-Key."""
        if (owner, key) not in self._answers:
            self.recall([(owner, key)])
        return self._answers[owner, key]

    def recall(self, asked: Iterable[tuple[str, str]]) -> None:
        """Look up what was answered under these owners' keys: all that one owner asks for in one question."""
        by_owner: dict[str, list[str]] = {}
        for owner, key in asked:
            by_owner.setdefault(owner, []).append(key)
            self._answers[owner, key] = None
        for owner, keys in by_owner.items():
            keys = tables.padded(keys)
            these = ", ".join("?" * len(keys))
            query = f"SELECT key, digest, answer FROM remembered WHERE owner = ? AND key IN ({these})"  # noqa: S608 -- nobody's text
            for key, digest, answer in self._rows(query, owner, *keys):
                self._answers[owner, key] = rows.Remembered(digest, answer)

    def remember(self, owner: str, key: str, digest: str, answer: bytes) -> None:
        values = {"owner": owner, "key": key, "digest": digest, "answer": answer, "created": self._clock()}
        self._insert(tables.remembered, values)
        self._answers[owner, key] = rows.Remembered(digest, answer)

    # --- clusters and agents -----------------------------------------------------------------------------------

    def cluster(self, name: str) -> rows.Cluster | None:
        found = self._row("SELECT payload FROM cluster WHERE name = ?", name)
        return None if found is None else _cluster(found[0])

    def clusters(self) -> list[rows.Cluster]:
        return self._payloads(select(tables.cluster.c.payload).order_by(tables.cluster.c.name), _cluster)

    def put_cluster(self, cluster: rows.Cluster) -> None:
        """Add or replace a cluster; one that is as it was leaves no trace in the change log."""
        if self.cluster(cluster.name) == cluster:
            return
        values = {"name": cluster.name, "organisation": cluster.organisation} | _stored(cluster)
        self._replace(tables.cluster, values)
        self._change("cluster", cluster.name, _stored(cluster), _belonging(cluster.organisation), cluster.name)

    def delete_cluster(self, name: str) -> bool:
        """Remove a cluster with its agents, join tokens, unknown attempts, and attempts whose jobs are gone."""
        cluster = self.cluster(name)
        if cluster is None:
            return False
        self.connection.execute(delete(tables.cluster).where(tables.cluster.c.name == name))
        for table in (tables.agent, tables.join_token, tables.unknown_attempt):
            self.connection.execute(delete(table).where(table.c.cluster == name))
        orphaned = tables.attempt.c.job.not_in(select(tables.job.c.id))
        self.connection.execute(delete(tables.attempt).where(tables.attempt.c.cluster == name, orphaned))
        self._attempts.clear()
        self._change("cluster.deleted", name, _stored({"id": name}), _belonging(cluster.organisation), name)
        return True

    def agent(self, agent_id: str) -> rows.Agent | None:
        found = self._row("SELECT payload FROM agent WHERE id = ?", agent_id)
        return None if found is None else _agent(found[0])

    def agent_by_hash(self, credential_hash: str) -> rows.Agent | None:
        found = self._row("SELECT payload FROM agent WHERE credential_hash = ?", credential_hash)
        return None if found is None else _agent(found[0])

    def agents(self, cluster: str | None = None) -> list[rows.Agent]:
        query = select(tables.agent.c.payload).order_by(tables.agent.c.id)
        return self._payloads(query if cluster is None else query.where(tables.agent.c.cluster == cluster), _agent)

    def put_agent(self, agent: rows.Agent) -> None:
        """Add or replace an agent; that it was seen again is no change worth a row in the log."""
        before = self.agent(agent.id)
        if before == agent:
            return
        values = {"id": agent.id, "cluster": agent.cluster, "credential_hash": agent.credential_hash}
        self._replace(tables.agent, values | _stored(agent))
        if before is None or replace(before, seen=agent.seen) != agent:
            cluster = self.cluster(agent.cluster)
            public = replace(agent, credential_hash="")
            self._change(
                "agent",
                agent.id,
                _stored(public),
                _belonging(cluster.organisation if cluster else "default"),
                agent.cluster,
            )

    # --- tokens ------------------------------------------------------------------------------------------------

    def put_join_token(self, token: rows.JoinToken) -> None:
        self.connection.execute(insert(tables.join_token), msgspec.structs.asdict(token))

    def take_join_token(self, token_hash: str) -> rows.JoinToken | None:
        """Use a join token up and return it, expired or not."""
        found = self._first(select(tables.join_token).where(tables.join_token.c.hash == token_hash))
        self.connection.execute(delete(tables.join_token).where(tables.join_token.c.hash == token_hash))
        return rows.JoinToken(**found) if found else None

    def put_token(self, token: rows.ApiToken) -> None:
        self._replace(tables.api_token, {"id": token.id, "hash": token.hash} | _stored(token))

    def token_by_hash(self, token_hash: str) -> rows.ApiToken | None:
        row = tables.api_token.c
        return self._payload(select(row.payload).where(row.hash == token_hash), _token)

    def tokens(self) -> list[rows.ApiToken]:
        return self._payloads(select(tables.api_token.c.payload).order_by(tables.api_token.c.id), _token)

    def delete_token(self, token_id: str) -> bool:
        """Revoke a token. The log tells the other replicas, which may still believe in it."""
        row = tables.api_token.c
        token = self._payload(select(row.payload).where(row.id == token_id), _token)
        if token is None:
            return False
        self.connection.execute(delete(tables.api_token).where(row.id == token_id))
        scope = {"organisation": token.organisation, "project": token.project, "owner": token.user}
        self._change("token.deleted", token_id, _stored({"id": token_id}), scope, "")
        return True

    # --- leases ------------------------------------------------------------------------------------------------

    def lease(self, name: str) -> rows.Lease | None:
        found = self._row("SELECT holder_id, holder_url, epoch, expires FROM lease WHERE name = ?", name)
        if found is None:
            return None
        holder, url, epoch, expires = found
        return rows.Lease(name=name, holder_id=holder, holder_url=url, epoch=epoch, expires=expires)

    def leases(self, names: Collection[str]) -> list[rows.Lease]:
        """Return those of the leases that exist."""
        found = []
        for some in batched(list(names), _MANY):
            query = select(tables.lease).where(tables.among(tables.lease.c.name, some))
            found += [rows.Lease(**row) for row in self.connection.execute(query).mappings()]
        return found

    def acquire_lease(
        self, name: str, holder_url: str, holder_id: str, ttl: float, now: float, *, force: bool = False
    ) -> rows.Lease | None:
        """Take or renew a lease until *now* + *ttl*; None while another holds it.

        A new holder has a higher epoch; so has one that takes it by *force* (from another, or anew for itself).
        """
        held = self.lease(name)
        mine = held is not None and held.holder_id == holder_id
        if held is not None and not mine and held.expires > now and not force:
            return None
        epoch = held.epoch if held else 0
        if force or not mine:
            epoch += 1
        lease = rows.Lease(name=name, holder_id=holder_id, holder_url=holder_url, epoch=epoch, expires=now + ttl)
        self._replace(tables.lease, msgspec.structs.asdict(lease))
        return lease

    def release_lease(self, name: str, holder_id: str) -> None:
        """Let go of a lease. Its row stays, since the epoch must go on growing."""
        row = tables.lease.c
        mine = update(tables.lease).where(row.name == name, row.holder_id == holder_id)
        self.connection.execute(mine.values(holder_id="", holder_url="", expires=0.0))

    # --- attempts that this store doesn't know -----------------------------------------------------------------

    def put_unknown(self, cluster: str, job: str, attempt: int, incarnation: str, now: float) -> None:
        """Keep what an agent holds and this store doesn't know; the time it was first reported stays."""
        values = {"cluster": cluster, "job": job, "attempt": attempt, "incarnation": incarnation, "since": now}
        self.connection.execute(tables.insert_missing(self.connection.dialect, tables.unknown_attempt), values)

    def unknown(self, cluster: str | None = None) -> list[rows.UnknownAttempt]:
        which, values = ("", ()) if cluster is None else ("WHERE cluster = ?", (cluster,))
        query = f"SELECT cluster, job, attempt, incarnation, since FROM unknown_attempt {which} ORDER BY 1, 2, 3"  # noqa: S608 -- values are bound
        return [
            rows.UnknownAttempt(cluster=name, job=job, attempt=attempt, incarnation=incarnation, since=since)
            for name, job, attempt, incarnation, since in self._rows(query, *values)
        ]

    def delete_unknown(self, cluster: str, job: str, attempt: int) -> bool:
        row = tables.unknown_attempt.c
        which = delete(tables.unknown_attempt).where(row.cluster == cluster, row.job == job, row.attempt == attempt)
        return bool(self.connection.execute(which).rowcount)

    # --- the change log ----------------------------------------------------------------------------------------

    def revision(self) -> int:
        """Return the change log's position: the id of its newest row, trimmed or not."""
        return self.span()[1]

    def trimmed(self) -> int:
        """Return the id of the newest change that was trimmed away; 0 where none was."""
        return self.span()[0]

    def span(self) -> tuple[int, int]:
        """Return the ids after which, and up to which, the change log can be followed."""
        ((trimmed, newest),) = self.read(_SPAN)
        oldest = int(trimmed or 0)
        return oldest, oldest if newest is None else int(newest)

    def hold_changes(self, reader: str, position: int) -> None:
        """Keep the changes after *position* for a reader that must not miss one; others list again."""
        self._replace(tables.meta, {"key": f"{HOLDS}{reader}", "value": str(position)})

    # --- within ------------------------------------------------------------------------------------------------

    def _job_row(self, job: Job) -> dict[str, Any]:
        """A job's columns besides its payload."""
        values = {"id": job.id, "phase": job.phase.value, "cluster": job.cluster, "name": _plain(job.spec.name)}
        return values | _scope(job) | {"ended": job.ended}

    def _changed_job(self, job: Job, payload: Mapping[str, Any]) -> None:
        self._change("job", job.id, payload, _scope(job), job.cluster or "")

    def _change(
        self, kind: rows.ChangeKind, object_id: str, payload: Mapping[str, Any], scope: Mapping[str, str], cluster: str
    ) -> None:
        values = {"time": self._clock(), "kind": kind, "object_id": object_id, "cluster": cluster, **scope, **payload}
        self._insert(tables.change, values)
        self.changed = True

    def _insert(self, table: Table, row: Mapping[str, Any]) -> None:
        self.touched = True
        self._pending.insert(table, row)

    def _put(self, table: Table, key: object, row: Mapping[str, Any]) -> None:
        self.touched = True
        self._pending.put(table, key, row)

    def _replace(self, table: Table, row: Mapping[str, Any]) -> None:
        """Insert or replace a row at once, in a table of which nothing waits."""
        self.touched = True
        replace_row(self._connection, table, row)

    def _first(self, query: Select[Any]) -> RowMapping | None:
        return self.connection.execute(query).mappings().first()

    def _payload(self, query: Select[bytes], decode: Callable[[bytes], S]) -> S | None:
        found = self.connection.execute(query).scalar()
        return None if found is None else decode(found)

    def _payloads(self, query: Select[bytes], decode: Callable[[bytes], S]) -> list[S]:
        return [decode(payload) for payload in self.connection.execute(query).scalars()]


def decode_jobs(payloads: Sequence[bytes]) -> list[Job]:
    return [_job(payload) for payload in payloads]


def _stored(value: object) -> dict[str, Any]:
    return {"payload_version": PAYLOAD_VERSION, "payload": _encode(value)}


def _scope(job: Job) -> dict[str, str]:
    return {"organisation": job.organisation, "project": job.project, "owner": job.owner}


def _scope_of(table: Table) -> Select[Any]:
    return select(table.c.organisation, table.c.project, table.c.owner)


def _same_object() -> ColumnElement[bool]:
    """Join objects with the jobs' holds on them."""
    row, held = tables.stored_object.c, tables.job_object.c
    return and_(row.organisation == held.organisation, row.owner == held.owner, row.digest == held.digest)


def _belonging(organisation: str) -> dict[str, str]:
    """The scope of what belongs to no project and no person."""
    return {"organisation": organisation, "project": "", "owner": ""}
