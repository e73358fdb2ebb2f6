"""Begins an attempt: takes its directory and starts the worker, which then imports what takes longest.

This module imports little, so that the worker starts first, and all else that its supervisor needs is imported
meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
from typing import Any

from . import processes

#: the size that pipes are made, and that is read from one at once (bytes)
PIPE = 2**20
_F_SETPIPE_SZ = 1031
#: kinds of jobs that run in a shell of ours, not as a program
IN_SHELL = ("cell", "function")
#: the kind of a worker that isn't told yet what it will run; see `standby`
UNTOLD = "standby"


def write_json(path: str, value: Any) -> None:
    """Replace a file atomically; readable by its owner only."""
    temporary = "%s.%d" % (path, os.getpid())
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(value, file)
    os.replace(temporary, path)


def _large_pipe() -> tuple[int, int]:
    """Make a pipe that holds as much as this user may have."""
    read, write = os.pipe()
    for size in (PIPE, PIPE // 4):
        try:
            fcntl.fcntl(write, _F_SETPIPE_SZ, size)
            break
        except OSError:
            continue
    return read, write


class Identity:
    """This process, as the supervisor of one attempt.

    :param incarnation: what claims the attempt; of a process, made from when and where it began.
    """

    def __init__(self, incarnation: str | None = None) -> None:
        self.pid = os.getpid()
        self.start = processes.start_time(self.pid) or 0
        self.boot = processes.boot_id()
        self.incarnation = incarnation or "%s-%d-%d" % (self.boot[:8], self.pid, self.start)

    def write(self, folder: str) -> None:
        content = {"pid": self.pid, "pid_start": self.start, "boot_id": self.boot, "incarnation": self.incarnation}
        write_json(os.path.join(folder, "supervisor.json"), content)


def take(folder: str, me: Identity) -> dict[str, Any] | None:
    """Become the supervisor of the attempt in *folder*, and return its ``spec.json``; None: it has one, or had one.

    What it ran must never be run twice. The lock is held until this process ends.
    """
    lock = os.open(os.path.join(folder, "supervisor.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return None
    if os.path.exists(os.path.join(folder, "supervisor.json")):
        return None
    with open(os.path.join(folder, "spec.json")) as file:
        given: dict[str, Any] = json.load(file)
    me.write(folder)
    return given


def environment_of(python: str, incarnation: str) -> dict[str, str]:
    """Make the environment of an interpreter, before anything is known of a job."""
    # A platform that runs in a job has that job's own names in its environment.
    env = {name: value for name, value in os.environ.items() if not name.startswith("JGP_")}
    home = os.path.dirname(python or "")
    if home:  # `python`, `pip` and what it has installed are the interpreter's own, as in an activated environment
        env["PATH"] = os.pathsep.join(filter(None, [home, env.get("PATH")]))
    env[processes.MARKER] = incarnation
    return env


def environment(given: dict[str, Any], incarnation: str) -> dict[str, str]:
    """Make the environment of the user's code."""
    spec = given["spec"]
    env = environment_of(given["python"], incarnation)
    env.update(spec.get("env") or {})
    if spec["source"]["type"] not in IN_SHELL:
        env.setdefault("PYTHONUNBUFFERED", "1")  # what was printed shows at once, and survives a crash
    env["JGP_JOB_ID"] = given["job"]
    env["JGP_ATTEMPT"] = str(given["attempt"])
    env[processes.MARKER] = incarnation  # whatever the job asked for
    gpus = given.get("gpus")
    if gpus is not None:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(gpu["uuid"] for gpu in gpus)
        if any(gpu.get("fake") for gpu in gpus):
            env["JUPYTER_GPU_FAKE"] = "1"
    return env


class Fork:
    """A worker that a program of the user's will replace: a fork of this process, which has no thread yet.

    It needs no interpreter of its own, whose start would take longer than all else that a short program's job does.
    """

    def __init__(
        self, arguments: list[str], outputs: tuple[int, int], ends: Worker, env: dict[str, str], workdir: str | None
    ) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._become(arguments, outputs, ends, env, workdir)
            except BaseException as error:  # noqa: BLE001 -- nothing may leave this process but its end
                os.write(2, ("%s: %s" % (type(error).__name__, error)).encode())
            finally:
                os._exit(1)

    def _become(
        self, arguments: list[str], outputs: tuple[int, int], ends: Worker, env: dict[str, str], workdir: str | None
    ) -> None:
        os.setsid()
        for fd in (ends.frames, ends.out, ends.err, ends.control):
            os.close(fd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for fd, output in enumerate(outputs, 1):
            os.dup2(output, fd)
        if workdir:
            os.chdir(workdir)
        os.environ.clear()
        os.environ.update(env)
        from . import worker

        os._exit(worker.main(arguments))


class Worker:
    """The process that will run the user's code, and our ends of its pipes.

    :param python: its interpreter, where it runs a shell of ours.
    :param kind: of the job, or `UNTOLD`.
    """

    def __init__(self, python: str, kind: str, env: dict[str, str], workdir: str | None) -> None:
        #: what it says, in frames, and what it writes to its first two descriptors
        self.frames, frames = _large_pipe()
        self.out, out = _large_pipe()
        self.err, err = _large_pipe()
        #: what it is told
        control, self.control = _large_pipe()
        self.popen: subprocess.Popen[bytes] | Fork | None = None
        #: why it could not be started: (code, message)
        self.failure: tuple[str, str] | None = None
        arguments = [kind, str(control), str(frames), str(os.getpid())]
        try:
            if kind in (*IN_SHELL, UNTOLD):
                here = os.path.dirname(os.path.abspath(__file__))
                self.popen = subprocess.Popen(
                    [python, here, "worker", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    cwd=workdir,
                    env=env,
                    pass_fds=(control, frames),
                    start_new_session=True,
                )
            else:
                self.popen = Fork(arguments, (out, err), self, env, workdir)
        except (OSError, ValueError) as error:
            self.failure = ("start_failed", "can't start %s: %s" % (python, error))
        finally:
            for fd in (frames, out, err, control):
                os.close(fd)


def main(argv: list[str]) -> int:
    """Supervise the attempt whose directory is given; returns the process's exit status."""
    if argv[0] == "--standby":
        from .standby import stand_by

        return stand_by(python=argv[1])
    if argv[0] == "--fork":
        from .forking import serve

        return serve(idle=float(argv[1]))
    folder = os.path.abspath(argv[0])
    me = Identity()
    given = take(folder, me)
    if given is None:
        return 3
    env = environment(given, me.incarnation)
    worker = Worker(given["python"], given["spec"]["source"]["type"], env, given.get("workdir") or None)
    from .supervisor import supervise

    return supervise(folder, given, me.incarnation, worker)
