"""A TCP proxy between two programs, which cuts, delays, stalls, or leaves connections half-open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

#: host and port, or a Unix socket's path; None while nobody listens
Address = tuple[str, int] | str | None


class Proxy:
    """Forwards connections to wherever *upstream* listens now."""

    def __init__(self, name: str, upstream: Callable[[], Address]) -> None:
        self.name = name
        self.port = 0
        #: seconds by which each piece of data is late
        self.delay = 0.0
        #: connections are closed as soon as they are made
        self.refusing = False
        self._upstream = upstream
        self._passing = asyncio.Event()
        self._passing.set()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._half_open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def close(self) -> None:
        self.refusing = True
        self.stall(False)
        self.cut()
        if self._server is not None:
            self._server.close()

    def cut(self) -> int:
        """Reset all connections; return how many there were."""
        count = len(self._pairs)
        for pair in list(self._pairs):
            for writer in pair:
                writer.transport.abort()
        self.end_half_open()
        return count

    def half_open(self) -> int:
        """Forget all connections on the service's side only: the other side isn't told."""
        pairs = list(self._pairs)
        for outer, inner in pairs:
            self._half_open.add(outer)
            inner.transport.abort()
        return len(pairs)

    def end_half_open(self) -> None:
        """Let the other sides of those know, as a machine would once nothing was acknowledged for long enough."""
        for writer in self._half_open:
            writer.transport.abort()
        self._half_open.clear()

    def stall(self, stalled: bool) -> int:
        """Let nothing through, or let it through again."""
        if stalled:
            self._passing.clear()
        else:
            self._passing.set()
        return len(self._pairs)

    async def _serve(self, reader: asyncio.StreamReader, outer: asyncio.StreamWriter) -> None:
        address = None if self.refusing else self._upstream()
        try:
            if address is None:
                raise ConnectionRefusedError
            inner_reader, inner = await _connected(address)
        except OSError:
            outer.transport.abort()
            return
        pair = (outer, inner)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(reader, inner, outer), self._pump(inner_reader, outer, outer))
        finally:
            self._pairs.discard(pair)
            for writer in pair:
                if writer not in self._half_open:
                    writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, outer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._passing.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        if outer not in self._half_open:
            writer.close()


async def _connected(address: tuple[str, int] | str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(address, str):
        return await asyncio.open_unix_connection(address)
    return await asyncio.open_connection(*address)
