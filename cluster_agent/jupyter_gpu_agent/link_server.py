"""What supervisors talk to: HTTP with one token per attempt, over a Unix socket or TLS."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import ssl
from collections.abc import Callable
from typing import Any

import msgspec
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from jupyter_gpu_platform.bodies import Body
from jupyter_gpu_platform.errors import (
    BodyTooLarge,
    ClaimLost,
    GpuPlatformError,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from jupyter_gpu_platform.model.jobs import MAX_OBJECT_BYTES, Reason
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.model.records import StreamKey

from .executors import AgentCore, AttemptKey, OutOfSequence

#: seconds that a request is parked; runners wait longer for an answer
PARK = 25.0
#: a post of records (bytes): one record of 7 MiB, or many of 1 MiB together
LARGEST_POST = 16 * 2**20


class Ended(msgspec.Struct, kw_only=True):
    """The body of ``ended``."""

    incarnation: str
    exit_code: int | None = None
    reason: Reason | None = None
    last_seq: int = 0


class LinkServer:
    """Serves the attempts' supervisors.

    :param key: from which the attempts' tokens are made.
    :param on_ended: called with an attempt whose end the service has committed.
    :param explain: says why an attempt ended, given why its runner thinks it did.
    :param on_records: called with the lines that the agent has taken of an attempt.
    :param tls: for a socket that others can reach.
    """

    def __init__(
        self,
        core: AgentCore,
        key: bytes,
        on_ended: Callable[[AttemptKey], None],
        tls: ssl.SSLContext | None = None,
        on_records: Callable[[AttemptKey, bytes], None] = lambda *_: None,
        explain: Callable[[AttemptKey, Reason | None], Reason | None] = lambda _, reason: reason,
    ) -> None:
        self.core = core
        self.on_ended = on_ended
        self.on_records = on_records
        self.explain = explain
        self._key = key
        handlers = [
            (r"/v1/attempts/([^/]+)/(\d+)/(\d+)/claim", ClaimHandler, {"link": self}),
            (r"/v1/attempts/([^/]+)/(\d+)/(\d+)/records", RecordsHandler, {"link": self}),
            (r"/v1/attempts/([^/]+)/(\d+)/(\d+)/wanted", WantedHandler, {"link": self}),
            (r"/v1/attempts/([^/]+)/(\d+)/(\d+)/ended", EndedHandler, {"link": self}),
            (r"/v1/attempts/([^/]+)/(\d+)/(\d+)/objects/([0-9a-f]{64})", ObjectHandler, {"link": self}),
        ]
        application = Application(handlers, log_function=lambda _: None)
        self._server = HTTPServer(
            application, ssl_options=tls, max_body_size=LARGEST_POST, max_buffer_size=LARGEST_POST
        )

    def token(self, job: str, attempt: int) -> str:
        return hmac.new(self._key, f"{job}/{attempt}".encode(), hashlib.sha256).hexdigest()

    def start(self, listening: socket.socket) -> None:
        self._server.add_socket(listening)

    async def close(self) -> None:
        """Stop to listen; a socket's file stays, and the next agent replaces it."""
        self._server.stop()
        await self._server.close_all_connections()


class LinkHandler(RequestHandler):
    """One supervisor's request, its token checked."""

    def initialize(self, link: LinkServer) -> None:
        self.link = link

    def prepare(self) -> None:
        job, attempt, replica = self.path_args[:3]
        expected = f"Bearer {self.link.token(job, int(attempt))}"
        if not hmac.compare_digest(self.request.headers.get("Authorization", ""), expected):
            raise HTTPError(401)
        self.key = StreamKey(job, int(attempt), int(replica))
        self.attempt = AttemptKey(job, int(attempt))

    def answer(self, status: int, **content: Any) -> None:
        self.set_status(status)
        self.finish(json.dumps(content))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.finish("{}")


class ClaimHandler(LinkHandler):
    async def post(self, *path: str) -> None:
        incarnation = str(json.loads(self.request.body)["incarnation"])
        try:
            result = await self.link.core.claim(self.key.job, self.key.attempt, self.key.replica, incarnation)
        except Unavailable:
            return self.answer(503)
        if result.granted:
            return self.answer(200, granted=True, max_output_bytes=result.max_output_bytes)
        return self.answer(409, granted=False, refusal=result.refusal)


