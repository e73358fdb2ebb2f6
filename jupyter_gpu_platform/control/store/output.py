"""The output log's lane: a writer thread and transactions of its own (design §4.5).

It never waits for the change log's writer, nor holds it up: with SQLite it has a file of its own, with PostgreSQL it
locks the row of the job it appends to and nothing else. Records, their positions and the stream's cursor change in
one transaction, so that a record that is sent again, or late, or by a fenced attempt, is kept exactly once or never.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import groupby
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from ... import errors
from ...model.records import StreamKey
from . import rows, tables
from .batches import BatchThread, Limits, Waiting, answer_all
from .database import Database, translated
from .output_log import Chunk, Log, Stream, packed, unpacked
from .recent import Recent
from .segments import Block, Segments, decode_index, encode_index
from .signals import OUTPUT_CHANNEL, SAFETY_LOOK

T = TypeVar("T")

#: So many chunks are looked through for one read.
_CHUNKS_PER_READ = 500


class _LogOperation(NamedTuple):
    """Something done to one job's log; all that wait share a transaction."""

    job: str
    #: the log may be new
    opens: bool
    act: Callable[[Log], int]


#: Anything else has a transaction of its own.
_Alone = Callable[[Connection], Any]


class OutputLane:
    """Appends to and reads from the jobs' output logs.

    :param segments_url: where the output of ended jobs goes: a directory or any fsspec URL.
    :param queue_bytes: so much may wait; more gets TooManyRequests.
    """

    def __init__(
        self, database: Database, segments_url: str, *, threads: int = 4, queue_bytes: int = 256 * 2**20
    ) -> None:
        self._database = database
        self._segments = Segments(segments_url)
        self._recent = Recent()
        self._pool = ThreadPoolExecutor(threads, "output-reader")
        limits = Limits(batch_items=256, batch_weight=8 * 2**20, items=100_000, weight=queue_bytes)
        self._batches = BatchThread[_LogOperation | _Alone]("output-writer", self._handle, limits)

    @property
    def lane(self) -> BatchThread[Any]:
        """The queue and its thread, for figures."""
        return self._batches

    async def close(self) -> None:
        """Commit what waits, then end the threads."""
        await self._batches.close()
        await asyncio.to_thread(self._pool.shutdown)

    # --- writing -----------------------------------------------------------------------------------------------

    async def open_stream(self, key: StreamKey, incarnation: str, cluster: str, max_bytes: int) -> int:
        """Open the stream of a claim that was granted, and refuse those of older attempts from now on.

        Opening it again changes nothing. Returns the next seq that is missing.

        :raises ClaimLost: a newer attempt has a stream, or another incarnation holds this one.
        """
        operation = _LogOperation(key.job, True, lambda log: log.open(key, incarnation, cluster, max_bytes))
        return cast("int", await self._batches.submit(operation))

    async def append(self, key: StreamKey, incarnation: str, cluster: str, first: int, count: int, lines: bytes) -> int:
        """Take records ``first … first + count - 1`` and return, once committed, the next seq that is missing.

        :raises ClaimLost: the stream is not open for this incarnation and cluster.
        :raises InvalidRequest: *lines* are not *count* whole lines.
        """

        def act(log: Log) -> int:
            return log.append(key, incarnation, cluster, first, count, lines)

        return cast("int", await self._batches.submit(_LogOperation(key.job, False, act), weight=len(lines) + 1))

    async def seal(self, job: str) -> bool:
        """Move an ended job's chunks into one segment; False where there was nothing to move.

        Readers notice nothing. A job that is tried again after that goes on in the database, and can be sealed again.
        """
        sealed = await self._ask(lambda: self._write_segment(job))
        if sealed is None:
            return False
        name, last, chunks, blocks = sealed
        replaced = await self._batches.submit(
            lambda connection: _replace_chunks(connection, job, name, last, chunks, encode_index(blocks))
        )
        if not replaced and not await self._ask(lambda: self._is_segment(name)):
            await self._ask(lambda: self._segments.delete(name))
        return bool(replaced)

    async def unsealed(self, least: int = 0) -> list[str]:
        """List the jobs of at least so many bytes that have output in the database, running ones included."""
        row = tables.output_job.c
        here = select(tables.output_chunk.c.job).where(tables.output_chunk.c.job == row.job).exists()
        query = select(row.job).where(row.size >= least, here)
        return list(await self.look(lambda connection: connection.execute(query).scalars().all()))

    async def sizes(self, jobs: Sequence[str]) -> dict[str, int]:
        """Return the bytes of those jobs' output, as it was written."""
        row = tables.output_job.c
        query = select(row.job, row.size).where(tables.among(row.job, jobs))
        return await self.look(lambda connection: {found.job: found.size for found in connection.execute(query)})

    async def delete(self, *jobs: str) -> None:
        """Remove all output of these jobs; their streams take nothing more."""

        def remove(connection: Connection) -> list[str]:
            _lock(connection, jobs)
            segment = tables.output_segment
            names = connection.execute(select(segment.c.name).where(tables.among(segment.c.job, jobs))).scalars().all()
            for table in (tables.output_chunk, segment, tables.output_stream, tables.output_job):
                connection.execute(delete(table).where(tables.among(table.c.job, jobs)))
            return list(names)

        names = await self.change(remove)
        if names:
            await self._ask(lambda: self._segments.delete(*names))
        self._recent.forget(*jobs)
        for job in jobs:
            self._database.outputs.wake(job)

    async def change(self, work: Callable[[Connection], T]) -> T:
        """Run *work* in a transaction of its own, on the writer's thread: it holds up everybody else."""
        return cast("T", await self._batches.submit(work))

    # --- reading -----------------------------------------------------------------------------------------------

    async def stream_end(self, key: StreamKey) -> int:
        """Return the next seq that is missing; 1 where nothing has opened the stream."""
        row = tables.output_stream.c
        query = select(row.next_seq).where(
            row.job == key.job, row.attempt == key.attempt, row.replica == key.replica, row.execution == key.execution
        )
        return int(await self.look(lambda connection: connection.execute(query).scalar() or 1))

    async def read(
        self, job: str, after: int = 0, limit_records: int = 1000, limit_bytes: int = 2**20
    ) -> rows.OutputPage:
        """Return records after a position, in the order they were committed; at least one where there is one.

        :raises NotFound: the job's output was deleted while it was read.
        """
        return await self._ask(lambda: self._read(job, after, limit_records, limit_bytes))

    async def size(self, job: str) -> tuple[int, int]:
        """Return how many records a job's log has, and their bytes."""
        row = tables.output_job.c
        query = select(row.records, row.size).where(row.job == job)
        found = await self.look(lambda connection: connection.execute(query).first())
        return (int(found[0]), int(found[1])) if found else (0, 0)

    def following(self, job: str) -> AbstractContextManager[None]:
        """Have what is committed here at hand for `next`, for as long as this lasts."""
        return self._recent.kept(job)

    async def next(self, job: str, after: int) -> rows.OutputPage:
        """Return the records after a position, as soon as there is one."""
        with self._database.outputs.subscribed(job) as woken:
            while True:
                woken.clear()
                if chunks := self._recent.take(job, after):
                    records = [record for chunk in chunks for record in _records(chunk, after)]
                    return rows.OutputPage(records, records[-1][0])
                page = await self.read(job, after)
                if page.records:
                    return page
                # With PostgreSQL a call may be lost with its connection, so now and then we look for ourselves.
                patience = None if self._database.is_sqlite else SAFETY_LOOK
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await woken.wait()

    # --- on the writer's thread ----------------------------------------------------------------------------------

    def _handle(self, batch: Sequence[Waiting[_LogOperation | _Alone]]) -> None:
        for shared, waiting in groupby(batch, key=lambda waiting: isinstance(waiting.item, _LogOperation)):
            if shared:
                self._commit_logs(list(waiting))  # type: ignore[arg-type]  # told apart above
            else:
                for one in waiting:
                    self._commit_alone(one)  # type: ignore[arg-type]  # told apart above

    def _commit_alone(self, waiting: Waiting[_Alone]) -> None:
        try:
            with translated(), self._database.write_output() as connection:
                result = waiting.item(connection)
        except errors.GpuPlatformError as error:
            answer_all([waiting], error)
            return
        waiting.answer.set_result(result)

    def _commit_logs(self, batch: Sequence[Waiting[_LogOperation]]) -> None:
        try:
            with translated(), self._database.write_output() as connection:
                logs = _load(connection, [waiting.item for waiting in batch])
                outcomes = [_outcome(waiting.item, logs) for waiting in batch]
                grown = _save(connection, logs)
                self._database.notify(connection, OUTPUT_CHANNEL, grown)
        except errors.GpuPlatformError as error:
            answer_all(batch, error)
            return
        for job in grown:
            self._recent.add(job, logs[job].chunks)
            self._database.outputs.wake(job)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, int):
                waiting.answer.set_result(outcome)
            else:
                waiting.answer.set_exception(outcome)

    # --- on the readers' threads ---------------------------------------------------------------------------------

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            answer = asyncio.get_running_loop().run_in_executor(self._pool, question)
        except RuntimeError:
            raise errors.Unavailable("the store is being closed", hint="Try again in a moment.") from None
        return await answer

    async def look(self, question: Callable[[Connection], T]) -> T:
        """Run *question* in a snapshot of the lane's tables."""

        def ask() -> T:
            with translated(), self._database.read_output() as connection:
                return question(connection)

        return await self._ask(ask)

    def _read(self, job: str, after: int, limit_records: int, limit_bytes: int) -> rows.OutputPage:
        budget = _Budget(after, limit_records, limit_bytes)
        with translated(), self._database.read_output() as connection:
            sealed = _sealed_blocks(connection, job, budget)
            chunks = _hot_chunks(connection, job, budget)
        files = (chunk for name, blocks in sealed for chunk in self._segments.read(name, blocks))
        records: list[tuple[int, int, int, bytes]] = []
        size = 0
        for chunk in (*files, *chunks):
            for record in _records(chunk, after):
                size += len(record[3])
                if records and (size > limit_bytes or len(records) >= limit_records):
                    return rows.OutputPage(records, records[-1][0])
                records.append(record)
        return rows.OutputPage(records, records[-1][0] if records else after)

    def _write_segment(self, job: str) -> tuple[str, int, int, list[Block]] | None:
        row = tables.output_chunk.c
        with translated(), self._database.read_output() as connection:
            query = select(func.max(row.last), func.count()).where(row.job == job)
            last, count = connection.execute(query).one()
            if not count:
                return None
            # The same chunks give the same file under the same name, so a seal that was cut off leaves nothing behind.
            name = f"{job}-{last:x}.segment"
            return name, last, count, self._segments.write(name, _all_chunks(connection, job))

    def _is_segment(self, name: str) -> bool:
        query = select(tables.output_segment.c.job).where(tables.output_segment.c.name == name)
        with translated(), self._database.read_output() as connection:
            return connection.execute(query).first() is not None


