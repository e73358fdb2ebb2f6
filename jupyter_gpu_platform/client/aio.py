"""The client for asyncio: the same methods as `sync.Client`, which describes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
import msgspec

from .. import errors
from ..model.jobs import Attempt, Job, JobSpec, ObjectRef, Phase
from . import finding, protocol, streams, transfers, transport
from .protocol import (
    Call,
    Change,
    Document,
    Endpoint,
    Event,
    Failure,
    JobPage,
    OutputPage,
    Patience,
    Record,
    Status,
    Trouble,
)

T = TypeVar("T")


async def connect_async(url: str | None = None, token: str | None = None, start: bool = True) -> AsyncClient:
    """Return an asyncio client of the platform that is configured, or else of this machine's own.

    :param url: defaults to ``JUPYTER_GPU_URL``; without either, this machine's platform is used.
    :param token: defaults to ``JUPYTER_GPU_TOKEN``.
    :param start: start this machine's platform when it doesn't run.
    :raises LocalPlatformError: this machine's platform can't be started, or doesn't run and *start* is false.
    """
    return await AsyncClient._found(finding.resolver(url, token, start=start))


class AsyncClient:
    """Talks to one platform, from one event loop.

    Every method raises the `errors.GpuPlatformError` that the service raised, or `errors.Unavailable` when it can't
    be reached for 30 seconds. Creates carry an idempotency key, so that they are repeated safely.
    """

    def __init__(self, url: str, token: str, *, resolve: Callable[[], Endpoint] | None = None) -> None:
        """:param resolve: finds the platform again when it can't be reached: this machine's own moves."""
        self._endpoint = Endpoint(transport.checked(url), token)
        self._resolve = resolve
        self._timeout = transport.call_timeout()
        self._http = httpx.AsyncClient(timeout=self._timeout, trust_env=transport.uses_environment(url))

    @classmethod
    async def _found(cls, resolve: Callable[[], Endpoint]) -> AsyncClient:
        endpoint = await asyncio.to_thread(resolve)
        client = cls(endpoint.url, endpoint.token, resolve=resolve)
        client._endpoint = endpoint
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.url}>"

    @property
    def url(self) -> str:
        return self._endpoint.url

    @property
    def is_local(self) -> bool:
        """Whether this is the platform that this machine started for its user."""
        return self._endpoint.runtime is not None

    async def close(self) -> None:
        await self._http.aclose()

    # --- sending ---------------------------------------------------------------------------------------------

    async def _current(self) -> Endpoint:
        """Return where to send to, having looked again when the process there is known to be gone."""
        if self._resolve is not None and not self._endpoint.alive:
            self._endpoint = await asyncio.to_thread(self._resolve)
        return self._endpoint

    async def _moved(self, endpoint: Endpoint, failure: Failure) -> bool:
        """Look again where a token was refused or nobody listened: the platform may be elsewhere by now."""
        lost = failure.trouble is Trouble.UNSENT or isinstance(failure.error, errors.Unauthenticated)
        if self._resolve is None or not lost:
            return False
        self._endpoint = await asyncio.to_thread(self._resolve)
        return self._endpoint != endpoint

    async def _call(self, call: Call[T]) -> T:
        patience = Patience(time.monotonic(), repeatable=call.repeatable, limit=call.patience)
        while True:
            endpoint = await self._current()
            failure, body = await self._try(call, endpoint)
            if failure is None:
                try:
                    return call.decode(body)
                except msgspec.DecodeError as error:
                    raise protocol.undecodable(endpoint, error) from error
            if call.deletes and patience.failures and isinstance(failure.error, errors.NotFound):
                return call.decode(b"")  # the try before had done it, only its answer was lost
            if await self._moved(endpoint, failure):
                continue
            if protocol.refused_unknown(failure):
                raise protocol.refused_by_older(failure.error, (await self.status()).version)
            await self._pause(patience, failure)

    async def _try(self, call: Call[T], endpoint: Endpoint) -> tuple[Failure | None, bytes]:
        try:
            response = await self._http.request(
                call.method,
                endpoint.url + call.path,
                params=list(call.params),
                content=call.body if call.upload is None else transfers.pieces_async(call.upload),
                headers=protocol.request_headers(endpoint, call),
                timeout=self._timeout if call.upload is None else transport.UPLOAD_TIMEOUT,
            )
        except httpx.TransportError as error:
            failure = transport.lost(error, endpoint)
            failure.error.__cause__ = error
            return failure, b""
        if response.is_success:
            return None, response.content
        return protocol.refused(response.status_code, response.headers, response.content), b""

    async def _pause(self, patience: Patience, failure: Failure) -> None:
        delay = patience.delay(failure, time.monotonic())
        if delay is None:
            raise failure.error
        await asyncio.sleep(delay)

    async def _stream(self, follower: streams.Follower[T], deadline: float | None = None) -> AsyncIterator[T]:
        """Yield what *follower* reads, over as many connections as it takes.

        :param deadline: on the monotonic clock.
        :raises TimeoutError: the deadline has passed.
        """
        patience = Patience(time.monotonic(), limit=protocol.STREAM_PATIENCE)
        while not follower.ended:
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise TimeoutError
            endpoint, call = await self._current(), follower.call()
            failure: Failure | None = None
            try:
                async with self._http.stream(
                    call.method,
                    endpoint.url + call.path,
                    params=list(call.params),
                    headers=protocol.request_headers(endpoint, call),
                    timeout=transport.stream_timeout(remaining),
                ) as response:
                    if not response.is_success:
                        failure = protocol.refused(response.status_code, response.headers, await response.aread())
                    else:
                        follower.connected()
                        async for chunk in response.aiter_bytes():
                            patience.restart(time.monotonic())
                            for item in follower.feed(chunk):
                                yield item
                            if deadline is not None and time.monotonic() > deadline:
                                raise TimeoutError
                        follower.closed()
            except httpx.TransportError as error:
                failure = transport.lost(error, endpoint)
                failure.error.__cause__ = error
            except msgspec.DecodeError as error:
                raise protocol.undecodable(endpoint, error) from error
            if not follower.ended and not (failure and await self._moved(endpoint, failure)):
                await self._pause(patience, failure or transport.closed_early(endpoint))

    # --- jobs ------------------------------------------------------------------------------------------------

    async def status(self) -> Status:
        """Say who answers, and as whom it knows the caller."""
        return await self._call(protocol.status())

    async def submit(self, spec: JobSpec, idempotency_key: str | None = None) -> Job:
        """Create a job.

        :param idempotency_key: the same key and spec again give the same job; a new one each time by default.
        """
        return await self._call(protocol.submit(spec, idempotency_key))

    async def submit_many(self, specs: Iterable[JobSpec], idempotency_key: str | None = None) -> tuple[Job, ...]:
        """Create up to 1000 jobs, all or none."""
        return await self._call(protocol.submit_many(specs, idempotency_key))

    async def job(self, job_id: str) -> Job:
        return await self._call(protocol.job(job_id))

    async def jobs(
        self,
        *,
        limit: int | None = None,
        after: str = "",
        phases: Iterable[Phase | str] = (),
        project: str = "",
        owner: str = "",
        cluster: str = "",
        name: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> JobPage:
        """Return a page of jobs, newest first."""
        return await self._call(
            protocol.jobs(
                limit=limit,
                after=after,
                phases=phases,
                project=project,
                owner=owner,
                cluster=cluster,
                name=name,
                labels=labels,
            )
        )

    async def iter_jobs(
        self,
        *,
        phases: Iterable[Phase | str] = (),
        project: str = "",
        owner: str = "",
        cluster: str = "",
        name: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Job]:
        """Yield all jobs, newest first, a page at a time."""
        phases, after = tuple(phases), ""
        while True:
            page = await self.jobs(
                limit=200,
                after=after,
                phases=phases,
                project=project,
                owner=owner,
                cluster=cluster,
                name=name,
                labels=labels,
            )
            for job in page.items:
                yield job
            if not page.next:
                return
            after = page.next

    async def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """Return the job once it has ended.

        :param timeout: seconds.
        :raises TimeoutError: it goes on, and *timeout* seconds have passed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            # The position first: a change between the two is then seen twice, never missed.
            position = (await self.jobs(limit=1)).log_position
            job = await self.job(job_id)
            if job.phase.ended:
                return job
            try:
                async for change in self._stream(streams.ChangeFollower(position, follow=True), deadline):
                    if change.object_id == job_id and change.kind.startswith("job"):
                        job = await self.job(job_id)
                        if job.phase.ended:
                            return job
            except errors.Gone:
                continue  # fell behind the trimmed end of the log: look at the job anew

    async def cancel(self, job_id: str) -> Job:
        """Ask for the job's end; its processes get SIGTERM, and after their grace period SIGKILL."""
        return await self._call(protocol.act(job_id, "cancel"))

    async def interrupt(self, job_id: str) -> Job:
        """Raise KeyboardInterrupt in the job's code, as Ctrl-C would."""
        return await self._call(protocol.act(job_id, "interrupt"))

    async def retry(self, job_id: str) -> Job:
        """Run an ended job again, as its next attempt."""
        return await self._call(protocol.act(job_id, "retry"))

    async def abandon(self, job_id: str) -> Job:
        """Give up an unreachable job; its processes may go on where they are."""
        return await self._call(protocol.act(job_id, "abandon"))

    async def delete(self, job_id: str) -> None:
        """Delete an ended job and its output."""
        await self._call(protocol.delete(job_id))

    async def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        return await self._call(protocol.attempts(job_id))

    async def events(self, job_id: str, *, after: int = 0, limit: int | None = None) -> tuple[Event, ...]:
        return await self._call(protocol.events(job_id, after=after, limit=limit))

    # --- values and answers ----------------------------------------------------------------------------------

    async def put_object(self, digest: str, size: int, chunks: transfers.Chunks) -> ObjectRef:
        """Keep bytes under their SHA-256; sends nothing where they are there already.

        :param chunks: gives them from the beginning; called again for each try.
        """
        try:
            await self._call(protocol.look_for_object(digest))
        except errors.NotFound:
            return await self._call(protocol.put_object(digest, size, chunks))
        return ObjectRef(digest=digest, size=size)

    async def get_object(self, digest: str, path: Path) -> None:
        """Write one's own object to *path*, which is there only once all of it has come.

        :raises NotFound: there is no such object, or it is another's.
        """
        patience, call = Patience(time.monotonic(), limit=protocol.STREAM_PATIENCE), protocol.get_object(digest)
        with transfers.Download(digest, path) as download:
            while True:
                endpoint = await self._current()
                try:
                    async with self._http.stream(
                        call.method,
                        endpoint.url + call.path,
                        headers=protocol.request_headers(endpoint, call),
                        timeout=transport.stream_timeout(None),
                    ) as response:
                        if response.is_success:
                            download.begin()
                            async for chunk in response.aiter_raw(transfers.PIECE):
                                download.feed(chunk)
                            return download.finish()
                        failure = protocol.refused(response.status_code, response.headers, await response.aread())
                except httpx.TransportError as error:
                    failure = transport.lost(error, endpoint)
                    failure.error.__cause__ = error
                if not await self._moved(endpoint, failure):
                    await self._pause(patience, failure)

    async def answer(self, job_id: str, request: int, value: str) -> None:
        """Answer what the job's code asks by `input`. It may be lost: answer again until ``input_reply`` is recorded.

        :param request: the number in the ``input`` record.
        :raises Conflict: nothing runs that could be answered.
        """
        await self._call(protocol.answer(job_id, request, value))

    # --- output and changes ----------------------------------------------------------------------------------

    async def output(self, job_id: str, after: str = "", limit: int | None = None) -> OutputPage:
        """Return the records that are there behind the cursor *after*; a page may not hold all of them."""
        return await self._call(protocol.output(job_id, after=after, limit=limit))

    def follow(self, job_id: str, after: str = "") -> AsyncIterator[Record]:
        """Yield the job's records as they come, until it has ended and all were yielded.

        A connection that breaks is made anew and goes on where it was; each record carries its ``cursor``.

        :raises Unavailable: the service could not be reached for ten minutes.
        """
        return self._stream(streams.OutputFollower(job_id, after))

    async def download(self, job_id: str, form: str = "text") -> bytes:
        """Return the whole output as ``text`` or ``ndjson``."""
        return await self._call(protocol.download(job_id, form))

    def changes(self, after: int, follow: bool = False) -> AsyncIterator[Change]:
        """Yield the change log behind *after*: what there is, or with *follow* what comes, for ever.

        :raises Gone: the log has been trimmed beyond *after*: list again.
        """
        return self._stream(streams.ChangeFollower(after, follow=follow))

    # --- clusters, agents, tokens ----------------------------------------------------------------------------

    async def clusters(self) -> list[Document]:
        return await self._call(protocol.documents("clusters"))

    async def cluster(self, name: str) -> Document:
        return await self._call(protocol.document("clusters", name))

    async def cluster_add(self, name: str) -> Document:
        """Create a cluster; the answer holds the ``join_token`` for its agent."""
        return await self._call(protocol.create("clusters", name=name))

    async def cluster_remove(self, name: str) -> None:
        await self._call(protocol.remove("clusters", name))

    async def cluster_drain(self, name: str, drained: bool = True) -> Document:
        """Close the cluster for new jobs, or open it again; what runs goes on."""
        return await self._call(protocol.change("clusters", name, drained=drained))

    async def cluster_join_token(self, name: str) -> Document:
        """Make another short-lived ``join_token`` for the cluster."""
        return await self._call(protocol.create("clusters", name, "join-tokens"))

    async def cluster_inspect(self, name: str) -> Document:
        """Ask the cluster's agent what it holds right now."""
        return await self._call(protocol.document("clusters", name, "inspect"))

    async def unknown_attempts(self, cluster: str) -> list[Document]:
        """List what the cluster's agent runs and the store does not know (after a restored backup)."""
        return await self._call(protocol.documents("clusters", cluster, "unknown-attempts"))

    async def unknown_attempt_remove(self, cluster: str, job_id: str, attempt: int) -> None:
        await self._call(protocol.remove("clusters", cluster, "unknown-attempts", job_id, attempt))

    async def agents(self) -> list[Document]:
        return await self._call(protocol.documents("agents"))

    async def agent_revoke(self, agent_id: str) -> None:
        await self._call(protocol.remove("agents", agent_id))

    async def tokens(self) -> list[Document]:
        return await self._call(protocol.documents("tokens"))

    async def token_add(
        self, user: str, role: str = "user", project: str | None = None, ttl_seconds: float | None = None
    ) -> Document:
        """Create an API token; its ``token`` is shown this once.

        :param ttl_seconds: until it expires; never when absent.
        """
        return await self._call(
            protocol.create("tokens", user=user, role=role, project=project, ttl_seconds=ttl_seconds)
        )

    async def token_remove(self, token_id: str) -> None:
        await self._call(protocol.remove("tokens", token_id))

    async def shutdown(self, when_idle: bool = False) -> None:
        """Stop this machine's platform; jobs that run go on, and the next start finds them.

        :raises Conflict: *when_idle* was asked for, and it is not.
        """
        await self._call(protocol.shutdown(when_idle=when_idle))
