"""The listening side of the service: how many connections it takes, and how long a silent one may stay."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError

from .. import errors
from . import problems
from .limits import Limits

#: file handles besides those of connections: databases, files, pipes
OTHER_HANDLES = 256
#: So many connections over the limit are told why at one time; the rest is just closed.
_TOLD = 64


def raise_handle_limit(connections: int) -> int:
    """Let this process have as many file handles as so many connections need, or as the system allows; return that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_HANDLES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(wanted, soft)


class BoundedServer(HTTPServer):
    """An HTTP server that refuses connections beyond a limit, and cuts those whose peers take nothing any more."""

    def initialize(self, request_callback: Any, limits: Limits) -> None:  # type: ignore[override]  # our own settings
        # Handlers limit bodies themselves, so that too large a one gets an answer instead of a cut connection.
        super().initialize(
            request_callback,
            max_body_size=2**62,
            max_header_size=limits.max_header_bytes,
            idle_connection_timeout=limits.idle_seconds,
            body_timeout=limits.body_seconds,
            xheaders=False,
        )
        handles = raise_handle_limit(limits.max_connections + limits.max_agent_sockets)
        self.limit = min(limits.max_connections, max(handles - OTHER_HANDLES, 10))
        #: connections refused so far
        self.refused = 0
        self._send_milliseconds = int(limits.send_seconds * 1000)
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """HTTP connections open now; those of agents have become WebSockets."""
        return len(self._connections)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if self.open >= self.limit:
            self.refused += 1
            self._turn_away(stream)
            return
        with contextlib.suppress(OSError):
            # Ends a connection whose peer is gone, or reads nothing, whatever we are just sending.
            stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._send_milliseconds)
        super().handle_stream(stream, address)

    def _turn_away(self, stream: IOStream) -> None:
        if len(self._telling) >= _TOLD:
            stream.close()
            return
        task = asyncio.ensure_future(self._tell(stream))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, stream: IOStream) -> None:
        """Answer 503. What was sent is read first: closing over it would take the answer away again."""
        body = problems.document(errors.Unavailable("too many connections", hint="Try again in a moment."))
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
            f"Content-Type: {problems.MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
            f"Retry-After: {problems.RETRY_AFTER}\r\n\r\n"
        )
        with contextlib.suppress(StreamClosedError, UnsatisfiableReadError, TimeoutError):
            async with asyncio.timeout(1.0):
                await stream.read_until(b"\r\n\r\n", max_bytes=64 * 1024)
                await stream.write(head.encode() + body)
        stream.close()
