"""Runs attempts as supervised processes of this machine, and adopts those that an earlier agent started.

The agent may die at any moment: supervisors go on, and reconnect to the same socket when the next agent listens there.
For each attempt one task waits for its supervisor's end, brings what the supervisor could not deliver any more to the
service, and reports the end, unless the supervisor did all that itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import subprocess
import sys
from pathlib import Path

import msgspec
from tornado.netutil import bind_unix_socket

from jupyter_gpu_platform.errors import ClaimLost, Unavailable
from jupyter_gpu_platform.model.jobs import JobSpec, Reason
from jupyter_gpu_platform.model.records import StreamKey
from jupyter_gpu_platform.model.resources import Capacity, Gpu
from jupyter_gpu_platform.runner.spool import Spool
from jupyter_gpu_platform.wire.messages import Desired, Owned

from ..executors import AgentCore, AttemptKey, ExecutorSettings, OutOfSequence
from ..link_server import LinkServer
from . import gpus, processes
from .attempts import AttemptFolder, Exit
from .forker import Forker
from .meeting import private_folder, socket_path
from .standby import Standby

log = logging.getLogger(__name__)

#: seconds between looks at who uses the GPUs
GPU_LOOK = 10.0
#: seconds between tries of what the service refused for now
AGAIN = 1.0
#: … and the longest
AGAIN_AT_MOST = 30.0
#: records handed over at once (bytes)
BATCH = 2**20
#: greater than any generation or question: asks about durable output alone
ANY_GENERATION = 2**62


class StartFailed(Exception):
    """The attempt can't be started here; the text says why, for the person who submitted it."""


