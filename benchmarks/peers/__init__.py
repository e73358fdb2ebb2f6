"""Systems that people use today, each started in a folder of its own, for figures beside ours in the same run.

Each module has ``name``, which gives its version and settings, and ``submissions``, a
context that starts it and gives a function: seconds → submissions a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

#: seconds that a peer may take to start
PATIENCE = 90.0


@contextlib.contextmanager
def running(argv: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a program with all that it starts; at the end all of it is killed."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            argv,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            cwd=log.parent,
        )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def await_answer(url: str, log: Path) -> None:
    """Wait until a server answers.

    :raises RuntimeError: it doesn't; the error holds the end of its log.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"{url} doesn't answer: {log.read_text(errors='replace')[-1000:]}")


def version(python: Path, package: str) -> str:
    """Return the version of a package in another environment."""
    program = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
