"""Who is who among processes: identities that survive the reuse of pids, and the end of whole trees.

A pid alone names nobody for long. (boot id, pid, start time) does, and is what a supervisor's incarnation is made of.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Callable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

#: The variable in the environment of everything that a supervisor starts: its value is the supervisor's incarnation.
MARKER = "JGP_INCARNATION"


def prctl(option: int, value: Any) -> None:
    """Call prctl(2); no wrapper for it exists in the standard library."""
    import ctypes  # takes longer than all else here, and is needed only after the worker was started

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def boot_id() -> str:
    """Name this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _stat(pid: int) -> list[bytes] | None:
    """Fields of /proc/PID/stat from the third (state) on; None when there is no such process."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the process's start (field 22); None when it is gone or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def alive(pid: int, start: int) -> bool:
    """Say whether the process *pid* that started at *start* still runs."""
    return start_time(pid) == start


def pids() -> list[int]:
    """List all processes that can be seen."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(root: int) -> list[int]:
    """List the living processes below *root*, zombies left out."""
    children: dict[int, list[int]] = {}
    states = {}
    for pid in pids():
        fields = _stat(pid)
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(pid)
            states[pid] = fields[0]
    found, todo = [], [root]
    while todo:
        for pid in children.get(todo.pop(), ()):
            todo.append(pid)
            if states[pid] not in (b"Z", b"X"):
                found.append(pid)
    return found


def marked(incarnation: str) -> list[int]:
    """List the living processes that carry *incarnation* in their environment, wherever they now hang in the tree."""
    entry = ("%s=%s" % (MARKER, incarnation)).encode()
    found = []
    for pid in pids():
        try:
            with open("/proc/%d/environ" % pid, "rb") as file:
                if entry in file.read().split(b"\0") and start_time(pid) is not None:
                    found.append(pid)
        except OSError:
            continue
    return found


def send(pid: int, number: int) -> None:
    """Signal a process that may be gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def kill_all(
    find: Callable[[], list[int]], patience: float = 10.0, pause: Callable[[float], None] = time.sleep
) -> list[int]:
    """Kill what *find()* lists, again and again until it lists nothing; returns what would not die in *patience* s."""
    deadline = time.monotonic() + patience
    left = find()
    while left and time.monotonic() < deadline:
        for pid in left:
            send(pid, signal.SIGKILL)
        pause(0.01)
        left = find()
    return left
