"""A supervisor that waits for an attempt, with a worker that has imported a kernel's shell: ``supervise --standby``.

Nothing of a user's was ever run in either, and they serve one attempt only. Its directory comes as a line on stdin.
Where stdin ends instead, the agent is gone or wants no standby any more, and both processes end. From the line on,
everything is as if they had been started for the attempt: it is taken, claimed and run by the same code.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from .launching import UNTOLD, Identity, Worker, environment, environment_of, take
from .supervisor import supervise


def stand_by(python: str) -> int:
    """Wait for an attempt whose interpreter is *python*, and supervise it; returns the process's exit status."""
    # Whoever interrupts the agent's terminal doesn't mean this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    me = Identity()
    before = environment_of(python, me.incarnation)
    worker = Worker(python, UNTOLD, before, "/")
    if worker.failure is not None:
        sys.stderr.write("no runner can stand by: %s\n" % worker.failure[1])
        return 1
    folder = _told(worker.frames)
    if folder is None:
        return 0  # the worker is tied to this process
    log_to(os.path.join(folder, "supervisor.log"))
    given = take(folder, me)
    if given is None:
        return 3
    env = environment(given, me.incarnation)
    changes = {name: env.get(name) for name in env.keys() | before.keys() if env.get(name) != before.get(name)}
    message = {"kind": given["spec"]["source"]["type"], "python": given["python"], "workdir": given.get("workdir")}
    return supervise(folder, given, me.incarnation, worker, dict(message, env=env, changes=changes))


def _told(frames: int) -> str | None:
    """Wait for the line that names the attempt's directory; None: there will be none, or the worker is dead."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(frames, select.POLLIN)  # a worker that waits says nothing: this is its end
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, 4096) if 0 in [fd for fd, _ in poll.poll()] else b""
        if not data:
            return None
        line += data
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return os.fsdecode(line[:-1])


def log_to(path: str) -> None:
    """Make a file what this process writes to."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
