"""The one handler behind every route: who calls, what they sent, and in which form the answer or the error leaves."""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
import types
import typing
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import msgspec
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, stream_request_body

from ... import errors
from ...bodies import Body
from .. import problems
from ..identity import NOBODY, Principal
from ..services import Services
from .activity import Activity
from .operation import JSON, Call, Operation, Reply, Route

log = logging.getLogger(__name__)

#: A refused body is read and dropped up to so many times the limit, so that its sender can read the refusal.
_DISCARD = 4


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (list, tuple)


def _decode(value: bytes, what: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise errors.InvalidRequest(f"{what} is not UTF-8") from None
    if "\x00" in text:
        raise errors.InvalidRequest(f"{what} holds a NUL character", hint="Remove it.")
    return text


def parse_query(arguments: dict[str, list[bytes]], query: type[msgspec.Struct]) -> msgspec.Struct:
    """Read query parameters into their struct.

    :raises InvalidRequest: one is unknown (the nearest valid one is named), given twice, or has a wrong value.
    """
    if not arguments and not query.__struct_fields__:
        return query()
    hints = typing.get_type_hints(query)
    found: dict[str, Any] = {}
    for name, values in arguments.items():
        if name not in hints:
            raise errors.InvalidRequest(f"unknown query parameter {name[:60]!r}", hint=_nearest(name, list(hints)))
        texts = [_decode(value, f"query parameter {name}") for value in values]
        if _is_list(hints[name]):
            found[name] = texts
        elif len(texts) > 1:
            raise errors.InvalidRequest(f"query parameter {name} was given {len(texts)} times", hint="Give it once.")
        else:
            found[name] = texts[0]
    try:
        return msgspec.convert(found, query, strict=False)
    except msgspec.ValidationError as error:
        raise problems.invalid(error, "the query") from None


def _nearest(name: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Valid here: {', '.join(valid)}." if valid else "This path takes none."


@stream_request_body
class ApiHandler(problems.Named):
    """Admits a request, has its operation answer it, and writes the answer."""

    def initialize(self, services: Services, activity: Activity, route: Route) -> None:
        self.services = services
        self.activity = activity
        self.route = route
        self.limits = services.limits
        self.principal: Principal = NOBODY
        self._body = bytearray()
        self._received = 0
        #: bytes of the body that count as held
        self._held = 0
        #: why the request will be refused, once its body has been read
        self._refusal: errors.GpuPlatformError | None = None
        self._streaming: asyncio.Task[None] | None = None
        #: of an upload: its body, and the operation that reads it meanwhile
        self._upload: Body | None = None
        self._reading: asyncio.Future[Any] | None = None
        self._counted = False
        self._began = time.monotonic()

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        super().set_default_headers()

    # admission

    def _begin(self) -> None:
        self._counted = True
        self.services.metrics.in_flight.inc()
        if not self.route.passive:
            self.activity.begin()

    def _end(self) -> None:
        if self._counted:
            self._counted = False
            self.services.metrics.in_flight.dec()
            self._let_go_body()
            if self._upload is not None:
                self.services.admission.uploads.free()
            if not self.route.passive:
                self.activity.end()

    def _operation(self) -> Operation:
        for operation in self.route.operations:
            if operation.method == self.request.method:
                return operation
        raise errors.MethodNotAllowed(
            f"{self.request.method} is not possible on {self.route.path}", hint=f"Use {self.route.methods}."
        )

    async def prepare(self) -> None:
        self._begin()
        try:
            operation = self._operation()
            if self.activity.stopping:
                self.set_header("Connection", "close")
                raise errors.Unavailable("the service is shutting down", hint="Try again in a moment.")
            if operation.roles:
                await self._admit(operation)
            self._check_length(int(self.request.headers.get("Content-Length") or 0))
            if operation.upload:
                self._begin_upload(operation)
        except errors.GpuPlatformError as error:
            self._refusal = error

    async def _admit(self, operation: Operation) -> None:
        sent = self.request.headers.get("Authorization")
        self.principal = await self.services.identity.authenticate(sent)
        if self.principal.role not in operation.roles:
            raise errors.Forbidden(
                f"role {self.principal.role} may not {operation.summary[:1].lower()}{operation.summary[1:]}",
                hint=f"This needs one of: {', '.join(sorted(operation.roles))}.",
            )

    def _begin_upload(self, operation: Operation) -> None:
        """Have the operation read the body while it comes."""
        self.services.admission.uploads.take()
        if self.request.connection is not None:
            self.request.connection.set_body_timeout(self.limits.upload_seconds)  # type: ignore[attr-defined]  # HTTP/1's has it
        body = self._upload = Body()
        work = operation.answer(self._call(operation, self.path_kwargs, body))
        assert not isinstance(work, AsyncIterator), "an upload's answer is no stream"
        self._reading = asyncio.ensure_future(work)
        # Whatever comes after its end, as after a refusal, is read and dropped.
        self._reading.add_done_callback(lambda _: body.end())

    def _check_length(self, length: int) -> None:
        upload = self._operation().upload
        if upload and length > upload:
            raise errors.BodyTooLarge(f"the body is larger than {upload} bytes", hint="Send less.")
        if not upload and length > self.limits.max_body_bytes:
            raise errors.BodyTooLarge(
                f"the body is larger than {self.limits.max_body_bytes} bytes",
                hint="Send less, or have the admin raise --max-body-bytes.",
            )

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        self._received += len(chunk)
        if self._refusal is None:
            try:
                self._check_length(self._received)
                if self._upload is not None:
                    return self._upload.feed(chunk)
                self.services.admission.bodies.take(amount=len(chunk))
                self._held += len(chunk)
                self._body += chunk
            except (errors.BodyTooLarge, errors.TooManyRequests) as error:
                self._refusal = error
                self._let_go_body()
                self._give_up_upload()
        elif self._received > _DISCARD * self.limits.max_body_bytes and not self._finished:
            self._refuse(self._refusal)  # and Tornado closes the connection, since the body was not read to its end
        return None

    def _let_go_body(self) -> None:
        self._body.clear()
        if self._held:
            self.services.admission.bodies.free(amount=self._held)
            self._held = 0

    def _give_up_upload(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    # the answer

    async def answer(self, *_args: str, **path: str) -> None:
        try:
            if self._refusal is not None:
                raise self._refusal
            await self._answer(self._operation(), path)
        except errors.GpuPlatformError as error:
            self._refuse(error)

    get = post = put = patch = delete = head = options = answer

    async def _answer(self, operation: Operation, path: dict[str, str]) -> None:
        if self._upload is not None and self._reading is not None:
            self._upload.end()
            answer: Any = self._reading
        else:
            answer = operation.answer(self._call(operation, path, self._decoded(operation)))
        if isinstance(answer, AsyncIterator):
            await self._stream(operation, answer)
            return
        value = await answer
        reply = value if isinstance(value, Reply) else Reply(value=value)
        if isinstance(reply.value, AsyncIterator):
            await self._stream(operation, reply.value, reply.headers)
            return
        self._finish_with(operation, reply)

    def _call(self, operation: Operation, path: dict[str, str], body: Any) -> Call:
        for name, value in path.items():
            _decode(value.encode("utf-8", "surrogateescape"), f"path variable {name}")
        return Call(
            services=self.services,
            activity=self.activity,
            principal=self.principal,
            path=path,
            query=parse_query(self.request.query_arguments, operation.query),
            body=body,
            headers=self.request.headers,
        )

    def _decoded(self, operation: Operation) -> Any:
        if operation.request is None:
            return None
        content = bytes(self._body)
        problems.refuse_nul(content)
        try:
            body: Any = msgspec.json.decode(content, type=operation.request)
            # A lone surrogate can be decoded but not stored or sent on.
            msgspec.json.encode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise problems.invalid(error, "the body") from None
        return body

    def _finish_with(self, operation: Operation, reply: Reply) -> None:
        self.set_status(reply.status or operation.status)
        for name, value in reply.headers.items():
            self.set_header(name, value)
        if reply.value is None:
            self.clear_header("Content-Type")
        elif isinstance(reply.value, bytes):
            self.write(reply.value)
        else:
            self.set_header("Content-Type", JSON)
            self.write(msgspec.json.encode(reply.value))
        self.finish()

    async def _stream(self, operation: Operation, chunks: AsyncIterator[bytes], headers: Any = None) -> None:
        """Write chunks as they come, no faster than the reader takes them."""
        with self.services.admission.streams.taken(self.principal.user):
            await self._stream_admitted(operation, chunks, headers)

    async def _stream_admitted(self, operation: Operation, chunks: AsyncIterator[bytes], headers: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._pump(operation, chunks, headers or {}))
        self._streaming = task
        self.activity.streams.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self.activity.streams.discard(task)
        if task.cancelled():
            self._break_off()
        elif (error := task.exception()) is not None:
            if not self._headers_written:
                raise error
            if not isinstance(error, StreamClosedError):
                log.error("a stream broke off: %s: %s", self.request.path, error, exc_info=error)
            self._break_off()

    async def _pump(self, operation: Operation, chunks: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        # Proxies must pass each chunk on at once.
        self.set_header("X-Accel-Buffering", "no")
        self.set_header("Content-Type", operation.stream[0])
        for name, value in headers.items():
            self.set_header(name, value)
        async for chunk in chunks:
            self.write(chunk)
            await self.flush()
        await self.finish()

    def _break_off(self) -> None:
        """Close the connection without the end of the body, so that the reader knows there is more."""
        self._finished = True
        stream = self.request.connection.detach() if self.request.connection else None  # type: ignore[attr-defined]  # HTTP/1's has it
        if stream is not None:
            stream.close()
        self.on_finish()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._end()
        self._give_up_upload()
        if self._streaming is not None:
            self._streaming.cancel()

    # errors

    def _refuse(self, error: errors.GpuPlatformError) -> None:
        if self._headers_written:
            log.error("failed after the answer had begun: %s: %s", self.request.path, error.message)
            self._break_off()
            return
        for name in ("ETag", "Location", "Content-Disposition", "Content-Length", "X-Accel-Buffering"):
            self.clear_header(name)
        if isinstance(error, errors.MethodNotAllowed):
            self.set_header("Allow", self.route.methods)
        self.refuse(error)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Give Tornado's own errors, and bugs of ours, the one form that all errors have."""
        self._refuse(self._told(status_code, kwargs.get("exc_info")))

    def _told(
        self, status: int, exc_info: tuple[type[BaseException], BaseException, types.TracebackType] | None
    ) -> errors.GpuPlatformError:
        error = exc_info[1] if exc_info else None
        if isinstance(error, HTTPError) and status == 405:
            return errors.MethodNotAllowed(
                f"{self.request.method} is not possible on {self.route.path}", hint=f"Use {self.route.methods}."
            )
        if isinstance(error, HTTPError) and status < 500:
            return errors.InvalidRequest(error.log_message or "the request can't be understood")
        return errors.InternalError(
            "the service failed at this request", hint=f"Tell the admin: request {self.request_id}; the log says more."
        )

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if isinstance(value, HTTPError):
            return
        log.error("unhandled error at %s %s", self.request.method, self.request.path, exc_info=value)

    # the end

    def on_finish(self) -> None:
        self._end()
        known = self.request.method in self.SUPPORTED_METHODS
        seconds = None if self._streaming else time.monotonic() - self._began
        method = str(self.request.method) if known else "other"
        self.services.metrics.observe(self.route.path, method, self.get_status(), seconds)
        log.debug("%s %s: %d", method, self.request.path, self.get_status())

    def compute_etag(self) -> str | None:
        return None  # operations that have an ETag set it themselves


class MissingHandler(ApiHandler):
    """Any path that isn't in the table."""

    async def prepare(self) -> None:
        self._begin()
        path = self.request.path[:200]
        self._refusal = errors.NotFound(
            f"there is nothing at {path}", hint="GET /api/v1/openapi.json lists every path."
        )