class _Budget:
    """How much of a log one read still takes."""

    def __init__(self, after: int, records: int, size: int) -> None:
        self.after = after
        self._records = records
        self._size = size

    @property
    def spent(self) -> bool:
        return self._records <= 0 or self._size <= 0

    def take(self, last: int, count: int, size: int) -> None:
        self._records -= min(count, last - self.after)
        # A reader that begins in the midst of a chunk is charged for its own share.
        self._size -= size * min(count, last - self.after) // count
        self.after = last


def _records(chunk: Chunk, after: int) -> Iterator[tuple[int, int, int, bytes]]:
    lines = chunk.lines.split(b"\n")
    for position, line in enumerate(lines[: chunk.records], chunk.first):
        if position > after:
            yield position, chunk.attempt, chunk.replica, line + b"\n"


def _sealed_blocks(connection: Connection, job: str, budget: _Budget) -> list[tuple[str, list[Block]]]:
    row = tables.output_segment.c
    found: list[tuple[str, list[Block]]] = []
    query = select(row.name, row.index).where(row.job == job, row.last > budget.after).order_by(row.last)
    for name, index in connection.execute(query):
        blocks: list[Block] = []
        for block in decode_index(index):
            if block.last > budget.after and not budget.spent:
                blocks.append(block)
                budget.take(block.last, block.records, block.size)
        if blocks:
            found.append((name, blocks))
    return found


