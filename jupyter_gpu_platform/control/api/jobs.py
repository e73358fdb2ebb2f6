"""Jobs: creating, reading, and asking for their end."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from ... import errors
from ...model.jobs import Attempt, Job, JobSpec, Phase
from ...wire.messages import Answer
from ..store.rows import Event, JobFilter
from .operation import WRITERS, Call, NoQuery, Operation, Reply, Route

MAX_BATCH = 1000
Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Short = Annotated[str, msgspec.Meta(max_length=200)]

_JOB_ID = re.compile(r"^j[0-9a-z]{18}$")


class JobQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limit: Limit = 100
    #: from an earlier page's ``next``
    after: Short | None = None
    phase: list[Phase] = []
    project: Short | None = None
    owner: Short | None = None
    cluster: Short | None = None
    #: ``key=value``; may be given again: all must match
    label: list[Annotated[str, msgspec.Meta(max_length=300, pattern="^[^=]+=")]] = []
    #: part of the name
    name: Short | None = None


class EventQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: id of the last event already read
    after: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    limit: Limit = 100


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Job]
    #: pass it as ``after`` for the next page; null at the end
    next: str | None
    #: follow /changes from here and miss nothing that came after this list
    log_position: int


class JobBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    jobs: Annotated[list[JobSpec], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class JobsMade(msgspec.Struct, frozen=True, kw_only=True):
    jobs: list[Job]


class InputAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: which of the code's questions this answers: the number in its ``input`` record
    request: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    value: Annotated[str, msgspec.Meta(max_length=65_536)]


class AttemptList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Attempt]


class EventList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Event]
    #: pass it as ``after`` to go on reading, now or later
    next: int


def job_id(call: Call) -> str:
    """Return the job that the path names; what can't be an id needs no look into the store."""
    found = call.path["job"]
    if not _JOB_ID.match(found):
        raise errors.NotFound(f"there is no job {found[:60]!r}", hint="List yours with GET /api/v1/jobs.")
    return found


def _etag(job: Job) -> str:
    return f'"{job.version}"'


async def create(call: Call) -> Reply:
    spec: JobSpec = call.body
    (job,) = await call.services.jobs.create([spec], call.principal, call.idempotency_key)
    return Reply(value=job, headers={"Location": f"/api/v1/jobs/{job.id}", "ETag": _etag(job)})


async def create_batch(call: Call) -> JobsMade:
    batch: JobBatch = call.body
    return JobsMade(jobs=await call.services.jobs.create(batch.jobs, call.principal, call.idempotency_key))


async def find(call: Call) -> JobList:
    query: JobQuery = call.query
    wanted = JobFilter(
        owner=query.owner,
        project=query.project,
        phases=tuple(query.phase),
        cluster=query.cluster,
        label=dict(label.split("=", 1) for label in query.label),
        name=query.name,
    )
    if query.after is not None and not _JOB_ID.match(query.after):
        raise errors.InvalidCursor(
            f"{query.after[:40]!r} is no cursor of this list", hint="Pass an earlier page's 'next' as it was."
        )
    page = await call.services.jobs.find(wanted, query.limit, query.after, call.principal)
    return JobList(items=page.items, next=page.next, log_position=page.log_position)


async def get(call: Call) -> Reply:
    job = await call.services.jobs.get(job_id(call), call.principal)
    if call.headers.get("If-None-Match") == _etag(job):
        return Reply(status=304, headers={"ETag": _etag(job)})
    return Reply(value=job, headers={"ETag": _etag(job)})


async def cancel(call: Call) -> Job:
    return await call.services.jobs.cancel(job_id(call), call.principal)


async def interrupt(call: Call) -> Job:
    return await call.services.jobs.interrupt(job_id(call), call.principal)


async def retry(call: Call) -> Job:
    return await call.services.jobs.retry(job_id(call), call.principal)


async def abandon(call: Call) -> Job:
    return await call.services.jobs.abandon(job_id(call), call.principal)


