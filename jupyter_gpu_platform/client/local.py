"""This machine's own platform: found through its runtime file, started by whoever needs it first, stopped on demand.

Any number of programs may call `ensure` at once. A starter holds a lock while it looks again, spawns the control
service detached (it outlives its starter) and waits until that answers; the others find what the first one started.
Jobs are supervised apart from the service, so nothing here can end one.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from .. import errors, runtime
from .._version import __version__
from ..runtime import RuntimeFile

#: seconds for a start, the first migration of a slow disk included
START_PATIENCE = 60.0
#: seconds for a service to stop by itself: more than it gives itself (`shutdown_seconds` and `close_seconds`)
STOP_PATIENCE = 30.0
#: seconds for a process that has said good-bye without an answer to be gone
PARTING = 2.0
#: seconds between two looks at a process or a lock of another program, which nothing can announce to us
LOOK_EVERY = 0.05
#: what `[local]` adds and the service can't do without
NEEDED_MODULES = ("tornado", "sqlalchemy", "alembic", "zstandard")
#: file systems that several hosts write: SQLite's write-ahead log needs memory shared by all its users
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs"})
#: what a kernel says of itself to its children, who would take themselves for one
KERNEL_VARIABLES = ("JPY_PARENT_PID", "JPY_SESSION_NAME", "JPY_INTERRUPT_EVENT")


def find() -> RuntimeFile | None:
    """Return this machine's platform if it runs.

    :raises LocalPlatformError: its runtime file can't be trusted, or was written by a release we can't follow.
    """
    found = runtime.read_runtime_file()
    if found is None or not found.alive or found.host != runtime_host():
        return None
    if found.format > runtime.FORMAT:
        raise errors.LocalPlatformError(
            f"the platform that runs on this machine is of the newer release {found.version}",
            hint=f"Update this installation (it is {__version__}): pip install -U jupyter-gpu-platform",
        )
    return found


def runtime_host() -> str:
    return os.uname().nodename


def ensure(*, options: tuple[str, ...] = (), patience: float = START_PATIENCE) -> RuntimeFile:
    """Return this machine's platform, started if need be. Older releases are replaced where they are idle.

    :param options: further arguments for a control service that has to be started.
    :param patience: seconds.
    :raises LocalPlatformError: it can't be started; the message holds the end of its log.
    """
    found = find()
    if found is not None and not _outdated(found):
        return _checked_place(found)
    deadline = time.monotonic() + patience
    with _start_lock(deadline) as lock:
        found = find()
        if found is not None and (lock is None or not _replaced(found)):
            return _checked_place(found)
        return _start(runtime.default_state_dir(), options, deadline)


def stop(*, when_idle: bool = False, patience: float = STOP_PATIENCE) -> bool:
    """Stop this machine's platform; False where none ran. Jobs go on, and the next start finds them.

    :raises Conflict: *when_idle* was asked for, and it is not.
    """
    found = find()
    if found is None:
        return False
    if found.suspended:
        _signal(found, signal.SIGCONT)  # else it would hear nothing of what follows
    try:
        _ask_to_stop(found, when_idle=when_idle)
    except errors.Unavailable:
        if when_idle and not _gone(found, PARTING):
            raise
        _signal(found, signal.SIGTERM)
    if not _gone(found, patience):
        _signal(found, signal.SIGKILL)
        if not _gone(found, patience):
            raise errors.LocalPlatformError(f"process {found.pid} can't be ended", hint="Is its disk hanging?")
    return True


def check_place(state_dir: Path) -> None:
    """Refuse a state directory that the service's store would break in.

    :raises LocalPlatformError: it is on a network file system.
    """
    try:
        kind = file_system(state_dir, Path("/proc/self/mountinfo").read_text())
    except OSError:
        return  # no Linux: nothing to go by
    if kind in NETWORK_FILE_SYSTEMS:
        raise errors.LocalPlatformError(
            f"{state_dir} is on a network file system ({kind}), where the platform's database would break",
            hint="Set JUPYTER_GPU_STATE_DIR to a directory of your own on a local disk, the same in every session.",
        )


def file_system(path: Path, mountinfo: str) -> str:
    """Return the type of the file system that *path* is, or would be, on; ``mountinfo`` as proc(5) describes it."""
    place, best, kind = path.expanduser().resolve(), -1, ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4]))
        # The later of two mounts on one point hides the earlier.
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind


# --- starting --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _start_lock(deadline: float) -> Iterator[IO[bytes] | None]:
    """Hold the start lock; give None where another starter has brought the platform up meanwhile."""
    path = runtime.lock_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = path.open("ab")
    except OSError as error:
        raise errors.LocalPlatformError(
            f"{path} can't be written: {error.strerror}", hint="Set JUPYTER_RUNTIME_DIR to a directory of your own."
        ) from error
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                # Closing the file lets go of the lock; the service that is spawned meanwhile doesn't inherit it.
                yield file
                return
            found = find()
            if found is not None and not _outdated(found):
                yield None
                return
            if time.monotonic() > deadline:
                raise errors.LocalPlatformError(
                    f"another program has been starting the platform for too long (it holds {path})",
                    hint=f"See who: fuser -v {path}",
                )
            time.sleep(LOOK_EVERY)


def _start(state_dir: Path, options: tuple[str, ...], deadline: float) -> RuntimeFile:
    check_place(state_dir)
    check_installed()
    log = _prepare(state_dir)
    began = log.stat().st_size if log.exists() else 0
    process = _spawn(state_dir, log, options)
    while True:
        found = find()
        if found is not None and _healthy(found):
            # Waited for where it ends before us, so that it leaves no zombie.
            threading.Thread(target=process.wait, name="gpu-platform-reaper", daemon=True).start()
            return found
        code = process.poll()
        late = time.monotonic() > deadline
        if code is not None or late:
            break
        time.sleep(LOOK_EVERY)
    if code is None:
        process.kill()
        process.wait()
    what = "did not answer in time" if code is None else f"ended with code {code}"
    raise errors.LocalPlatformError(
        f"the platform on this machine could not be started: its control service {what}.\n{_tail(log, began)}",
        hint=f"The whole log: {log}",
    )


def check_installed() -> None:
    lacking = [module for module in NEEDED_MODULES if importlib.util.find_spec(module) is None]
    if lacking:
        raise errors.LocalPlatformError(
            f"this installation can't run a platform of its own ({', '.join(lacking)} not installed)",
            hint="Run pip install 'jupyter-gpu-platform[local]', or set JUPYTER_GPU_URL (and JUPYTER_GPU_TOKEN) "
            "to use a platform that runs elsewhere.",
        )


def _prepare(state_dir: Path) -> Path:
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        (state_dir / "logs").mkdir(exist_ok=True, mode=0o700)
        if not os.access(state_dir / "logs", os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise errors.LocalPlatformError(
            f"the state directory {state_dir} can't be used: {error.strerror}",
            hint="Set JUPYTER_GPU_STATE_DIR to a directory of your own on a local disk.",
        ) from error
    return state_dir / "logs" / "control.log"


def _spawn(state_dir: Path, log: Path, options: tuple[str, ...]) -> subprocess.Popen[bytes]:
    # -P: what lies in the working directory must not be imported.
    module = [sys.executable, "-P", "-m", "jupyter_gpu_platform.control"]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*module, "--local", "--state-dir", str(state_dir), *options],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=state_dir,
            env=_environment(os.environ),
        )


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in KERNEL_VARIABLES}


def _tail(log: Path, began: int, lines: int = 15) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(began, log.stat().st_size - 20_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])


# --- a platform that runs already ------------------------------------------------------------------------------


def _checked_place(found: RuntimeFile) -> RuntimeFile:
    chosen = os.environ.get("JUPYTER_GPU_STATE_DIR")
    if chosen and Path(chosen).expanduser().resolve() != Path(found.state_dir).resolve():
        raise errors.LocalPlatformError(
            f"the platform that runs keeps its state in {found.state_dir}, and JUPYTER_GPU_STATE_DIR names {chosen}",
            hint="Stop it with `jupyter gpu down`, or unset JUPYTER_GPU_STATE_DIR.",
        )
    return found


def _outdated(found: RuntimeFile) -> bool:
    """Say whether an older release than this one runs, which this installation could replace."""
    if found.version in _kept or runtime.release(found.version) >= runtime.release(__version__):
        return False
    return all(importlib.util.find_spec(module) for module in NEEDED_MODULES)


#: older releases that were busy when this program asked them to hand over: asked once, then used as they are
_kept: set[str] = set()


def _replaced(found: RuntimeFile) -> bool:
    """Ask an older release to make room; False where it is to be used as it is."""
    if not _outdated(found):
        return False
    try:
        _ask_to_stop(found, when_idle=True)
    except errors.GpuPlatformError as error:
        if isinstance(error, errors.Unavailable) and _gone(found, PARTING):
            return True  # it went before its answer came through
        _kept.add(found.version)
        warnings.warn(
            f"The platform on this machine is of the older release {found.version} and busy, so it is used as it is "
            f"({error.message}). `jupyter gpu down` replaces it; jobs go on.",
            stacklevel=2,
        )
        return False
    if not _gone(found, STOP_PATIENCE):
        raise errors.LocalPlatformError(
            f"the older platform (process {found.pid}) was asked to end and does not", hint="Run `jupyter gpu down`."
        )
    return True


def _ask_to_stop(found: RuntimeFile, *, when_idle: bool) -> None:
    from .sync import Client

    with Client(found.url, found.token) as client:
        client.shutdown(when_idle=when_idle)


def _healthy(found: RuntimeFile) -> bool:
    import httpx

    try:
        # No proxy of the environment stands between this machine and itself.
        return httpx.get(f"{found.url}/healthz", timeout=5.0, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _gone(found: RuntimeFile, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while found.alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True


def _signal(found: RuntimeFile, number: signal.Signals) -> None:
    if found.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, number)
