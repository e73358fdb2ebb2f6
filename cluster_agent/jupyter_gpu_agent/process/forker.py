"""Supervisors without the start of an interpreter: forks of a process that has imported what they need.

The process (`jupyter_gpu_platform.runner.forking`) is started with the first attempt, for which that takes no longer
than a supervisor's own start, ends by itself when idle, and is started again with the next one. Where it doesn't
answer, the supervisor is started in the plain way: which of two that were started for one attempt runs it is decided
by the lock in the attempt's directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import subprocess
from pathlib import Path

from . import processes

log = logging.getLogger(__name__)

#: seconds for its answer, which takes milliseconds once it has started
PATIENCE = 10.0


class Forker:
    """The forking process of one agent."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = asyncio.Lock()

    async def start(self, folder: Path) -> int | None:
        """Start a supervisor for the attempt in *folder*; return its pid, or None where it can't be forked now."""
        async with self._turn:
            return await asyncio.to_thread(self._start, folder)

    async def close(self) -> None:
        async with self._turn:
            await asyncio.to_thread(self._end)

    def _start(self, folder: Path) -> int | None:
        try:
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._process = processes.start_forker(self._state_dir)
            return self._ask(self._process, folder)
        except (OSError, ValueError) as error:
            log.warning("a supervisor can't be forked and is started instead: %s", error)
            self._end()
            return None

    def _ask(self, process: subprocess.Popen[bytes], folder: Path) -> int:
        """Have it fork; return the pid.

        :raises OSError: it is gone, or hangs.
        :raises ValueError: it ended amid its answer.
        """
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(os.fsencode(folder) + b"\n")
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
            raise TimeoutError("no answer")
        return int(process.stdout.readline())

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # One that hangs must not wake up later and fork what was started meanwhile.
        with contextlib.suppress(OSError):
            process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()
