"""What goes on at this moment: calls in flight, open streams, and when anybody last called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Activity:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.last = now()
        #: calls being answered, streams included
        self.calls = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.streams: set[asyncio.Task[Any]] = set()
        self.stopping = False
        #: asks the process to end; set by the application
        self.stop: Callable[[], None] = lambda: None

    def begin(self) -> None:
        self.calls += 1
        self._quiet.clear()
        self.last = self._now()

    def end(self) -> None:
        self.calls -= 1
        self.last = self._now()
        if not self.calls:
            self._quiet.set()

    def touch(self) -> None:
        """Count idle time from now on."""
        self.last = self._now()

    def idle_for(self) -> float:
        """Seconds since the last call ended; 0 while one goes on."""
        return 0.0 if self.calls else self._now() - self.last

    def end_streams(self) -> None:
        """Break open streams off: their readers come back with their cursors, to whoever serves then."""
        for task in self.streams:
            task.cancel()

    async def drained(self, timeout: float) -> bool:
        """Wait for the end of all calls in flight; False when some still go on after *timeout* seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True
