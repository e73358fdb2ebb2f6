"""A load generator that is not itself the bound: raw HTTP/1.1 over kept-alive connections, one protocol object each.

It costs some 30 µs a request, where an httpx client costs 5 ms; the bare handler beside each figure shows what the
generator can do at least.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit


class Load(NamedTuple):
    #: seconds of each answered request
    latencies: list[float]
    #: seconds in all
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds


class _Client(asyncio.Protocol):
    """Sends the next request as soon as one is answered, until the time is up."""

    def __init__(self, request: Callable[[], bytes], until: float, latencies: list[float]) -> None:
        self._request = request
        self._until = until
        self._latencies = latencies
        self._buffer = bytearray()
        self._missing = -1
        self._began = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        if self._began >= self._until:
            self._transport.close()
            return
        self._transport.write(self._request())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._missing < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            if not head.startswith((b"http/1.1 201", b"http/1.1 200")):
                self._fail(RuntimeError(bytes(self._buffer[:600]).decode()))
                return
            at = head.index(b"content-length:") + 15
            self._missing = int(head[at:].split(b"\r\n", 1)[0]) + end + 4
        if len(self._buffer) >= self._missing:
            self._buffer.clear()
            self._missing = -1
            self._latencies.append(time.perf_counter() - self._began)
            self._send()

    def _fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            if exc is None and time.perf_counter() >= self._until:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(exc or ConnectionError("the service closed the connection"))


def requests(url: str, path: str, token: str, body: bytes, *, idempotent: bool) -> Callable[[], bytes]:
    """Return what makes the POST requests: each with an Idempotency-Key of its own, where asked for."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    ).encode()
    if not idempotent:
        whole = head + b"\r\n" + body
        return lambda: whole
    return lambda: b"%sIdempotency-Key: %s\r\n\r\n%s" % (head, secrets.token_hex(12).encode(), body)


def load(url: str, request: Callable[[], bytes], *, connections: int, seconds: float) -> Load:
    """Send requests over so many connections for so long.

    :raises RuntimeError: one was not answered with success.
    """
    parts = urlsplit(url)
    latencies: list[float] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        until = time.perf_counter() + seconds
        clients = []
        for _ in range(connections):
            _, client = await loop.create_connection(
                lambda: _Client(request, until, latencies), parts.hostname, parts.port
            )
            clients.append(client.ended)
        await asyncio.gather(*clients)

    began = time.perf_counter()
    asyncio.run(run())
    return Load(latencies, time.perf_counter() - began)
