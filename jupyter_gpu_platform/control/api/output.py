"""A job's output, as newline-delimited JSON that can be followed and come back to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import msgspec

from ...model.jobs import Job
from ...model.records import decode_cursor, encode_cursor
from ..store.rows import OutputPage
from .jobs import job_id
from .operation import NDJSON, Call, Operation, Reply, Route

#: seconds after which a quiet stream sends a blank line, so that proxies and readers know that it lives
KEEP_ALIVE = 10.0
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


def spliced(position: int, attempt: int, replica: int, line: bytes) -> bytes:
    """Add where a record stands to its line, without decoding it: it is one JSON object, so it ends with a brace."""
    end = line.rindex(b"}")
    return b'%b,"cursor":"%b","attempt":%d,"replica":%d}\n' % (
        line[:end],
        encode_cursor(position).encode(),
        attempt,
        replica,
    )


def _lines(page: OutputPage) -> bytes:
    return b"".join(spliced(*record) for record in page.records)


async def records(call: Call) -> AsyncIterator[bytes]:
    """Send what is stored; with follow, go on until the job has ended."""
    query: OutputQuery = call.query
    services, name = call.services, job_id(call)
    position = decode_cursor(query.after)
    left = query.limit if query.limit is not None or query.follow else PAGE_RECORDS
    job = await services.jobs.get(name, call.principal)
    yield b""  # the headers go out at once
    with services.watch.follow(name) as changed:
        while True:
            changed.clear()
            # The job is read before its output: all records are stored before a job ends, so an empty page after
            # the end means that everything was sent.
            job = await services.jobs.get(name, call.principal)
            wanted = PAGE_RECORDS if left is None else min(left, PAGE_RECORDS)
            page = await services.output.read(name, position, wanted, PAGE_BYTES)
            if page.records:
                position = page.next
                left = None if left is None else left - len(page.records)
                yield _lines(page)
            complete = not page.records and job.phase.ended
            if complete or left == 0 or not (page.records or query.follow):
                yield _eof(job, position, complete)
                return
            if not page.records and not await _news(call, name, position, changed):
                yield b"\n"


def _eof(job: Job, position: int, complete: bool) -> bytes:
    return msgspec.json.encode(Eof(cursor=encode_cursor(position), phase=job.phase, ended=complete)) + b"\n"


async def _news(call: Call, name: str, position: int, changed: asyncio.Event) -> bool:
    """Wait for more output or a change of the job; False when neither came in time."""
    loop = asyncio.get_running_loop()
    waits: set[asyncio.Task[Any]] = {
        loop.create_task(call.services.output.wait(name, position, KEEP_ALIVE)),
        loop.create_task(changed.wait()),
    }
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=KEEP_ALIVE)
        return any(wait.done() and wait.result() for wait in waits)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


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
        yield b"".join(_texts(page)) if text else _lines(page)


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
