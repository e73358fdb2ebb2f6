"""A request's body as it comes in, for whoever reads it meanwhile: in pieces, with bounded memory.

A Tornado handler feeds it from ``data_received``; where the reader is slow the sender is held back. The control
service stores bodies that way, and a cluster's agent passes them on.
"""

from __future__ import annotations

import asyncio

#: so many bytes wait for the reader before the sender is held back
WAITING = 2**20


class Body:
    """An asynchronous iterator of what `feed` was given; pieces are joined to about a megabyte."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def feed(self, part: bytes) -> None:
        """Take a piece; returns once there is room for the next."""
        if self._ended:
            return  # nobody reads any more
        self._parts.append(part)
        self._size += len(part)
        self._some.set()
        if self._size >= WAITING:
            self._room.clear()
            await self._room.wait()

    def end(self) -> None:
        """Nothing more comes, or nothing more is wanted."""
        self._ended = True
        self._some.set()
        self._room.set()

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        await self._some.wait()
        if not self._parts:
            raise StopAsyncIteration
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if not self._ended:
            self._some.clear()
        self._room.set()
        return data
