"""Keeps runners ready: per interpreter one supervisor and worker that have imported all and have run nothing.

One is started once a cell or function has used its interpreter, after a pause, so that the job that took the last one
comes first. It is used for one attempt, and let go of when nobody came for it or memory gets short.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
from pathlib import Path

from . import memory, processes

log = logging.getLogger(__name__)

#: seconds from a job's start to that of the runner for the next one
PAUSE = 0.5
#: seconds between looks at the memory while runners wait
LOOK = 5.0
#: a runner waits only while the machine, or the container that this is, could take this much more (bytes)
SPARE = 2**30


class Standby:
    """The runners on standby of one agent.

    :param limit: so many at most; 0: none.
    :param seconds: one that nobody used for so long is ended.
    """

    def __init__(self, state_dir: Path, limit: int, seconds: float) -> None:
        self._state_dir = state_dir
        self._limit = limit
        self._seconds = seconds
        #: by interpreter, the one used longest ago first
        self._kept: dict[str, asyncio.Task[None]] = {}
        self._ready: dict[str, subprocess.Popen[bytes]] = {}

    def take(self, python: str, folder: Path) -> subprocess.Popen[bytes] | None:
        """Give the attempt in *folder* to the runner that waits for *python*, if one does; see to the next one."""
        child = self._ready.pop(python, None)
        self._drop(python)
        if self._limit:
            while len(self._kept) >= self._limit:
                self._drop(next(iter(self._kept)))
            self._kept[python] = asyncio.create_task(self._keep(python), name=f"standby {python}")
        if child is None or processes.give(child, folder):
            return child
        child.kill()  # it doesn't listen: it is dead, or about to be
        child.wait()
        return None

    async def close(self) -> None:
        """End those that wait."""
        tasks = list(self._kept.values())
        for python in list(self._kept):
            self._drop(python)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _drop(self, python: str) -> None:
        task = self._kept.pop(python, None)
        if task is not None:
            task.cancel()

    async def _keep(self, python: str) -> None:
        await asyncio.sleep(PAUSE)
        if memory.available() < SPARE:
            return
        try:
            child = processes.start_standby(python, self._state_dir)
        except OSError as error:
            log.warning("no runner can stand by: %s", error)
            return
        self._ready[python] = child
        try:
            async with asyncio.timeout(self._seconds):
                await self._while_wanted(child)
        except TimeoutError:
            log.debug("nobody used the runner on standby for %s", python)
        finally:
            # Unless an attempt has taken it meanwhile.
            if self._ready.get(python) is child:
                del self._ready[python]
                await _end(child)

    async def _while_wanted(self, child: subprocess.Popen[bytes]) -> None:
        """Return once it has ended, or memory is short."""
        while child.poll() is None and memory.available() >= SPARE:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await processes.wait_for_exit(child.pid)


async def _end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    try:
        await processes.wait_for_exit(child.pid)
    finally:  # even if the agent ends: it takes milliseconds
        child.wait()
