"""A process that makes supervisors as forks of itself: ``supervise --fork SECONDS``.

It has imported all that a supervisor needs, runs nothing of a user's and has no thread. The directory of an attempt
comes as a line on stdin; a fork becomes its supervisor, and its pid is the answer on stdout. So a supervisor begins in
a millisecond, where its imports would take longer than a short job. Where stdin ends, or nobody asked for a while and
no supervisor is left, it ends; supervisors go on without it.
"""

from __future__ import annotations

import ctypes  # noqa: F401 -- both processes of each job need it
import gc
import os
import select
import signal

from . import (
    launching,
    supervisor,  # noqa: F401 -- imported before the fork, not by each
    worker,  # noqa: F401 -- so is this
)
from .standby import log_to


def serve(idle: float) -> int:
    """Fork supervisors; returns the exit status, in each supervisor that of its own.

    :param idle: seconds after which it ends unless somebody asks.
    """
    # Whoever interrupts the agent's terminal doesn't mean this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are not waited for
    gc.freeze()
    asked = b""
    while True:
        if not select.select([0], [], [], idle)[0]:
            if _childless():
                return 0
            continue
        data = os.read(0, 65536)
        if not data:
            return 0
        asked += data
        while b"\n" in asked:
            folder, _, asked = asked.partition(b"\n")
            pid = os.fork()
            if pid == 0:
                return _supervise(os.fsdecode(folder))
            os.write(1, b"%d\n" % pid)


def _childless() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def _supervise(folder: str) -> int:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    log_to(os.path.join(folder, "supervisor.log"))
    return launching.main([folder])
