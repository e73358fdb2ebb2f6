"""Does the output log hold what it promises? It is dense, and can be read to its last byte; a part of `checking`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import zstandard
from sqlalchemy import Connection, select

from .. import errors
from .store import aging, tables
from .store.output_log import unpacked
from .store.segments import Block, Segments, decode_index

PAGE = 500

#: what unpacking raises: output was packed by zlib before it was by zstd
_UNPACKABLE = (zlib.error, zstandard.ZstdError)

_LOST = "What is missing can't be made again: put the store back from a backup, or delete the job."
_OWN = "The service removes it within the hour; if it is there after that, report it."


class _Part(NamedTuple):
    """A run of neighbouring records: a chunk, or a segment's block."""

    last: int
    records: int
    size: int


def output_findings(connection: Connection, jobs: set[str], segments: Segments) -> Iterator[tuple[str, str, str]]:
    """Yield (code, what is wrong, what to do) for all output.

    :param jobs: all that there are.
    """
    after = ""
    while names := aging.jobs_with_output(connection, after, PAGE):
        after = names[-1]
        for job in names:
            if job not in jobs:
                yield "stray_output", f"there is output of job {job}, which is gone", _OWN
            for code, what in _job(connection, job, segments):
                yield code, f"job {job}: {what}", _LOST
    for table in (tables.output_chunk, tables.output_segment, tables.output_stream):
        there = select(tables.output_job.c.job).where(tables.output_job.c.job == table.c.job).exists()
        for job in connection.execute(select(table.c.job).where(~there).distinct()).scalars():
            yield "stray_output", f"table {table.name} has rows of job {job}, whose log is gone", _LOST


def _job(connection: Connection, job: str, segments: Segments) -> Iterator[tuple[str, str]]:
    parts: list[_Part] = []
    row = tables.output_segment.c
    for name, last, index in connection.execute(
        select(row.name, row.last, row.index).where(row.job == job).order_by(row.last)
    ):
        try:
            blocks = decode_index(index)
        except msgspec.DecodeError:
            yield "segment_unreadable", f"the index of segment {name} can't be read"
            return
        parts += [_Part(block.last, block.records, block.size) for block in blocks]
        if blocks and blocks[-1].last != last:
            yield "output_not_dense", f"segment {name} ends at record {blocks[-1].last}, not at {last}"
        yield from _segment(segments, name, blocks)
    chunk = tables.output_chunk.c
    chunks = select(chunk.last, chunk.records, chunk.size, chunk.data).where(chunk.job == job).order_by(chunk.last)
    for last, records, size, data in connection.execute(chunks.execution_options(yield_per=20)):
        parts.append(_Part(last, records, size))
        try:
            lines = unpacked(data)
        except _UNPACKABLE:
            yield "chunk_unreadable", f"the chunk that ends at record {last} can't be unpacked"
            continue
        if (lines.count(b"\n"), len(lines)) != (records, size):
            yield "chunk_unreadable", f"the chunk that ends at record {last} is not its {records} lines"
    yield from _dense(connection, job, parts)


def _segment(segments: Segments, name: str, blocks: list[Block]) -> Iterator[tuple[str, str]]:
    for block in blocks:
        try:
            (chunk,) = segments.read(name, [block])
        except (errors.GpuPlatformError, *_UNPACKABLE) as error:
            yield "segment_unreadable", f"segment {name} can't be read at record {block.last}: {error}"
            return
        if (chunk.lines.count(b"\n"), len(chunk.lines)) != (block.records, block.size):
            yield "segment_unreadable", f"segment {name}: what ends at record {block.last} is not its lines"


def _dense(connection: Connection, job: str, parts: list[_Part]) -> Iterator[tuple[str, str]]:
    end = size = 0
    for part in parts:
        if part.last - part.records != end:
            yield "output_not_dense", f"records {end} and {part.last - part.records + 1} are neighbours"
        end = part.last
        size += part.size
    row, stream = tables.output_job.c, tables.output_stream.c
    log = connection.execute(select(row.records, row.size, row.newest_attempt).where(row.job == job)).one()
    if (end, size) != (log.records, log.size):
        yield "output_not_dense", f"{end} records of {size} bytes are there, {log.records} of {log.size} were taken"
    streams = connection.execute(select(stream.attempt, stream.next_seq, stream.cut).where(stream.job == job)).all()
    taken = sum(found.next_seq - 1 for found in streams)
    # A stream that was cut has a notice instead of its rest, and keeps its very end.
    if end > taken + len(streams) or (end != taken and not any(found.cut for found in streams)):
        yield "output_not_dense", f"its streams have come to {taken} records, its log to {end}"
    if log.newest_attempt != max((found.attempt for found in streams), default=0):
        yield "output_fence", f"attempt {log.newest_attempt} is its newest, but its streams say otherwise"
