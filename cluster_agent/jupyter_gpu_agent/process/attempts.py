"""One attempt's directory: what was asked, who runs it, what it wrote and how it ended.

A directory goes through: ``spec.json`` (given) → ``supervisor.json`` (runs) → ``exit.json`` (its processes have
ended) → ``reported`` (the service knows) → gone (forgotten). Each file is written whole, so an agent that starts
anew reads from them where every attempt stands.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from jupyter_gpu_platform.model.jobs import Reason
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.runner import processes as runner_processes
from jupyter_gpu_platform.runner.launching import IN_SHELL
from jupyter_gpu_platform.runner.recorder import Recorder
from jupyter_gpu_platform.runner.spool import Spool

from ..executors import AttemptKey
from .processes import Identity, kill_tree


class Exit(msgspec.Struct, kw_only=True):
    """How an attempt ended: the content of ``exit.json``."""

    exit_code: int | None = None
    signal: int | None = None
    reason: Reason | None = None
    last_seq: int = 0


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 -- Path has no mode
        file.write(data)
    temporary.replace(path)


class AttemptFolder:
    """The files of one attempt."""

    def __init__(self, path: Path, key: AttemptKey) -> None:
        self.path = path
        self.key = key

    @classmethod
    def at(cls, root: Path, key: AttemptKey) -> AttemptFolder:
        return cls(root / f"{key.job}.{key.attempt}", key)

    @classmethod
    def found(cls, root: Path) -> list[AttemptFolder]:
        """List the attempts that have a directory; one without a spec was never given and is removed."""
        folders = []
        for path in sorted(root.iterdir()):
            job, _, number = path.name.rpartition(".")
            if not job or not number.isdigit() or not path.is_dir():
                continue
            if (path / "spec.json").exists():
                folders.append(cls(path, AttemptKey(job, int(number))))
            else:
                shutil.rmtree(path)
        return folders

    @property
    def exists(self) -> bool:
        return (self.path / "spec.json").exists()

    def create(self, given: dict[str, Any]) -> None:
        self.path.mkdir(mode=0o700, exist_ok=True)
        _write(self.path / "spec.json", json.dumps(given).encode())

    def _given(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.path / "spec.json").read_bytes())
        return content

    @property
    def gpus(self) -> set[str]:
        """UUIDs of the GPUs given to it."""
        return {gpu["uuid"] for gpu in self._given()["gpus"]}

    @property
    def shell_python(self) -> str | None:
        """The interpreter of a cell or function; None for what brings a program of its own."""
        given = self._given()
        return str(given["python"]) if given["spec"]["source"]["type"] in IN_SHELL else None

    @property
    def supervisor(self) -> Identity | None:
        """Who supervises it, or did; None where nobody has begun to."""
        content = self._supervisor()
        return Identity(content["pid"], content["pid_start"], content["boot_id"]) if content else None

    @property
    def incarnation(self) -> str:
        return str(self._supervisor().get("incarnation", ""))

    def _supervisor(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / "supervisor.json").read_bytes())
        except FileNotFoundError:
            return {}
        return content

    @property
    def starting(self) -> bool:
        """Say whether a supervisor holds the lock of the directory: it may not yet have written who it is."""
        fd = os.open(self.path / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    @property
    def exit(self) -> Exit | None:
        try:
            return msgspec.json.decode((self.path / "exit.json").read_bytes(), type=Exit)
        except FileNotFoundError:
            return None

    def set_exit(self, ended: Exit) -> None:
        _write(self.path / "exit.json", msgspec.json.encode(ended))

    @property
    def reported(self) -> bool:
        return (self.path / "reported").exists()

    def set_reported(self) -> None:
        _write(self.path / "reported", b"")

    def report(self, ended: Exit) -> Report:
        return Report(
            job=self.key.job,
            attempt=self.key.attempt,
            incarnation=self.incarnation,
            exit_code=ended.exit_code,
            reason=ended.reason,
        )

    @property
    def spooled(self) -> int:
        """Bytes of the output that lies here."""
        with contextlib.suppress(OSError):  # there is none yet, or no more
            return sum(path.stat().st_size for path in (self.path / "spool").glob("*.ndjson"))
        return 0

    def spool(self) -> Spool:
        return Spool(str(self.path / "spool"))

    def conclude(self) -> Exit:
        """Write the end of an attempt whose supervisor died before it could; kills what it left behind.

        Run only once the supervisor is known to be dead. Blocks; to be run in a thread.
        """
        ended = self.exit
        identity = self.supervisor
        here = identity is not None and identity.boot_id == runner_processes.boot_id()
        left = kill_tree(identity, self.incarnation) if here else []
        if ended is not None:
            return ended
        spool = self.spool()
        ended = _last_exit(spool) or _sudden_end(spool, self._sudden_reason(identity, here), left)
        spool.close()
        self.set_exit(ended)
        return ended

    def _sudden_reason(self, identity: Identity | None, here: bool) -> Reason:
        if identity is None:
            log = (self.path / "supervisor.log").read_text(errors="replace").strip()
            last = log.rpartition("\n")[2] or "it left no message"
            return Reason(code="start_failed", message=f"the job's supervisor ended before it could begin: {last}")
        if here:
            said = "the supervisor was killed, and its job with it; output from the last moments may be missing"
            return Reason(code="supervisor_killed", message=said)
        said = "the machine restarted while the job ran; output from its last moments may be missing"
        return Reason(code="machine_restarted", message=said)

    def remove(self) -> None:
        """Leave no process and no file of the attempt. Blocks; to be run in a thread."""
        kill_tree(self.supervisor, self.incarnation)
        shutil.rmtree(self.path, ignore_errors=True)


def _last_exit(spool: Spool) -> Exit | None:
    """Read how it ended from the spool, where the supervisor came as far as that."""
    if spool.next == spool.first:
        return None
    _, line = spool.read(spool.next - 1, 0)
    record = json.loads(line)
    if record["type"] != "exit":
        return None
    reason = msgspec.convert(record["reason"], Reason | None)
    return Exit(exit_code=record["exit_code"], signal=record["signal"], reason=reason, last_seq=record["seq"])


def _sudden_end(spool: Spool, reason: Reason, left: list[int]) -> Exit:
    recorder = Recorder(spool)
    recorder.gap(reason.code, reason.message)
    if left:
        recorder.gap("processes_left", f"these processes can't be killed: {', '.join(map(str, left))}")
    recorder.exit(None, None, {"code": reason.code, "message": reason.message})
    if not recorder.retry():
        raise OSError(errno.ENOSPC, "the disk has no room for the end of the output")
    return Exit(reason=reason, last_seq=recorder.last_seq)
