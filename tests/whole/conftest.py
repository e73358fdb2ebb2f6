"""Whole platforms of the real programs, in directories of their own; what is left of one is ended by its pids."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from jupyter_gpu_platform.client import Client, connect

T = TypeVar("T")

#: seconds that a step of a real platform may take before a test gives up on it
PATIENCE = 60.0


def eventually(look: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """Look at processes outside until there is something to see."""
    deadline = time.monotonic() + patience
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited {patience:g} s for {what}"
        os.sched_yield()
        signal.sigtimedwait([], 0.05)
    return seen


def _says(process: psutil.Process, words: tuple[str, ...]) -> bool:
    with contextlib.suppress(psutil.Error):
        line = " ".join(process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and all(word in line for word in words)
    return False


class Place:
    """The directories of one platform, and the processes that live in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"

    def processes(self, *words: str) -> list[psutil.Process]:
        """Processes of this platform, and all that they started, whose command line holds all *words*."""
        mine: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                marked = process.environ().get("JUPYTER_GPU_STATE_DIR") == str(self.state)
                if process.pid != os.getpid() and (marked or str(self.state) in " ".join(process.cmdline())):
                    mine |= {found.pid: found for found in [process, *process.children(recursive=True)]}
        return [process for process in mine.values() if _says(process, words)]

    def kill(self, *words: str) -> int:
        """Send SIGKILL to those processes; return how many there were."""
        victims = self.processes(*words)
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(victims, timeout=10)
        return len(victims)


CONTROL = ("jupyter_gpu_platform.control", "--local")
AGENT = ("jupyter_gpu_agent",)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(tmp_path)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JUPYTER_GPU_STATE_DIR", str(made.state))
    monkeypatch.delenv("JUPYTER_GPU_URL", raising=False)
    yield made
    made.kill(*CONTROL)  # before its agent, which it would start again
    while made.kill():
        pass


@pytest.fixture
def client(place: Place) -> Iterator[Client]:
    with connect() as connected:
        yield connected
