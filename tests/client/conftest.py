"""A small real HTTP service, told by each test what to answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from jupyter_gpu_platform.model.jobs import Command, Job, JobSpec

Answer = Callable[[RequestHandler], Awaitable[None]]

SPEC = JobSpec(source=Command(argv=("true",)))
JOB = Job(id="j1", spec=SPEC, owner="ada", project="default", organisation="default", created=1.0)


class Asked(RequestHandler):
    def initialize(self, service: Service) -> None:
        self.service = service

    async def answer(self) -> None:
        self.service.requests.append(self.request)
        number = min(len(self.service.requests), len(self.service.answers)) - 1
        await self.service.answers[number](self)

    get = head = post = put = delete = patch = answer  # type: ignore[assignment]  # Tornado's take any


class Service:
    """Gives its answers in turn, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list = []
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        (socket,) = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(Application([(".*", Asked, {"service": self})]))
        server.add_sockets([socket])
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        self._loop.call_soon(self._ready.set)
        self._loop.run_forever()
        server.stop()
        self._loop.run_until_complete(server.close_all_connections())
        self._loop.close()

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    made.start()
    yield made
    made.stop()


def ok(value: object) -> Answer:
    async def answer(handler: RequestHandler) -> None:
        handler.finish(msgspec.json.encode(value))

    return answer


def problem(
    status: int, code: str, *, retry_after: str = "", detail: str = "It failed.", hint: str = "Mend it."
) -> Answer:
    async def answer(handler: RequestHandler) -> None:
        handler.set_status(status)
        handler.set_header("Content-Type", "application/problem+json")
        if retry_after:
            handler.set_header("Retry-After", retry_after)
        # Bytes: Tornado would make application/json of a dictionary.
        handler.finish(msgspec.json.encode({"status": status, "code": code, "detail": detail, "hint": hint}))

    return answer


def cut(content: bytes = b"") -> Answer:
    """Send *content* of a longer answer and break the connection off."""

    async def answer(handler: RequestHandler) -> None:
        if content:
            handler.write(content)
            await handler.flush()
        stream = handler.request.connection.detach()
        handler._finished = True
        stream.close()

    return answer


def lines(*parts: object) -> bytes:
    return b"".join(msgspec.json.encode(part) + b"\n" for part in parts)


def sent(content: bytes) -> Answer:
    async def answer(handler: RequestHandler) -> None:
        handler.finish(content)

    return answer
