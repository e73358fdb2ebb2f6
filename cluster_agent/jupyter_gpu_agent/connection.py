"""Dialling out: two WebSockets to whichever replica answers, made again for as long as the agent lives.

The control socket carries the session; the bulk socket, opened once the service has welcomed the agent, carries output.
Either one's end ends both, and the next try starts after a random pause that grows (full jitter), so that a thousand
agents which lost the same service don't come back in one moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import NamedTuple

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import HTTPTimeoutError
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError

from jupyter_gpu_platform import errors, logs
from jupyter_gpu_platform.wire import codec
from jupyter_gpu_platform.wire.messages import MAX_MESSAGE, Message, Welcome
from jupyter_gpu_platform.wire.session import Close, Effect, Got, Send
from jupyter_gpu_platform.wire.streams import AgentBulk

from .core import Core
from .dialling import dial

logger = logging.getLogger(__name__)

#: seconds; the pause before try *n* is random in 0 … FIRST_PAUSE · 2^n, at most LONGEST_PAUSE
FIRST_PAUSE = 0.25
#: A service that is back has all its agents within this, spread out: with a thousand, 6 ms for each.
LONGEST_PAUSE = 6.0
#: seconds for a connection, which the service's kernel makes; and for the service's answer on it. One to which a
#: thousand agents come back at once answers late: to dial again then would only give it more to do.
CONNECT_PATIENCE = 10.0
ANSWER_PATIENCE = 20.0
#: seconds for a socket to be closed; Tornado gives a silent peer up after five
CLOSE_PATIENCE = 6.0
#: seconds between looks at the clock, finer than the heartbeat
TICK = 0.5
#: seconds between two tellings of how the agent fares
FIGURES_EVERY = 10.0


class Endpoint(NamedTuple):
    """A replica of the control service, and who we are to it."""

    #: http(s)://host:port
    url: str
    agent_id: str
    credential: str


class _Closed(Exception):
    """The session is over."""

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class _Socket:
    """An open WebSocket, which knows when it is closed."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        # Tornado leaves Nagle's algorithm on: a claim would wait up to 40 ms for the answer to what was sent before it.
        if connection.protocol is not None:
            connection.protocol.set_nodelay(True)
        self._connection = connection
        self._closed = False

    @property
    def close_reason(self) -> str:
        return self._connection.close_reason or "the service closed the socket"

    async def read(self) -> str | bytes | None:
        """Return the next message; None once the socket is closed."""
        data = await self._connection.read_message()
        self._closed = data is None
        return data

    async def write(self, data: bytes) -> None:
        await self._connection.write_message(data, binary=True)

    async def close(self) -> None:
        """Close it and see it closed: the peer answers, or is given up after five seconds."""
        self._connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_PATIENCE):
                while not self._closed:
                    await self.read()