async def answer_input(call: Call) -> None:
    """Pass an answer on; it is neither stored nor logged, so whoever sends it looks for the ``input_reply`` record."""
    answer: InputAnswer = call.body
    attempt = await call.services.jobs.running(job_id(call), call.principal)
    if call.services.gateway is None:
        raise errors.Unavailable("no agent is connected to this process")
    told = Answer(job=attempt.job, attempt=attempt.number, request=answer.request, value=answer.value)
    await call.services.gateway.pass_on(attempt.cluster, told)


async def delete(call: Call) -> None:
    await call.services.jobs.delete(job_id(call), call.principal)


async def attempts(call: Call) -> AttemptList:
    return AttemptList(items=await call.services.jobs.attempts(job_id(call), call.principal))


async def events(call: Call) -> EventList:
    query: EventQuery = call.query
    items = await call.services.jobs.events(job_id(call), call.principal, query.after, query.limit)
    return EventList(items=items, next=items[-1].id if items else query.after)


ROUTES = (
    Route(
        path="/api/v1/jobs",
        operations=(
            Operation(
                method="GET", name="list_jobs", summary="List jobs", answer=find, query=JobQuery, response=JobList
            ),
            Operation(
                method="POST",
                name="create_job",
                summary="Create jobs",
                answer=create,
                roles=WRITERS,
                request=JobSpec,
                response=Job,
                status=201,
                also=(409,),
                idempotent=True,
                headers=("Location", "ETag"),
            ),
        ),
    ),
    Route(
        path="/api/v1/job-batches",
        operations=(
            Operation(
                method="POST",
                name="create_jobs",
                summary="Create many jobs, all or none",
                answer=create_batch,
                roles=WRITERS,
                request=JobBatch,
                response=JobsMade,
                status=201,
                also=(409,),
                idempotent=True,
            ),
        ),
    ),
    Route(
        path="/api/v1/jobs/{job}",
        operations=(
            Operation(
                method="GET",
                name="get_job",
                summary="Read a job",
                answer=get,
                response=Job,
                also=(304,),
                headers=("ETag",),
            ),
            Operation(
                method="DELETE",
                name="delete_job",
                summary="Delete ended jobs and their output",
                answer=delete,
                roles=WRITERS,
                status=204,
                also=(409,),
            ),
        ),
    ),
    *(
        Route(
            path=f"/api/v1/jobs/{{job}}/{name}",
            operations=(
                Operation(
                    method="POST",
                    name=f"{name}_job",
                    summary=summary,
                    answer=answer,
                    roles=WRITERS,
                    response=Job,
                    status=202,
                    also=also,
                ),
            ),
        )
        for name, summary, answer, also in (
            ("cancel", "Cancel jobs", cancel, ()),
            ("interrupt", "Interrupt running code, as Jupyter's stop button does", interrupt, (409,)),
            ("retry", "Queue ended jobs for one more attempt", retry, (409,)),
            ("abandon", "Give up on unreachable jobs, which may still run", abandon, (409,)),
        )
    ),
    Route(
        path="/api/v1/jobs/{job}/input",
        operations=(
            Operation(
                method="POST",
                name="answer_input",
                summary="Answer what a job's code asks",
                answer=answer_input,
                roles=WRITERS,
                request=InputAnswer,
                status=202,
                also=(409,),
            ),
        ),
    ),
    Route(
        path="/api/v1/jobs/{job}/attempts",
        operations=(
            Operation(
                method="GET",
                name="list_attempts",
                summary="List a job's attempts",
                answer=attempts,
                query=NoQuery,
                response=AttemptList,
            ),
        ),
    ),
    Route(
        path="/api/v1/jobs/{job}/events",
        operations=(
            Operation(
                method="GET",
                name="list_events",
                summary="Read what happened to a job",
                answer=events,
                query=EventQuery,
                response=EventList,
            ),
        ),
    ),
)