class RecordsHandler(LinkHandler):
    async def post(self, *path: str) -> None:
        core = self.link.core
        first, count = int(self.get_query_argument("first")), int(self.get_query_argument("count"))
        incarnation = self.get_query_argument("incarnation")
        if core.fenced(self.attempt):
            return self.answer(410)
        try:
            async with asyncio.timeout(PARK):
                await core.append(self.key, incarnation, first, count, self.request.body)
        except OutOfSequence as error:
            return self.answer(409, expected=error.expected)
        except ClaimLost:
            return self.answer(410)
        except (Unavailable, TimeoutError):
            return self.answer(503)
        self.link.on_records(self.attempt, self.request.body)
        return self.answer(200, durable=core.durable(self.key))


class WantedHandler(LinkHandler):
    async def get(self, *path: str) -> None:
        core = self.link.core
        generation, durable = int(self.get_query_argument("generation")), int(self.get_query_argument("durable"))
        if core.fenced(self.attempt):
            return self.answer(410)
        # A runner that is older than this agent asks nothing, so it has had no answer.
        inputs = int(self.get_query_argument("inputs", "0"))
        wanted = await core.wait_wanted(self.key, generation, durable, inputs, PARK)
        if core.fenced(self.attempt):
            return self.answer(410)
        answers = [answer._asdict() for answer in wanted.inputs]
        return self.answer(200, **{**wanted._asdict(), "inputs": answers})


class EndedHandler(LinkHandler):
    async def post(self, *path: str) -> None:
        ended = msgspec.json.decode(self.request.body, type=Ended)
        report = Report(
            job=self.key.job,
            attempt=self.key.attempt,
            incarnation=ended.incarnation,
            exit_code=ended.exit_code,
            reason=self.link.explain(self.attempt, ended.reason),
        )
        try:
            async with asyncio.timeout(PARK):
                await self.link.core.ended(report)
        except (TimeoutError, Unavailable):
            return self.answer(503)
        self.link.on_ended(self.attempt)
        return self.answer(200)


@stream_request_body
class ObjectHandler(LinkHandler):
    """Values in and out, passed through."""

    _body: Body | None = None
    _storing: asyncio.Task[None] | None = None

    async def get(self, *path: str) -> None:
        digest = path[3]
        try:
            async with self.link.core.fetch(self.attempt, digest) as (size, pieces):
                self.set_header("Content-Length", str(size))
                self.set_header("Content-Type", "application/octet-stream")
                async for piece in pieces:
                    self.write(piece)
                    await self.flush()
        except StreamClosedError:
            return None  # the runner is gone
        except GpuPlatformError as error:
            return self._broken_off() if self._headers_written else self._refuse(error)
        self.finish()
        return None

    def _broken_off(self) -> None:
        """Close the connection before the body's end: the runner sees that it is short, and asks again."""
        self._finished = True
        self.request.connection.detach().close()  # type: ignore[union-attr]  # Tornado's own connections have it
        self.on_finish()

    def prepare(self) -> None:
        super().prepare()
        if self.request.method != "PUT":
            return
        # Beyond the limit the service refuses; here the runner must come to read that.
        self.request.connection.set_max_body_size(2**62)  # type: ignore[union-attr]  # Tornado's own connections have it
        incarnation = self.get_query_argument("incarnation")
        size = int(self.request.headers.get("Content-Length", -1))
        body = self._body = Body()
        self._storing = asyncio.create_task(self._store(incarnation, self.path_args[3], size, body))
        self._storing.add_done_callback(lambda _: body.end())  # what still comes is read and dropped

    async def _store(self, incarnation: str, digest: str, size: int, body: Body) -> None:
        if size < 0:
            raise InvalidRequest("an object needs a Content-Length")
        if size > MAX_OBJECT_BYTES:
            raise BodyTooLarge(f"an object may have {MAX_OBJECT_BYTES} bytes")
        await self.link.core.store(self.attempt, incarnation, digest, size, body)

    async def data_received(self, chunk: bytes) -> None:
        if self._body is not None:
            await self._body.feed(chunk)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._storing is not None:
            self._storing.cancel()

    async def put(self, *path: str) -> None:
        assert self._body is not None, "prepare() begins it"
        assert self._storing is not None, "prepare() begins it"
        self._body.end()
        try:
            await self._storing
        except GpuPlatformError as error:
            return self._refuse(error)
        return self.answer(200)

    def _refuse(self, error: GpuPlatformError) -> None:
        self.clear_header("Content-Length")
        self.set_header("Content-Type", "application/json")
        match error:
            case ClaimLost():
                return self.answer(410)
            case NotFound() | InvalidRequest():
                return self.answer(error.status, code=error.code, message=error.message)
            case _:
                return self.answer(503)