class Connection:
    """Keeps one agent connected.

    :param resolve: names the service to dial now, or None while there is none. Asked before each try.
    :param longest_pause: seconds.
    """

    def __init__(
        self, core: Core, resolve: Callable[[], Endpoint | None], *, longest_pause: float = LONGEST_PAUSE
    ) -> None:
        self._core = core
        self._resolve = resolve
        self._longest_pause = longest_pause
        self._failures = 0
        #: sockets on their way out: their peers have a say in it, or they are still being opened
        self._leaving: set[asyncio.Task[None]] = set()
        #: the loop's time at which the service was last known to be there
        self.last_live = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Connect, and again, until cancelled; no socket outlives this."""
        try:
            await self._connect_again_and_again()
        finally:
            await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _connect_again_and_again(self) -> None:
        while True:
            pause = 0.0
            try:
                endpoint = self._resolve()
                if endpoint is not None:
                    with logs.about(agent=endpoint.agent_id):
                        await self._until_lost(endpoint)
                else:
                    self._failures += 1
            except* (_Closed, OSError, HTTPClientError, HTTPTimeoutError, WebSocketClosedError) as group:
                causes = _flat(group)
                pause = max(map(_asked_pause, causes))
                self._failed()
                logger.info("connection lost: %s", "; ".join(str(cause) or type(cause).__name__ for cause in causes))
            except* errors.GpuPlatformError as group:
                self._failed()
                logger.warning("connection given up: %s", "; ".join(str(cause) for cause in _flat(group)))
            ceiling = min(self._longest_pause, FIRST_PAUSE * 2 ** min(self._failures, 16))
            await asyncio.sleep(pause + random.uniform(0, ceiling))  # noqa: S311 -- jitter

    def _failed(self) -> None:
        self._failures += 1
        self._core.counts["connection_failures"] += 1

    async def _until_lost(self, endpoint: Endpoint) -> None:
        """Hold a session until it fails, or this is cancelled.

        The session is a task of its own: before Python 3.13 a task group that fails in the moment in which it is
        cancelled raises the failure alone, and an agent that is told to stop would dial again.
        """
        session = asyncio.create_task(self._session(endpoint))
        try:
            await asyncio.wait([session])
        finally:
            session.cancel()
            await asyncio.wait([session])
        session.result()

    async def _session(self, endpoint: Endpoint) -> None:
        socket = await self._dial(endpoint, "control")
        welcome: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        outgoing: asyncio.Queue[Message] = asyncio.Queue()

        def carry_out(effects: Sequence[Effect]) -> None:
            for effect in effects:
                match effect:
                    case Send(message):
                        outgoing.put_nowait(message)
                    case Close(code, message, retry_after):
                        raise _Closed(f"{code}: {message}", retry_after)
                    case Got(Welcome() as message):
                        self._failures = 0
                        self._core.counts["connections"] += 1
                        self._core.endpoint = endpoint
                        welcome.set_result(message)
                    case _:
                        self._core.take(effect)

        try:
            self._core.attach(carry_out)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(socket, outgoing))
                group.create_task(self._read(socket, lambda message, now: self._hear(message, now, carry_out)))
                group.create_task(self._tick(lambda now: carry_out(self._core.session.tick(now))))
                group.create_task(self._bulk(endpoint, welcome))
                group.create_task(self._tell_figures(welcome, carry_out))
        finally:
            self._core.endpoint = None
            self._core.detach()
            self._let_go(socket.close())

    def _hear(self, message: Message, now: float, carry_out: Callable[[Sequence[Effect]], None]) -> None:
        self.last_live = now
        carry_out(self._core.session.receive(message, now))

    async def _bulk(self, endpoint: Endpoint, welcomed: asyncio.Future[Welcome]) -> None:
        welcome = await welcomed
        socket = await self._dial(endpoint, "bulk")
        bulk = AgentBulk(self._core.streams, asyncio.get_running_loop().time())
        outgoing: asyncio.Queue[Message] = asyncio.Queue()

        def carry_out(effects: Sequence[Effect]) -> None:
            for effect in effects:
                match effect:
                    case Send(message):
                        outgoing.put_nowait(message)
                    case Close(code, message, retry_after):
                        raise _Closed(f"{code}: {message}", retry_after)
                    case _:
                        self._core.take(effect)

        try:
            carry_out(bulk.connect(self._core.boot_id, welcome.epoch))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(socket, outgoing))
                group.create_task(self._read(socket, lambda message, now: carry_out(bulk.receive(message, now))))
                group.create_task(self._tick(lambda now: carry_out(bulk.tick(now))))
                group.create_task(self._pump(outgoing))
        finally:
            self._let_go(socket.close())

    async def _tell_figures(
        self, welcomed: asyncio.Future[Welcome], carry_out: Callable[[Sequence[Effect]], None]
    ) -> None:
        """Say how the agent fares, now and whenever that has changed."""
        await welcomed
        told = None
        while True:
            figures = await self._core.figures()
            if figures != told:
                told = figures
                carry_out(self._core.session.figures(figures))
            await asyncio.sleep(FIGURES_EVERY)

    async def _pump(self, outgoing: asyncio.Queue[Message]) -> None:
        """Send output as far as its windows allow, whenever something has changed."""
        while True:
            self._core.bulk_news.clear()
            for append in self._core.streams.sendable():
                outgoing.put_nowait(append)
            await self._core.bulk_news.wait()

    async def _dial(self, endpoint: Endpoint, lane: str) -> _Socket:
        url = f"ws{endpoint.url.removeprefix('http')}/api/v1/agents/{endpoint.agent_id}/{lane}"
        headers = {"Authorization": f"Bearer {endpoint.credential}"}
        request = HTTPRequest(
            url,
            headers=headers,
            connect_timeout=CONNECT_PATIENCE,
            request_timeout=ANSWER_PATIENCE,
            validate_cert=True,
        )
        dialling = asyncio.ensure_future(dial(request, MAX_MESSAGE))
        try:
            return _Socket(await asyncio.shield(dialling))
        except asyncio.CancelledError:
            self._let_go(_give_up(dialling))
            raise

    def _let_go(self, ending: Coroutine[None, None, None]) -> None:
        """Have a socket closed; nothing waits for that but the end of `run`."""
        task = asyncio.create_task(ending)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _write(self, socket: _Socket, outgoing: asyncio.Queue[Message]) -> None:
        while True:
            await socket.write(codec.encode(await outgoing.get()))

    async def _read(self, socket: _Socket, hear: Callable[[Message, float], None]) -> None:
        while (data := await socket.read()) is not None:
            hear(codec.decode_from_service(data), asyncio.get_running_loop().time())
        raise _Closed(socket.close_reason)

    async def _tick(self, tick: Callable[[float], None]) -> None:
        while True:
            await asyncio.sleep(TICK)
            tick(asyncio.get_running_loop().time())


def _asked_pause(cause: BaseException) -> float:
    """Return the seconds for which the service asked to stay away."""
    if isinstance(cause, _Closed):
        return cause.retry_after
    if isinstance(cause, HTTPClientError) and cause.response is not None:
        with contextlib.suppress(ValueError):
            return max(float(cause.response.headers.get("Retry-After", "0")), 0.0)
    return 0.0


async def _give_up(dialling: asyncio.Future[WebSocketClientConnection]) -> None:
    """Close a socket that is being opened for a caller who no longer waits."""
    await asyncio.wait([dialling])
    if dialling.exception() is None:
        await _Socket(dialling.result()).close()


def _flat(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _flat(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
