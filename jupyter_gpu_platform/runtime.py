"""The runtime file: how programs of one user find the platform that runs on this machine, and tell a live one.

The control service writes the file once it listens; the client, the agent and the command line read it. It holds a
token, so it is readable by its owner only. A home directory may be shared by several hosts, hence the host's name in
the file's own and its boot id inside: another host's file is not ours, and its token goes nowhere.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from . import errors

FORMAT = 1
#: the cluster that a local platform's own agent is
LOCAL_CLUSTER = "local"


class RuntimeFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says of the control service that wrote it."""

    format: int = FORMAT
    url: str
    token: str
    #: for people; the boot id is what is compared
    host: str
    boot_id: str
    pid: int
    #: when the process started, in clock ticks since boot: a pid alone is used again
    pid_start: int
    state_dir: str
    version: str
    fake_gpus: int = 0

    @property
    def foreign(self) -> bool:
        """Whether another host (or this one before its last boot) wrote it."""
        return self.boot_id != boot_id()

    @property
    def alive(self) -> bool:
        """Whether its writer runs on this machine now."""
        return not self.foreign and process_alive(self.pid, self.pid_start)

    @property
    def suspended(self) -> bool:
        """Whether its writer is there and does nothing: somebody has stopped it (SIGSTOP, Ctrl-Z, a debugger)."""
        return self.alive and (_stat(self.pid) or [b""])[0] in (b"T", b"t")


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version; what marks a development or pre-release counts for nothing."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def boot_id() -> str:
    """Return what names this boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def process_start(pid: int) -> int | None:
    """Return when process *pid* started, in clock ticks since boot; None when there is none (a zombie is none)."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in (b"Z", b"X") else int(fields[19])


def _stat(pid: int) -> list[bytes] | None:
    """Return what the system says of a process, from its state on; None when there is none."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field, the program's name, may hold blanks and brackets: count from its last bracket.
    return line[line.rindex(b")") + 2 :].split()


def process_alive(pid: int, pid_start: int) -> bool:
    """Say whether the process that had *pid* and started at *pid_start* still runs."""
    return process_start(pid) == pid_start


def runtime_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return Jupyter's runtime directory, without importing Jupyter."""
    if chosen := environ.get("JUPYTER_RUNTIME_DIR"):
        return Path(chosen).expanduser()
    base = environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "jupyter" / "runtime"


def default_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the local platform keeps its state."""
    if chosen := environ.get("JUPYTER_GPU_STATE_DIR"):
        return Path(chosen).expanduser()
    return Path.home() / ".local" / "state" / "jupyter-gpu-platform"


def _host_path(ending: str) -> Path:
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()) or "localhost"
    return runtime_dir() / f"gpu-platform-{host}.{ending}"


def runtime_path() -> Path:
    """Return this host's runtime file: hosts that share a home have one each."""
    return _host_path("json")


def lock_path() -> Path:
    """Return the file that starters of the local platform lock, so that two never start two."""
    return _host_path("lock")


def read_runtime_file(path: Path | None = None) -> RuntimeFile | None:
    """Read the runtime file; None when there is none, or none that this release understands.

    :raises LocalPlatformError: somebody else owns, reads or may have planted it: its token and URL can't be trusted.
    """
    path = path or runtime_path()
    try:
        return msgspec.json.decode(_read_private(path), type=RuntimeFile)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
    except OSError as error:
        raise errors.LocalPlatformError(f"{path} can't be read: {error.strerror}", hint="Remove it.") from error


def _read_private(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise errors.LocalPlatformError(
                f"{path} belongs to another user, so its token is not used", hint=f"Remove it: rm -f {path}"
            )
        if found.st_mode & 0o077:
            raise errors.LocalPlatformError(
                f"{path} holds a token and is open to other users (mode {stat.S_IMODE(found.st_mode):o})",
                hint=f"Stop the platform and remove the file, so that a new token is made: "
                f"kill the process named in it, then rm -f {path}",
            )
        return file.read()


def write_private(path: Path, content: bytes) -> None:
    """Write *path* in one step, readable by its owner only: a reader sees the old content or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # mkstemp makes the file with mode 0600.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_runtime_file(runtime: RuntimeFile, path: Path | None = None) -> None:
    """Write the runtime file in one step, mode 0600."""
    write_private(path or runtime_path(), msgspec.json.format(msgspec.json.encode(runtime), indent=1) + b"\n")


def remove_runtime_file(runtime: RuntimeFile, path: Path | None = None) -> None:
    """Remove the runtime file if it is still *runtime*'s own."""
    path = path or runtime_path()
    if read_runtime_file(path) == runtime:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