def _key(path: Path) -> bytes:
    """Read the key that attempts' tokens are made from, or make it: it must outlive the agent."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 -- Path has no mode
            file.write(secrets.token_bytes(32))
        return path.read_bytes()


class ProcessExecutor:
    """The `jupyter_gpu_agent.executors.Executor` of one machine."""

    def __init__(self, core: AgentCore, settings: ExecutorSettings) -> None:
        self._core = core
        self._fake = settings.fake_gpus
        self._root = settings.state_dir / "attempts"
        self._state_dir = settings.state_dir
        self._socket = socket_path(settings.state_dir)
        self._attempts: dict[AttemptKey, AttemptFolder] = {}
        self._tasks: dict[AttemptKey, asyncio.Task[None]] = {}
        self._children: dict[AttemptKey, subprocess.Popen[bytes]] = {}
        self._standby = Standby(settings.state_dir, settings.standby, settings.standby_seconds)
        self._forker = Forker(settings.state_dir)
        self._looking: asyncio.Task[None] | None = None
        self._capacity = Capacity()

    async def start(self) -> None:
        """Adopt what runs and serve supervisors."""
        private_folder(self._state_dir)
        private_folder(self._root)
        key = _key(self._state_dir / "link.key")
        self._link = LinkServer(self._core, key, self._on_reported)
        self._capacity = await self.capacity()
        for folder in AttemptFolder.found(self._root):
            self._attempts[folder.key] = folder
            if not folder.reported:
                self._follow(folder)
        private_folder(self._socket.parent)
        self._link.start(bind_unix_socket(str(self._socket), mode=0o600))
        if not self._fake and self._capacity.gpus:
            self._looking = asyncio.create_task(self._look_at_gpus())

    async def close(self) -> None:
        """Stop to serve; everything goes on."""
        tasks = [*self._tasks.values(), *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._standby.close()
        await self._forker.close()
        await self._link.close()
        for child in self._children.values():
            child.returncode = child.poll() or 0  # it may go on without us: no warning is due

    # --- what the agent asks

    async def apply(self, desired: Desired) -> None:
        key = AttemptKey(desired.job, desired.attempt)
        if key in self._attempts or desired.spec is None:
            return
        folder = AttemptFolder.at(self._root, key)
        try:
            given = self._given(folder, desired, desired.spec)
        except StartFailed as error:
            given = self._base(desired, desired.spec)
            folder.create(given)
            folder.set_exit(Exit(reason=Reason(code="start_failed", message=str(error))))
        else:
            folder.create(given)
        self._attempts[key] = folder
        self._follow(folder)

    async def stop(self, key: AttemptKey, grace: float) -> None:
        """Nothing to do: the supervisor learns it from its parked request, and a dead one's end is being reported."""

    async def forget(self, key: AttemptKey) -> None:
        folder = self._attempts.get(key)
        if folder is None:
            return
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(folder.remove)
        child = self._children.pop(key, None)
        if child is not None:
            await asyncio.to_thread(child.wait)
        self._attempts.pop(key, None)

    def owned(self) -> list[Owned]:
        return [
            Owned(job=key.job, attempt=key.attempt, incarnation=folder.incarnation)
            for key, folder in self._attempts.items()
        ]

    async def capacity(self) -> Capacity:
        return await asyncio.to_thread(gpus.capacity, self._fake, self._our_processes)

    async def spooled(self) -> int:
        return await asyncio.to_thread(lambda: sum(folder.spooled for folder in list(self._attempts.values())))

    async def keep(self, name: str) -> None:
        """Nothing to do: the directory lasts."""

    def _our_processes(self) -> set[int]:
        found: set[int] = set()
        for folder in list(self._attempts.values()):
            identity = folder.supervisor
            if identity is not None:
                found.update(processes.tree(identity))
        return found

    async def _look_at_gpus(self) -> None:
        while True:
            await asyncio.sleep(GPU_LOOK)
            capacity = await self.capacity()
            if capacity.gpus != self._capacity.gpus:
                self._capacity = capacity
                self._core.capacity_changed(capacity)

    # --- starting

    def _base(self, desired: Desired, spec: JobSpec) -> dict[str, object]:
        return {
            "protocol": 1,
            "job": desired.job,
            "attempt": desired.attempt,
            "replica": 0,
            "socket": str(self._socket),
            "token": self._link.token(desired.job, desired.attempt),
            "spec": msgspec.to_builtins(spec),
            "gpus": [],
            "python": spec.environment.python or sys.executable,
            "generation": desired.generation,
        }

    def _given(self, folder: AttemptFolder, desired: Desired, spec: JobSpec) -> dict[str, object]:
        """Make the content of ``spec.json``.

        :raises StartFailed: what the job wants isn't here.
        """
        given = self._base(desired, spec)
        given["gpus"] = [{"index": g.index, "uuid": g.uuid, "fake": g.fake} for g in self._assigned(desired)]
        workdir = spec.environment.workdir
        if workdir is None:
            folder.path.mkdir(mode=0o700, exist_ok=True)
            work = folder.path / "work"
            work.mkdir(exist_ok=True)
        elif not (work := Path(workdir)).is_dir():
            raise StartFailed(f"the working directory {workdir} does not exist on this machine")
        given["workdir"] = str(work.absolute())
        return given

    def _assigned(self, desired: Desired) -> list[Gpu]:
        here = {gpu.uuid: gpu for gpu in self._capacity.gpus}
        for uuid in desired.gpus:
            if uuid not in here:
                raise StartFailed(f"this machine has no GPU {uuid}")
        for key, folder in self._attempts.items():
            shared = folder.gpus.intersection(desired.gpus)
            if shared and folder.exit is None:
                raise StartFailed(f"GPU {min(shared)} is still held by attempt {key.attempt} of job {key.job}")
        return [here[uuid] for uuid in desired.gpus]

    # --- following

    def _follow(self, folder: AttemptFolder) -> None:
        self._tasks[folder.key] = asyncio.create_task(self._see_through(folder), name=f"attempt {folder.path.name}")

    async def _see_through(self, folder: AttemptFolder) -> None:
        """Bring an attempt to its reported end. What fails is tried again: a full disk, say, has room later."""
        pause = AGAIN
        while True:
            try:
                await self._run(folder)
                if not folder.reported:
                    ended = await asyncio.to_thread(folder.conclude)
                    await self._deliver(folder)
                    await self._core.ended(folder.report(ended))
                    self._on_reported(folder.key)
                return
            except Exception:  # the loop's edge: other attempts go on
                self._core.failed()
                log.exception("attempt %s can't be seen through", folder.path.name)
                if not folder.exists:
                    return  # somebody deleted its directory, and with it all that could be said of it
            await asyncio.sleep(pause)
            pause = min(2 * pause, AGAIN_AT_MOST)

    async def _run(self, folder: AttemptFolder) -> None:
        """Wait for the supervisor's end, after starting it where there is none yet."""
        if folder.exit is not None and folder.supervisor is None:
            return
        if folder.supervisor is None and not folder.starting:
            await self._start(folder)
        # A supervisor that another agent started is known by its file, which a starting one is about to write.
        while folder.supervisor is None and folder.starting:  # noqa: ASYNC110 -- it is another process's
            await asyncio.sleep(0.05)
        identity = folder.supervisor
        if identity is not None and identity.alive:
            await processes.wait_for_exit(identity.pid)

    async def _start(self, folder: AttemptFolder) -> None:
        """Give the attempt to a supervisor, in the quickest way there is just now, and wait for its end."""
        python = folder.shell_python
        child = self._standby.take(python, folder.path) if python else None
        if child is not None:
            await self._until_exit(folder, child)
            if folder.supervisor is not None or folder.starting:
                return
            # It died before it had begun.
        pid = await self._forker.start(folder.path)
        if pid is None:
            await self._until_exit(folder, processes.start_supervisor(folder.path))
        else:
            await processes.wait_for_exit(pid)

    async def _until_exit(self, folder: AttemptFolder, child: subprocess.Popen[bytes]) -> None:
        self._children[folder.key] = child
        await processes.wait_for_exit(child.pid)
        child.wait()

    def _on_reported(self, key: AttemptKey) -> None:
        folder = self._attempts.get(key)
        if folder is not None:
            folder.set_reported()

    # --- in a dead supervisor's place

    async def _deliver(self, folder: AttemptFolder) -> None:
        """Hand over what the spool still holds; returns once all of it is durable, or nothing of it is wanted."""
        spool = await asyncio.to_thread(folder.spool)
        stream = StreamKey(folder.key.job, folder.key.attempt)
        try:
            while await self._send(folder, spool, stream):
                if (durable := self._core.durable(stream)) >= spool.next:
                    return
                if (self._core.expected(stream) or spool.next) >= spool.next:  # else it is asked for anew
                    await self._core.wait_wanted(stream, ANY_GENERATION, durable, ANY_GENERATION, 20.0)
        finally:
            spool.close()

    async def _send(self, folder: AttemptFolder, spool: Spool, stream: StreamKey) -> bool:
        position = max(spool.first, self._core.durable(stream), self._core.expected(stream) or 1)
        while position < spool.next and not self._core.fenced(folder.key):
            count, lines = await asyncio.to_thread(spool.read, position, BATCH)
            try:
                await self._core.append(stream, folder.incarnation, position, count, lines)
            except OutOfSequence as error:
                if error.expected > spool.next:
                    log.error("attempt %s: output from %d on was lost", folder.path.name, error.expected)
                    return False
                position = error.expected
            except ClaimLost:
                return False  # never claimed, or claimed by another: nothing was promised
            except Unavailable:
                await asyncio.sleep(AGAIN)
            else:
                position += count
        return not self._core.fenced(folder.key)
