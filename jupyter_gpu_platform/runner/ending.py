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


def end_reason(status: int, raised: tuple[str, str] | None) -> tuple[int, int | None, dict[str, Any] | None]:
    """Say how a process ended: (exit code, signal, reason).

    :param status: as waitpid gave it.
    :param raised: (ename, evalue) where a cell's code raised.
    """
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        said = "killed by signal %d (%s)" % (number, signal_name(number))
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
