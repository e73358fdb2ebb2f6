"""A control service as an admin starts it, in a process of its own, so that its memory, signals and log are its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import pytest

T = TypeVar("T")

TOKEN = "an-admin-token-of-the-operations-tests"
JOB = {"source": {"type": "command", "argv": ["true"]}, "target": {"cluster": "nowhere"}}
CONTROL = ("-m", "jupyter_gpu_platform.control")
#: seconds that a step may take before a test gives up on it
PATIENCE = 60.0


def eventually(look: Callable[[], T | None], what: str) -> T:
    """Look at another process until there is something to see."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
        signal.sigtimedwait([], 0.02)
    return seen


class Program:
    """One control service."""

    def __init__(self, folder: Path, *options: str, database_url: str = "", code: Sequence[str] = CONTROL) -> None:
        self.folder = folder
        self.database_url = database_url or f"sqlite:///{folder / 'state' / 'control.db'}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(TOKEN)
        self.log = folder / "log"
        self._options = options
        self._code = code
        self.start()

    def start(self) -> None:
        command = [sys.executable, *self._code, f"--token-file={self.folder / 'token'}"]
        command += [f"--state-dir={self.folder / 'state'}", f"--database-url={self.database_url}", *self._options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=dict(os.environ))
        self.url = eventually(self._listening, f"the service to listen: {self.log}")

    def _listening(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()
        found = re.search(r"listening at (http://[\d.:]+)", self.log.read_text())
        return found[1] if found else None

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, trust_env=False)

    def connection(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=PATIENCE)

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def figure(self, name: str) -> float:
        """Return one figure of /metrics; *name* with its labels."""
        with self.client() as client:
            text = client.get("/metrics").text
        return float(next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")))

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Program] = []

    def begin(*options: str, database_url: str = "", name: str = "service", code: Sequence[str] = CONTROL) -> Program:
        started.append(Program(tmp_path / name, *options, database_url=database_url, code=code))
        return started[-1]

    yield begin
    for program in started:
        with contextlib.suppress(ProcessLookupError):
            program.kill()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Empty for SQLite in the state directory."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
