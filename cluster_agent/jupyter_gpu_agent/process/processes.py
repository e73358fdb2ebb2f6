"""Supervisors as processes: started apart from the agent, found again, waited for, and ended with all they started."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jupyter_gpu_platform.runner
from jupyter_gpu_platform.runner import processes as runner_processes

RUNNER = Path(jupyter_gpu_platform.runner.__file__).parent
#: a supervisor needs the standard library alone
SUPERVISE = (sys.executable, "-I", "-S", str(RUNNER), "supervise")
#: seconds without work after which the process that forks supervisors gives its memory back
FORKER_IDLE = 60.0

#: What jobs get of the agent's own environment; the rest is the platform's business, not theirs.
INHERITED = [
    "PATH",
    "HOME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_PATH",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
]


class Identity(NamedTuple):
    """Names one process for good: pids are used again, these three together are not."""

    pid: int
    start: int
    boot_id: str

    @property
    def alive(self) -> bool:
        return self.boot_id == runner_processes.boot_id() and bool(runner_processes.alive(self.pid, self.start))


def environment() -> dict[str, str]:
    """Make the environment that every supervisor starts with; it adds what its own job asks for."""
    return {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("LC_")}


def start_supervisor(folder: Path) -> subprocess.Popen[bytes]:
    """Start the supervisor of the attempt in *folder*: in a session of its own, so that it outlives the agent."""
    with (folder / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            [*SUPERVISE, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
            cwd="/",
            start_new_session=True,
        )


def start_standby(python: str, state_dir: Path) -> subprocess.Popen[bytes]:
    """Start a supervisor that waits for an attempt with this interpreter; `give` names it, and closing stdin ends it.

    :param state_dir: in its command line, so that it can be seen whose it is.
    """
    return subprocess.Popen(
        [*SUPERVISE, "--standby", python, str(state_dir)],
        stdin=subprocess.PIPE,
        bufsize=0,
        env=environment(),
        cwd="/",
        start_new_session=True,
    )


def start_forker(state_dir: Path, idle: float = FORKER_IDLE) -> subprocess.Popen[bytes]:
    """Start the process of which supervisors are forks; closing its stdin ends it.

    :param state_dir: in its command line, so that it can be seen whose it is.
    :param idle: seconds without work after which it ends.
    """
    return subprocess.Popen(
        [*SUPERVISE, "--fork", str(idle), str(state_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env=environment(),
        cwd="/",
        start_new_session=True,
    )


def give(standby: subprocess.Popen[bytes], folder: Path) -> bool:
    """Make a supervisor on standby that of the attempt in *folder*; False where it is gone."""
    assert standby.stdin is not None
    try:
        with standby.stdin as line:
            line.write(os.fsencode(folder) + b"\n")
    except BrokenPipeError:
        return False
    return True


async def wait_for_exit(pid: int) -> None:
    """Wait for the end of a process, child or not; returns at once where there is none."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def kill_tree(identity: Identity | None, incarnation: str) -> list[int]:
    """End a supervisor and all that it started, orphans too; returns the processes that can't be killed."""
    if identity is not None and identity.alive:
        below = runner_processes.descendants(identity.pid)
        for pid in [identity.pid, *below]:
            runner_processes.send(pid, 9)
    if not incarnation:
        return []
    left: list[int] = runner_processes.kill_all(lambda: runner_processes.marked(incarnation))
    return left


def tree(identity: Identity) -> list[int]:
    """List the processes of one living supervisor."""
    return [identity.pid, *runner_processes.descendants(identity.pid)] if identity.alive else []
