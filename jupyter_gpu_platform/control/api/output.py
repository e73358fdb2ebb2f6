"""A job's output, as newline-delimited JSON that can be followed and come back to."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import msgspec

from ...model.jobs import Job
from ...model.records import decode_cursor, encode_cursor
from ..heads import Head, rendered
from ..jobs import shown
from ..store.rows import OutputPage
from .jobs import job_id
from .operation import NDJSON, Call, Operation, Reply, Route

PAGE_RECORDS = 1000
PAGE_BYTES = 1 << 20
TEXT = "text/plain; charset=utf-8"


class OutputQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: the cursor of the last record already read
    after: Annotated[str, msgspec.Meta(max_length=40)] = ""
    #: the stream ends after so many records; without it, after 1000 or, when following, with the job
    limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    #: 1: stay until the job has ended and all of its output was sent
    follow: bool = False


class DownloadQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["text", "ndjson"] = "text"


class Eof(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="eof"):
    """The last line of an answer."""

    #: go on reading from here
    cursor: str
    phase: str
    #: the job has ended and this was all of its output
    ended: bool


async def records(call: Call) -> AsyncIterator[bytes]:
    """Send what is stored; with follow, go on until the job has ended."""
    query: OutputQuery = call.query
    position = decode_cursor(query.after)
    if query.follow:
        with call.services.heads.follow(job_id(call)) as head:
            async for lines in _followed(call, head, position, query.limit or sys.maxsize):
                yield lines
    else:
        await call.services.jobs.get(job_id(call), call.principal)
        yield b""  # the headers go out at once
        async for lines in _stored(call, position, query.limit or PAGE_RECORDS):
            yield lines


async def _stored(call: Call, position: int, left: int) -> AsyncIterator[bytes]:
    """Send up to *left* records that are there."""
    services, name = call.services, job_id(call)
    while True:
        # The job is read before its output: all records are stored before a job ends, so an empty page after the end
        # means that everything was sent.
        job = await services.jobs.get(name, call.principal)
        page = await services.output.read(name, position, min(left, PAGE_RECORDS), PAGE_BYTES)
        position, left = page.next, left - len(page.records)
        if page.records:
            yield rendered(page)
        if not page.records or not left:
            yield _eof(job, position, job.phase.ended and not page.records)
            return


async def _followed(call: Call, head: Head, position: int, left: int) -> AsyncIterator[bytes]:
    """Send records as they come, up to *left*, until the job has ended and all of them were sent."""
    version, job, length = await _look(call, head, position)
    yield b""  # the headers go out at once
    while position > length and not job.phase.ended:
        # A cursor from before the store was restored: the log may reach it yet.
        await head.news()
        yield b"\n"
        version, job, length = await _look(call, head, position)
    while left and not (job.phase.ended and position >= length):
        reached, lines = await _next_lines(call, head, position)
        if reached - position > left:
            reached, lines = position + left, b"\n".join(lines.split(b"\n", left)[:left]) + b"\n"
        left -= reached - position
        position = reached
        if lines:
            yield lines
        elif head.version == version:
            await head.more()
        if head.version != version:
            if not lines:
                yield b"\n"
            version, job, length = await _look(call, head, position)
    yield _eof(job, position, job.phase.ended and position >= length)


async def _look(call: Call, head: Head, position: int) -> tuple[int, Job, int]:
    """Return the head's version, the job, and how many records its log has: all of them once it has ended."""
    version = head.version
    job, length = await head.look(position)
    return version, shown(job, job_id(call), call.principal), length


async def _next_lines(call: Call, head: Head, position: int) -> tuple[int, bytes]:
    """Return what is there after *position*, and the position that it reaches; nothing at the head."""
    reached, lines = head.after(position)
    if lines or not head.behind(position):
        return reached, lines
    page = await call.services.output.read(job_id(call), position, PAGE_RECORDS, PAGE_BYTES)
    return page.next, rendered(page)


def _eof(job: Job, position: int, complete: bool) -> bytes:
    return msgspec.json.encode(Eof(cursor=encode_cursor(position), phase=job.phase, ended=complete)) + b"\n"


async def download(call: Call) -> Reply:
    query: DownloadQuery = call.query
    name = job_id(call)
    await call.services.jobs.get(name, call.principal)
    text = query.format == "text"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}.{"log" if text else "ndjson"}"',
        "Content-Type": TEXT if text else NDJSON,
    }
    return Reply(value=_whole(call, name, text), headers=headers)


async def _whole(call: Call, name: str, text: bool) -> AsyncIterator[bytes]:
    position = 0
    while True:
        page = await call.services.output.read(name, position, PAGE_RECORDS, PAGE_BYTES)
        if not page.records:
            return
        position = page.next
        yield b"".join(_texts(page)) if text else rendered(page)


def _texts(page: OutputPage) -> Iterator[bytes]:
    for *_, line in page.records:
        yield as_text(msgspec.json.decode(line)).encode(errors="replace")


def as_text(record: dict[str, Any]) -> str:
    """Show one record in a plain text file; what has no text form leaves nothing."""
    match record.get("type"):
        case "stream":
            return str(record.get("text", ""))
        case "display" | "result":
            shown = (record.get("data") or {}).get("text/plain", "")
            return _line("".join(shown) if isinstance(shown, list) else str(shown))
        case "error":
            return _line("\n".join(str(line) for line in record.get("traceback") or ()))
        case "gap":
            return _line(f"[{record.get('message', 'output is missing here')}]")
        case _:
            return ""


def _line(text: str) -> str:
    return f"{text}\n" if text else ""


ROUTES = (
    Route(
        path="/api/v1/jobs/{job}/output",
        operations=(
            Operation(
                method="GET",
                name="read_output",
                summary="Read a job's output",
                answer=records,
                query=OutputQuery,
                stream=(NDJSON,),
            ),
        ),
    ),
    Route(
        path="/api/v1/jobs/{job}/download",
        operations=(
            Operation(
                method="GET",
                name="download_output",
                summary="Download a job's output as a file",
                answer=download,
                query=DownloadQuery,
                stream=(TEXT, NDJSON),
                headers=("Content-Disposition",),
            ),
        ),
    ),
)
