"""How a process ended, in words."""

from __future__ import annotations

import os
import signal
from typing import Any


def reason(code: str, message: Any, **details: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "details": details}


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


#: where the kernel counts the processes that it killed for memory: of a container, in cgroup v2 and v1
MEMORY_KILLS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def memory_kills(paths: tuple[str, ...] = MEMORY_KILLS) -> int:
    """Say how many processes of this container the kernel has killed since it used too much memory."""
    for path in paths:
        try:
            with open(path) as file:
                return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
        except OSError:
            continue
    return 0


def end_reason(
    status: int, raised: tuple[str, str] | None, short_of_memory: bool = False
) -> tuple[int, int | None, dict[str, Any] | None]:
    """Say how a process ended: (exit code, signal, reason).

    :param status: as waitpid gave it.
    :param raised: (ename, evalue) where a cell's code raised.
    :param short_of_memory: the kernel has killed somebody for memory meanwhile.
    """
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        said = "killed by signal %d (%s)" % (number, signal_name(number))
        if number == signal.SIGKILL and short_of_memory:
            return 128 + number, number, reason("oom_killed", "it used more memory than it may, and was killed for it")
        if number == signal.SIGKILL:
            said += ", as happens when memory runs out"
        return 128 + number, number, reason("signal", said, signal=number)
    code = os.WEXITSTATUS(status)
    if raised is not None:
        said = ("%s: %s" % raised)[:500]
        return 1, None, reason("error", said, ename=raised[0][:200], evalue=raised[1][:500])
    if code == 0:
        return 0, None, None
    return code, None, reason("exit_code", "ended with exit code %d" % code, exit_code=code)