def _hot_chunks(connection: Connection, job: str, budget: _Budget) -> list[Chunk]:
    """Return the chunks that a read needs; their sizes are looked at before their data is fetched."""
    row = tables.output_chunk.c
    query = select(row.last, row.records, row.size).where(row.job == job, row.last > budget.after).order_by(row.last)
    first = last = None
    for found in connection.execute(query.limit(_CHUNKS_PER_READ)).all():
        if budget.spent:
            break
        first, last = first or found.last, found.last
        budget.take(*found)
    if first is None:
        return []
    return list(_chunks(connection, row.job == job, row.last.between(first, last)))


def _all_chunks(connection: Connection, job: str) -> Iterator[Chunk]:
    row = tables.output_chunk.c
    after = 0
    while True:
        some = list(_chunks(connection, row.job == job, row.last > after, limit=50))
        if not some:
            return
        yield from some
        after = some[-1].last


def _chunks(connection: Connection, *where: Any, limit: int | None = None) -> Iterator[Chunk]:
    row = tables.output_chunk.c
    query = select(row.last, row.records, row.attempt, row.replica, row.data).where(*where).order_by(row.last)
    for last, count, attempt, replica, data in connection.execute(query.limit(limit)):
        yield Chunk(last, count, attempt, replica, unpacked(data))


