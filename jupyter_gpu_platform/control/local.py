"""What the platform of one person on one machine adds: a lock, a runtime file, an agent of its own, and an idle end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import getpass
import logging
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from .. import errors, runtime
from .identity import Principal, digest, new_token
from .store.rows import Cluster

if TYPE_CHECKING:
    from .api.activity import Activity
    from .services import Services
    from .store.transaction import Transaction

log = logging.getLogger(__name__)

#: seconds for which a new service waits for one that is just ending
LOCK_PATIENCE = 10.0
#: an agent that lived this long (seconds) is started again at once
AGENT_STEADY = 60.0
AGENT_DELAYS = (0.5, 30.0)
AGENT_GRACE = 10.0
#: how often (seconds) an otherwise idle platform looks whether jobs are still open
IDLE_LOOK = 60.0


class AgentFile(msgspec.Struct, frozen=True, kw_only=True):
    """What ``agent.json`` says to the local agent."""

    agent_id: str
    credential: str
    cluster: str


def user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"  # a container may run as a user without a name


def prepare_state_dir(state_dir: Path) -> None:
    """Make the state directory, closed to others.

    :raises LocalPlatformError: it can't be used.
    """
    try:
        for path in (state_dir, state_dir / "logs"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(state_dir, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise errors.LocalPlatformError(
            f"the state directory {state_dir} can't be used: {error.strerror}",
            hint="Choose a directory of your own on a local disk with --state-dir.",
        ) from error


async def take_lock(state_dir: Path, patience: float = LOCK_PATIENCE) -> IO[str]:
    """Take the lock that only one service per state directory holds; it is held while the file is open.

    :raises LocalPlatformError: another service holds it.
    """
    path = state_dir / "control.lock"
    file = path.open("a+")
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                await asyncio.sleep(0.1)
                continue
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise errors.LocalPlatformError(
                f"another control service uses {state_dir} (process {holder})",
                hint="Use that one, stop it (jupyter gpu down), or choose another --state-dir.",
            ) from None
        except OSError as error:
            file.close()
            raise errors.LocalPlatformError(
                f"{path} can't be locked: {error.strerror}", hint="Choose a --state-dir on a local disk."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file


def admit_owner(services: Services) -> str:
    """Make this start's token, with which the person at this machine is the platform's admin."""
    token = new_token("jgplocal")
    services.identity.add_fixed(token, Principal(user=user_name(), role="admin"))
    return token


def write_runtime_file(services: Services, url: str, token: str, state_dir: Path) -> runtime.RuntimeFile:
    """Tell this user's other programs where the platform listens."""
    pid = os.getpid()
    found = runtime.RuntimeFile(
        url=url,
        token=token,
        host=socket.gethostname(),
        boot_id=runtime.boot_id(),
        pid=pid,
        pid_start=runtime.process_start(pid) or 0,
        state_dir=str(state_dir),
        version=services.version,
        fake_gpus=services.fake_gpus,
    )
    runtime.write_runtime_file(found)
    return found


async def ensure_agent(services: Services, state_dir: Path) -> None:
    """See to it that the cluster of this machine exists and that ``agent.json`` holds a credential for it."""
    path = state_dir / "agent.json"
    with contextlib.suppress(OSError, msgspec.DecodeError):
        known = msgspec.json.decode(path.read_bytes(), type=AgentFile)
        agent = await services.reader.run(lambda tx: tx.agent(known.agent_id))
        if agent and not agent.revoked and agent.credential_hash == digest(known.credential):
            return

    def operation(tx: Transaction) -> None:
        if tx.cluster(runtime.LOCAL_CLUSTER) is None:
            tx.put_cluster(Cluster(name=runtime.LOCAL_CLUSTER, created=services.now()))

    await services.writer.run(operation)
    made, credential = await services.identity.create_agent(runtime.LOCAL_CLUSTER)
    content = AgentFile(agent_id=made.id, credential=credential, cluster=made.cluster)
    runtime.write_private(path, msgspec.json.encode(content))


class AgentChild:
    """The local agent's process: started, and started again when it ends."""

    def __init__(
        self, state_dir: Path, fake_gpus: int = 0, log_level: str = "INFO", log_format: str = "text", standby: int = 0
    ) -> None:
        self._state_dir = state_dir
        fakes = ("--fake-gpus", str(fake_gpus)) * bool(fake_gpus)
        self._options = (
            *("--local", "--state-dir", str(state_dir), "--standby", str(standby)),
            *("--log-level", log_level, "--log-format", log_format),
            *fakes,
        )
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        shortest, longest = AGENT_DELAYS
        delay = shortest
        while True:
            began = time.monotonic()
            code = await self._once()
            delay = shortest if time.monotonic() - began >= AGENT_STEADY else min(delay * 2, longest)
            log.warning("the local agent ended with code %s; started again in %.1f s", code, delay)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - only spreads starts

    async def _once(self) -> int:
        path = self._state_dir / "logs" / "agent.log"
        with path.open("ab") as file:
            # A session of its own: Ctrl-C at a terminal is the service's to handle.
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "jupyter_gpu_agent", *self._options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                cwd=self._state_dir,
            )
        return await self._process.wait()

    async def stop(self) -> None:
        """End the agent; jobs that it started go on under their supervisors."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(AGENT_GRACE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def until_idle(services: Services, activity: Activity, seconds: float) -> None:
    """Return once no job was open and no call came for *seconds*."""
    while True:
        left = seconds - activity.idle_for()
        if left > 0:
            await asyncio.sleep(min(max(left, 0.05), IDLE_LOOK))
        elif await services.jobs.any_open():
            # Idle time counts from the end of the last job; that is seen at the next look.
            activity.touch()
            await asyncio.sleep(min(seconds, IDLE_LOOK))
        else:
            return
