"""What people may do with jobs: scoped by who they are, decided by `model.lifecycle`, committed by the writer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from .. import errors
from ..model import lifecycle
from ..model.jobs import Attempt, AttemptState, Job, JobSpec, Phase, new_job_id
from . import objects
from .store.rows import ChangeFilter, Event, JobFilter, JobPage

if TYPE_CHECKING:
    from .identity import Principal
    from .store.feed import ChangeFeed
    from .store.output import OutputLane
    from .store.reader import Reader
    from .store.transaction import Transaction
    from .store.writer import Writer

OPEN_PHASES = tuple(phase for phase in Phase if not phase.ended)


def visible(job: Job, principal: Principal) -> bool:
    """Say whether *principal* may know of *job*."""
    if principal.role == "admin":
        return True
    if job.organisation != principal.organisation:
        return False
    if principal.role == "viewer":
        return job.project == principal.project
    return principal.role == "user" and job.owner == principal.user


def shown(job: Job | None, job_id: str, principal: Principal) -> Job:
    """Return what was found of a job to who may know of it.

    :raises NotFound: there is none, or it is not theirs.
    """
    if job is None or not visible(job, principal):
        raise _missing(job_id)
    return job


def _missing(job_id: str) -> errors.NotFound:
    return errors.NotFound(f"there is no job {job_id}", hint="List yours with GET /api/v1/jobs.")


class Jobs:
    """The jobs' service. Whoever asks for another's job is told that there is none."""

    def __init__(
        self, writer: Writer, reader: Reader, output: OutputLane, feed: ChangeFeed, *, now: Callable[[], float]
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._output = output
        self._feed = feed
        self._now = now

    # reading

    async def get(self, job_id: str, principal: Principal) -> Job:
        return shown(await self._reader.job(job_id), job_id, principal)

    async def find(self, wanted: JobFilter, limit: int, after: str | None, principal: Principal) -> JobPage:
        return await self._reader.jobs(self._narrow(wanted, principal), limit, after)

    def _narrow(self, wanted: JobFilter, principal: Principal) -> JobFilter:
        """Narrow a filter to what the reader may see; asking beyond that is an error, not an empty list."""
        if principal.role == "admin":
            return wanted
        if principal.role == "user":
            if wanted.owner not in (None, principal.user):
                raise errors.Forbidden("you may list your own jobs only", hint="Leave 'owner' out.")
            return replace(wanted, owner=principal.user, organisation=principal.organisation)
        if wanted.project not in (None, principal.project):
            raise errors.Forbidden(f"you may read project {principal.project} only", hint="Leave 'project' out.")
        return replace(wanted, project=principal.project, organisation=principal.organisation)

    def change_filter(self, principal: Principal) -> ChangeFilter:
        """Return which rows of the change log *principal* may read."""
        if principal.role == "admin":
            return ChangeFilter()
        if principal.role == "user":
            return ChangeFilter(owner=principal.user, organisation=principal.organisation)
        return ChangeFilter(project=principal.project, organisation=principal.organisation)

    async def attempts(self, job_id: str, principal: Principal) -> list[Attempt]:
        await self.get(job_id, principal)
        return await self._reader.attempts(job_id)

    async def events(self, job_id: str, principal: Principal, after: int, limit: int) -> list[Event]:
        await self.get(job_id, principal)
        return await self._reader.events(job_id, after, limit)

    async def any_open(self) -> bool:
        """Say whether any job at all has not ended."""
        return bool((await self._reader.jobs(JobFilter(phases=OPEN_PHASES), 1, None)).items)

    # writing

    async def create(
        self, specs: Sequence[JobSpec], principal: Principal, idempotency_key: str | None = None
    ) -> list[Job]:
        """Accept jobs, all or none.

        :param idempotency_key: a repeated call with the same key and specs gets the first call's answer.
        :raises IdempotencyMismatch: the key came with other specs before.
        :raises ObjectMissing: a spec names an object that the caller has not uploaded.
        """
        now = self._now()
        jobs = [self._new(spec, principal, now) for spec in specs]
        asked = hashlib.sha256(msgspec.json.encode(specs)).hexdigest()

        def operation(tx: Transaction) -> list[Job]:
            if idempotency_key is not None:
                known = tx.idempotent(principal.user, idempotency_key)
                if known is not None:
                    if known.digest != asked:
                        raise errors.IdempotencyMismatch(
                            "this Idempotency-Key was used for another request", hint="Send a new key."
                        )
                    return msgspec.json.decode(known.answer, type=list[Job])
            for job in jobs:
                self._check_parent(tx, job, principal)
                tx.insert_job(job)
                objects.hold(tx, job, principal)
                tx.event(job.id, "created", f"submitted by {principal.user}")
            if idempotency_key is not None:
                tx.remember(principal.user, idempotency_key, asked, msgspec.json.encode(jobs))
            return jobs

        key = None if idempotency_key is None else (principal.user, idempotency_key)
        return await self._writer.run(operation, key=key)

    def _new(self, spec: JobSpec, principal: Principal, now: float) -> Job:
        project, organisation = spec.project, spec.organisation
        if principal.role != "admin":
            for asked, own, what in (
                (project, principal.project, "project"),
                (organisation, principal.organisation, "organisation"),
            ):
                if asked not in ("default", own):
                    raise errors.Forbidden(f"you have no access to {what} {asked}", hint=f"Yours is {own}.")
        return Job(
            id=new_job_id(now),
            spec=spec,
            owner=principal.user,
            project=principal.project if project == "default" else project,
            organisation=principal.organisation if organisation == "default" else organisation,
            retries_left=spec.retries,
            created=now,
        )

    def _check_parent(self, tx: Transaction, job: Job, principal: Principal) -> None:
        if job.spec.parent is None:
            return
        parent = tx.job(job.spec.parent)
        if parent is None or not visible(parent, principal):
            raise errors.InvalidRequest(f"there is no job {job.spec.parent} to be the parent", hint="Leave it out.")

    def _owned(self, tx: Transaction, job_id: str, principal: Principal) -> tuple[Job, Attempt | None]:
        job = tx.job(job_id)
        if job is None or not visible(job, principal):
            raise _missing(job_id)
        return job, tx.attempt(job_id, job.attempt) if job.attempt else None

    async def cancel(self, job_id: str, principal: Principal) -> Job:
        now = self._now()

        def operation(tx: Transaction) -> Job:
            old, attempt = self._owned(tx, job_id, principal)
            job, changed = lifecycle.cancel(old, attempt, now=now)
            if job is not old:
                tx.put_job(job)
                tx.event(job_id, "cancel_requested", f"asked for by {principal.user}")
            if changed is not None and changed is not attempt:
                tx.put_attempt(changed)
            return job

        return await self._writer.run(operation)

    async def interrupt(self, job_id: str, principal: Principal) -> Job:
        def operation(tx: Transaction) -> Job:
            job, attempt = self._owned(tx, job_id, principal)
            tx.put_attempt(lifecycle.interrupt(job, attempt))
            tx.event(job_id, "interrupted", f"asked for by {principal.user}", job.attempt)
            return job

        return await self._writer.run(operation)

    async def running(self, job_id: str, principal: Principal) -> Attempt:
        """Return the attempt that runs a job's code now.

        :raises Conflict: none does.
        """

        def look(tx: Transaction) -> Attempt:
            job, attempt = self._owned(tx, job_id, principal)
            if attempt is None or attempt.state is not AttemptState.RUNNING:
                raise errors.Conflict(f"job {job_id} is {job.phase}: nothing runs that could be answered")
            return attempt

        return await self._reader.run(look)

    async def retry(self, job_id: str, principal: Principal) -> Job:
        now = self._now()

        def operation(tx: Transaction) -> Job:
            old, _ = self._owned(tx, job_id, principal)
            job = lifecycle.retry(old, now=now)
            tx.put_job(job)
            tx.event(job_id, "retry_requested", f"asked for by {principal.user}")
            return job

        return await self._writer.run(operation)

    async def abandon(self, job_id: str, principal: Principal) -> Job:
        now = self._now()

        def operation(tx: Transaction) -> Job:
            old, attempt = self._owned(tx, job_id, principal)
            job, given_up = lifecycle.abandon(old, attempt, now=now)
            tx.put_job(job)
            tx.put_attempt(given_up)
            tx.event(job_id, "abandoned", f"given up by {principal.user}", old.attempt)
            return job

        return await self._writer.run(operation)

    async def delete(self, job_id: str, principal: Principal) -> None:
        """Remove an ended job and its output.

        :raises Conflict: it has not ended.
        """

        def operation(tx: Transaction) -> None:
            job, _ = self._owned(tx, job_id, principal)
            if not job.phase.ended:
                raise errors.Conflict(
                    f"job {job_id} is {job.phase}", hint="Cancel it, wait for its end, then delete it."
                )
            tx.delete_jobs([job_id])

        # The row goes first: only its transaction can tell that nobody retries the job at this moment.
        await self._writer.run(operation)
        await self._output.delete(job_id)