def _outcome(operation: _LogOperation, logs: dict[str, Log]) -> int | errors.GpuPlatformError:
    log = logs.get(operation.job)
    if log is None:
        return errors.ClaimLost(f"output of {operation.job} is refused: nothing has claimed it")
    try:
        return operation.act(log)
    except errors.GpuPlatformError as error:
        return error


def _load(connection: Connection, operations: Sequence[_LogOperation]) -> dict[str, Log]:
    """Read and lock the logs that are worked on, in the order of their names, so that two replicas never deadlock."""
    job, stream = tables.output_job, tables.output_stream
    opened = sorted({operation.job for operation in operations if operation.opens})
    if opened:
        new = [{"job": name, "newest_attempt": 0, "records": 0, "size": 0} for name in opened]
        connection.execute(tables.insert_missing(connection.dialect, job), new)
    names = {operation.job for operation in operations}
    query = select(job).where(tables.among(job.c.job, names)).order_by(job.c.job).with_for_update()
    logs = {row["job"]: Log(**row) for row in connection.execute(query).mappings()}
    for row in connection.execute(select(stream).where(tables.among(stream.c.job, logs))).mappings():
        values = dict(row)
        key = StreamKey(*(values.pop(name) for name in StreamKey._fields))
        logs[key.job].streams[key] = Stream(key, **values)
    return logs


def _save(connection: Connection, logs: dict[str, Log]) -> list[str]:
    """Write what changed and return the jobs whose logs have grown."""
    changed = [log for log in logs.values() if log.touched]
    streams = [log.streams[key] for log in changed for key in log.touched]
    if new := [_stream_row(stream) for stream in streams if stream.new]:
        connection.execute(insert(tables.output_stream), new)
    if old := [_renamed(_stream_row(stream)) for stream in streams if not stream.new]:
        connection.execute(_UPDATE_STREAM, old)
    if chunks := [_chunk_row(log.job, chunk) for log in changed for chunk in log.chunks]:
        connection.execute(insert(tables.output_chunk), chunks)
    if changed:
        values = [
            {"_job": log.job, "newest_attempt": log.newest_attempt, "records": log.records, "size": log.size}
            for log in changed
        ]
        connection.execute(update(tables.output_job).where(tables.output_job.c.job == bindparam("_job")), values)
    return [log.job for log in changed if log.chunks]


_KEY = [tables.output_stream.c[name] for name in StreamKey._fields]
_UPDATE_STREAM = (
    update(tables.output_stream)
    .where(*(column == bindparam(f"_{column.name}") for column in _KEY))
    .values({name: bindparam(name) for name in ("next_seq", "size", "cut")})
)


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    key = {f"_{name}": row[name] for name in StreamKey._fields}
    return key | {name: row[name] for name in ("next_seq", "size", "cut")}


def _stream_row(stream: Stream) -> dict[str, Any]:
    return stream.key._asdict() | {
        "incarnation": stream.incarnation,
        "cluster": stream.cluster,
        "next_seq": stream.next_seq,
        "max_bytes": stream.max_bytes,
        "size": stream.size,
        "cut": stream.cut,
    }


def _chunk_row(job: str, chunk: Chunk) -> dict[str, Any]:
    return {
        "job": job,
        "last": chunk.last,
        "records": chunk.records,
        "attempt": chunk.attempt,
        "replica": chunk.replica,
        "size": chunk.size,
        "data": packed(chunk.lines),
    }


def _lock(connection: Connection, jobs: Collection[str]) -> int:
    """Lock the logs of jobs, in the order of their names, so that two replicas never deadlock; return how many are."""
    row = tables.output_job.c.job
    query = select(row).where(tables.among(row, jobs)).order_by(row).with_for_update()
    return len(connection.execute(query).all())


def _replace_chunks(connection: Connection, job: str, name: str, last: int, count: int, index: bytes) -> bool:
    """Put a segment in the place of the very chunks it was made of; False where they are not all there any more."""
    row = tables.output_chunk.c
    mine = (row.job == job, row.last <= last)
    if not _lock(connection, [job]):
        return False
    if connection.execute(select(func.count()).select_from(tables.output_chunk).where(*mine)).scalar() != count:
        return False
    connection.execute(insert(tables.output_segment), {"job": job, "last": last, "name": name, "index": index})
    connection.execute(delete(tables.output_chunk).where(*mine))
    return True
