"""A real platform of this machine for each module, the commands as programs, and terminals to type at."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest

from jupyter_gpu_platform.client import connect, local
from jupyter_gpu_platform.model.jobs import Phase

#: seconds that a program may take before its test gives up on it
PATIENCE = 60.0


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    root = tmp_path_factory.mktemp("platform")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", str(root / "runtime"))
        patch.setenv("JUPYTER_GPU_STATE_DIR", str(root / "state"))
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        patch.delenv("JUPYTER_GPU_URL", raising=False)
        local.ensure(options=("--fake-gpus=2",))
        try:
            yield dict(os.environ)
            with connect() as client:
                for job in client.iter_jobs(phases=[Phase.QUEUED, Phase.STARTING, Phase.RUNNING]):
                    client.cancel(job.id)
                    client.wait(job.id, timeout=30)
        finally:
            local.stop()


class Gpu:
    """``jupyter gpu``."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ

    def start(self, *line: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "jupyter_gpu_platform.cli.main", *line]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=self.environ, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def at_terminal(self, *line: str) -> Terminal:
        return Terminal([sys.executable, "-m", "jupyter_gpu_platform.cli.main", *line], self.environ)

    def __call__(self, *line: str, code: int = 0) -> tuple[str, str]:
        with self.start(*line) as program:
            out, err = program.communicate(timeout=PATIENCE)
        assert program.returncode == code, err
        return out, err


@pytest.fixture
def gpu(environ: dict[str, str]) -> Gpu:
    return Gpu(environ)


class Terminal:
    """A program at a terminal of its own: Ctrl-C typed there interrupts it."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._ours, theirs = os.openpty()
        # What makes a terminal the controlling one.
        self._program = subprocess.Popen(
            ["setsid", "--ctty", *command], env=environ, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.kill()
        self._program.wait()
        os.close(self._ours)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def expect(self, text: str) -> str:
        """Wait until *text* is shown, behind what was expected before; return what came up to it."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            ready, _, _ = select.select([self._ours], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"no {text!r} in {self.shown!r}"
            try:
                self.shown += os.read(self._ours, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"it ended without {text!r}: {self.shown!r}") from None
        before, _, self.shown = self.shown.partition(text)
        return before

    def ended(self) -> int:
        """Wait for the program's end, reading what it still shows; return its exit code."""
        try:
            while data := os.read(self._ours, 65536):
                self.shown += data.decode(errors="replace")
        except OSError:
            pass  # how a terminal says that nobody has it open any more
        return self._program.wait(timeout=PATIENCE)
