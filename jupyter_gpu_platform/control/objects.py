"""Objects: the bytes of values that go into jobs and come out of them, kept for their owner under their SHA-256.

People put and get their own. An agent gets what the specs of its cluster's attempts name, and puts what the claimed
incarnation of one has made. A job holds its objects; what nobody holds goes a day after it was last used.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from .. import errors
from ..model import lifecycle
from ..model.jobs import MAX_OBJECT_BYTES, Attempt, Job, JobSpec, ObjectRef
from .store.rows import StoredObject

if TYPE_CHECKING:
    from .identity import Principal
    from .store.object_files import ObjectFiles
    from .store.reader import Reader
    from .store.transaction import Transaction
    from .store.writer import Writer

T = TypeVar("T")

#: bytes read and sent at once
PIECE = 2**20
#: seconds that an object is kept though no job holds it
UNHELD_SECONDS = 86_400.0
#: an object counts as used again at most so often, seconds: a look must not cost a commit each time
USED_AGAIN = 3600.0
#: this many go in one transaction
BATCH = 500


def _no_object(digest: str) -> errors.NotFound:
    return errors.NotFound(f"you have no object {digest[:64]}", hint="Upload it with PUT /api/v1/objects/{digest}.")


def hold(tx: Transaction, job: Job, principal: Principal) -> None:
    """Have a new job hold the objects that its spec names.

    :raises ObjectMissing: *principal* doesn't have them all.
    """
    for ref in job.spec.objects:
        stored = tx.stored_object(principal.organisation, principal.user, ref.digest)
        if stored is None:
            raise errors.ObjectMissing(
                f"there is no object {ref.digest}",
                hint="Upload it with PUT /api/v1/objects/{digest}, then submit again.",
            )
        if stored.size != ref.size:
            raise errors.InvalidRequest(f"object {ref.digest} has {stored.size} bytes, not {ref.size}")
        tx.hold_object(job.id, stored.organisation, stored.owner, ref.digest)


class Objects:
    """The objects' service."""

    def __init__(self, writer: Writer, reader: Reader, files: ObjectFiles, *, now: Callable[[], float]) -> None:
        self._writer = writer
        self._reader = reader
        self._files = files
        self._now = now
        # Of its own: storage may be slow, and nothing else should wait for it.
        self._pool = ThreadPoolExecutor(8, "objects")

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.shutdown)

    async def _blocking(self, work: Callable[..., T], *args: Any) -> T:
        return await _to_its_end(asyncio.get_running_loop().run_in_executor(self._pool, work, *args))

    # --- for people

    async def put(self, principal: Principal, digest: str, body: AsyncIterable[bytes]) -> tuple[ObjectRef, bool]:
        """Keep bytes for *principal*; the second part says whether they are new.

        :raises DigestMismatch: they are not what *digest* names; nothing is kept.
        :raises BodyTooLarge: they are too many.
        :raises StorageFull: there is no room for them.
        """

        def operation(tx: Transaction, name: str, size: int) -> bool:
            return tx.put_object(self._row(principal.organisation, principal.user, digest, name, size))

        return await self._store(digest, body, operation)

    async def find(self, principal: Principal, digest: str) -> StoredObject:
        """Return one's own object, or for an admin anybody's; it counts as used.

        :raises NotFound: there is none.
        """

        def look(tx: Transaction) -> StoredObject | None:
            if principal.role == "admin":
                return tx.anyones_object(digest)
            return tx.stored_object(principal.organisation, principal.user, digest)

        stored = await self._reader.run(look)
        if stored is None:
            raise _no_object(digest)
        if self._now() - stored.used > USED_AGAIN:
            await self._writer.run(lambda tx: tx.use_object(stored))
        return stored

    async def read(self, stored: StoredObject) -> AsyncIterator[bytes]:
        """Yield an object's bytes.

        :raises NotFound: its file is gone; said before the first piece.
        """
        file = await self._blocking(self._files.open, stored.name)
        try:
            while data := await self._blocking(self._files.read, file, PIECE):
                yield data
        finally:
            await self._blocking(file.close)

    # --- for agents

    async def find_for_attempt(self, agent_id: str, job_id: str, number: int, digest: str) -> StoredObject:
        """Return an object that the spec of an attempt of the agent's cluster names.

        :raises NotFound: it names none such, or the attempt is not of that cluster.
        """

        def look(tx: Transaction) -> StoredObject | None:
            job, attempt = _of_cluster(tx, agent_id, job_id, number)
            if job is None or attempt is None or digest not in _digests(job.spec):
                return None
            return tx.object_of_job(job_id, digest)

        stored = await self._reader.run(look)
        if stored is None:
            raise errors.NotFound(f"attempt {job_id}.{number} names no object {digest[:64]}")
        return stored

    async def put_from_attempt(
        self, agent_id: str, job_id: str, number: int, incarnation: str, digest: str, body: AsyncIterable[bytes]
    ) -> tuple[ObjectRef, bool]:
        """Keep what an attempt has made for the owner of its job, who then holds it through the job.

        :raises ClaimLost: this incarnation doesn't hold the attempt (any more).
        """

        def fence(tx: Transaction) -> Job:
            job, attempt = _of_cluster(tx, agent_id, job_id, number)
            if job is None or attempt is None or not lifecycle.holds(job, attempt, incarnation=incarnation):
                raise errors.ClaimLost(f"attempt {job_id}.{number} is not held by this incarnation")
            return job

        def operation(tx: Transaction, name: str, size: int) -> bool:
            job = fence(tx)
            new = tx.put_object(self._row(job.organisation, job.owner, digest, name, size))
            tx.hold_object(job.id, job.organisation, job.owner, digest)
            return new

        await self._reader.run(fence)  # before the bytes come; and again with their commit
        return await self._store(digest, body, operation)

    # --- within

    def _row(self, organisation: str, owner: str, digest: str, name: str, size: int) -> StoredObject:
        now = self._now()
        return StoredObject(
            organisation=organisation, owner=owner, digest=digest, size=size, name=name, created=now, used=now
        )

    async def _store(
        self, digest: str, body: AsyncIterable[bytes], commit: Callable[[Transaction, str, int], bool]
    ) -> tuple[ObjectRef, bool]:
        """Write a file, then the row that names it; leaves no file behind that no row names."""
        upload = self._files.upload(self._now())
        named: bool | None = False
        try:
            await self._blocking(upload.open)
            async for data in body:
                if upload.size + len(data) > MAX_OBJECT_BYTES:
                    raise errors.BodyTooLarge(f"an object may have {MAX_OBJECT_BYTES} bytes")
                await self._blocking(upload.write, data)
            await self._blocking(upload.finish, digest)
            named = None

            async def name_it() -> None:
                nonlocal named
                try:
                    named = await self._writer.run(lambda tx: commit(tx, upload.name, upload.size))
                except errors.Unavailable:
                    raise  # whether it was committed is not known: a file without a row goes with the sweep
                except errors.GpuPlatformError:
                    named = False
                    raise

            await _to_its_end(name_it())
        finally:
            if named is False:
                await self._blocking(upload.drop)
        return ObjectRef(digest=digest, size=upload.size), bool(named)

    # --- upkeep

    async def sweep(self) -> int:
        """Remove objects that no job holds and nobody has used for a day, and files without an object."""
        before = self._now() - UNHELD_SECONDS
        removed = 0
        while names := await self._writer.run(lambda tx: tx.take_unheld_objects(before, BATCH)):
            for name in names:
                await self._blocking(self._files.delete, name)
            removed += len(names)
        left = await self._blocking(self._files.older_than, before)
        for start in range(0, len(left), BATCH):
            some = left[start : start + BATCH]
            for name in set(some) - await self._reader.run(functools.partial(_known, names=some)):
                await self._blocking(self._files.delete, name)
        return removed


async def _to_its_end(work: Awaitable[T]) -> T:
    """Wait for *work* even when cancelled: what follows must know how it ended, and not come in between."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _known(tx: Transaction, names: list[str]) -> set[str]:
    return tx.known_object_names(names)


def _digests(spec: JobSpec) -> set[str]:
    return {ref.digest for ref in spec.objects}


def _of_cluster(tx: Transaction, agent_id: str, job_id: str, number: int) -> tuple[Job | None, Attempt | None]:
    """Return an attempt of the agent's cluster and its job."""
    agent, attempt = tx.agent(agent_id), tx.attempt(job_id, number)
    if agent is None or agent.revoked or attempt is None or attempt.cluster != agent.cluster:
        return None, None
    return tx.job(job_id), attempt
