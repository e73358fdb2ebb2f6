"""The programs of a cluster as processes of their own sessions, each known by its pid and stopped by it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

#: seconds that something has to come up, on a busy machine
PATIENCE = 90.0


class Daemon:
    """A program that runs until it is stopped; another process may stop it, too.

    :param folder: where its log is written, and who it is.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._identity = folder / f"{name}.pid"

    def start(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=os.environ | (env or {}),
                start_new_session=True,
            )
        self._identity.write_text(json.dumps([process.pid, psutil.Process(process.pid).create_time()]))
        # It is waited for by whoever stops it, or by init.
        process.returncode = 0

    @property
    def process(self) -> psutil.Process | None:
        """The process, while it lives."""
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            pid, born = json.loads(self._identity.read_text())
            process = psutil.Process(pid)
            if process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def send(self, number: int) -> None:
        if (process := self.process) is not None:
            process.send_signal(number)

    def stop(self, number: int = signal.SIGKILL, seconds: float = 20.0) -> None:
        """End it; by force where it doesn't end within *seconds*."""
        process = self.process
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            try:
                process.wait(seconds)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(seconds)

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "it said nothing"


def until(look: Callable[[], object], what: str, daemon: Daemon | None = None, seconds: float = PATIENCE) -> None:
    """Wait until *look* returns something true.

    :raises RuntimeError: *daemon* ended meanwhile, or the time is over.
    """
    end = time.monotonic() + seconds
    while not look():
        if daemon is not None and daemon.process is None:
            raise RuntimeError(f"{daemon.name} ended:\n{daemon.last_words()}")
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {seconds:g} s" + (f":\n{daemon.last_words()}" if daemon else ""))
        time.sleep(0.05)
