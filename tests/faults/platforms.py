"""Whole platforms: the local one, a lone service on SQLite, and two replicas on PostgreSQL, each behind proxies."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from jupyter_gpu_platform import errors, runtime
from jupyter_gpu_platform.client import AsyncClient, Endpoint, local

from .programs import FAKETIME, Postgres, Program, Replica, end_all, faked_clock
from .proxy import Address, Proxy
from .schedule import Room

TOKEN = "an-admin-token-for-the-faults-of-one-test"
#: bytes of the small disks
DISK = "96m"
POSTGRES_DISK = "400m"


class Platform(abc.ABC):
    """What a seed hurts.

    :param root: everything lies below it, and every process names it.
    :param bug: the deliberate bug that its programs have, of `bugs`.
    """

    def __init__(self, root: Path, *, disks: bool, clock: bool, bug: str = "") -> None:
        self.root = root
        self.env = {"JGP_FAULTS_ROOT": str(root)}
        if bug:
            below = Path(__file__).parent / "bugs"
            self.env |= {"JGP_FAULTS_BUG": bug, "PYTHONPATH": f"{below}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        self.clock = clock and FAKETIME.exists()
        self.clocks: list[Path] = []
        self.disks: dict[str, Path] = {}
        self._mounts = disks and os.geteuid() == 0
        self.client_proxies: list[Proxy] = []
        self.agent_proxies: list[Proxy] = []
        self.peer_proxies: list[Proxy] = []
        self.database_proxies: list[Proxy] = []
        self.skipped = [
            *(["disks: only root can mount small ones"] if disks and not self._mounts else []),
            *(["clock: apt-get install faketime"] if clock and not self.clock else []),
        ]

    # --- what each kind says of itself

    @property
    @abc.abstractmethod
    def room(self) -> Room:
        """What can be hurt of it."""

    @abc.abstractmethod
    async def start(self) -> None:
        """Start its programs."""

    @abc.abstractmethod
    def controls(self) -> list[list[int]]:
        """The processes of each control service."""

    @abc.abstractmethod
    def agents(self) -> list[list[int]]:
        """The processes of each agent."""

    def databases(self) -> list[list[int]]:
        return []

    @property
    @abc.abstractmethod
    def attempts(self) -> Path:
        """Where the agent keeps its attempts."""

    def endpoint(self, proxy: Proxy) -> Endpoint:
        return Endpoint(proxy.url, TOKEN)

    async def stop(self) -> None:
        for proxy in (*self.client_proxies, *self.agent_proxies, *self.peer_proxies, *self.database_proxies):
            await proxy.close()
        await asyncio.to_thread(end_all, str(self.root))
        for path in reversed(self.disks.values()):
            await asyncio.to_thread(subprocess.run, ["umount", "--lazy", str(path)], check=False)

    # --- what they have in common

    def client(self, first: int = 0) -> AsyncClient:
        """Return a client that starts with one replica and goes to the next when that can't be reached."""
        count = len(self.client_proxies)
        turns = itertools.cycle([self.client_proxies[(first + turn) % count] for turn in range(count)])
        at = self.endpoint(next(turns))
        return AsyncClient(at.url, at.token, resolve=lambda: self.endpoint(next(turns)))

    def _clocked(self, name: str) -> dict[str, str]:
        if not self.clock:
            return self.env
        self.clocks.append(self.root / f"{name}.clock")
        return self.env | faked_clock(self.clocks[-1])

    def _disk(self, name: str, path: Path, size: str = DISK) -> Path:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._mounts:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)], check=True)
            self.disks[name] = path
        return path

    async def _proxy(self, name: str, upstream: Callable[[], Address], kind: list[Proxy]) -> Proxy:
        kind.append(Proxy(name, upstream))
        await kind[-1].open()
        return kind[-1]


class Joined(Platform):
    """Control services that an admin started, and an agent that was joined to them."""

    def __init__(self, root: Path, *, shared: bool, disks: bool, clock: bool, bug: str = "") -> None:
        super().__init__(root, disks=disks, clock=clock, bug=bug)
        self._shared = shared
        self._replicas: list[Replica] = []
        self._agent: Program | None = None
        self._database: Postgres | None = None

    @property
    def room(self) -> Room:
        return Room(joined=True, shared=self._shared, disks=self._mounts, clock=self.clock)

    async def start(self) -> None:
        token = self.root / "admin.token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        options = [f"--token-file={token}"]
        if self._shared:
            self._disk("full-database", self.root / "pg", POSTGRES_DISK).chmod(0o755)
            self._database = await asyncio.to_thread(Postgres, self.root)
            await self._database.start()
            options += [f"--{kind}-url={(self.root / kind).as_uri()}" for kind in ("segments", "objects")]
        else:
            self._disk("full-database", self.root / "control0")
        for number in range(2 if self._shared else 1):
            await self._start_replica(f"control{number}", options)
        await self._join()

    async def _start_replica(self, name: str, options: list[str]) -> None:
        peer = await self._proxy(f"peer-{name}", lambda: replica.address(), self.peer_proxies)
        options = [*options, f"--state-dir={self.root / name}", f"--replica-url={peer.url}"]
        if self._database is not None:
            socket = self._database.socket
            between = await self._proxy(f"database-{name}", lambda: socket, self.database_proxies)
            options.append(f"--database-url=postgresql://postgres@127.0.0.1:{between.port}/postgres?sslmode=disable")
        replica = Replica(name, self.root, options, self._clocked(name))
        self._replicas.append(replica)
        await self._proxy(f"client-{name}", replica.address, self.client_proxies)
        await self._proxy(f"agent-{name}", replica.address, self.agent_proxies)
        await replica.start()

    async def _join(self) -> None:
        folder = self.root / "agent"
        folder.mkdir(mode=0o700)
        self._disk("full-spool", self.attempts)
        async with self.client() as client:
            await client.status()  # once it listens: a cut-off create of a cluster is not repeated
            join = folder / "join"
            join.write_text(str((await client.cluster_add("here"))["join_token"]))
        command = [sys.executable, "-m", "jupyter_gpu_agent", f"--state-dir={folder}", f"--join-token-file={join}"]
        command += [f"--url={proxy.url}" for proxy in self.agent_proxies]
        self._agent = Program("agent", command, self.root / "agent.log", self._clocked("agent"))
        await self._agent.start()

    @property
    def attempts(self) -> Path:
        return self.root / "agent" / "attempts"

    def controls(self) -> list[list[int]]:
        return [replica.pids() for replica in self._replicas]

    def agents(self) -> list[list[int]]:
        return [self._agent.pids()] if self._agent else []

    def databases(self) -> list[list[int]]:
        return [self._database.pids()] if self._database else []

    async def stop(self) -> None:
        for program in (self._agent, *self._replicas, self._database):
            if program is not None:
                await program.stop()
        await super().stop()


class Local(Platform):
    """The local platform, started again by whoever needs it, as notebooks do."""

    def __init__(self, root: Path, *, disks: bool, clock: bool, bug: str = "") -> None:
        super().__init__(root, disks=disks, clock=clock, bug=bug)
        self._state = self._disk("full-database", root / "state")
        self._disk("full-spool", self.attempts)
        (self._state / "logs").symlink_to(root)  # logs outlive the disk and are no part of what fills it
        set_here = {"JUPYTER_RUNTIME_DIR": str(root / "runtime"), "JUPYTER_GPU_STATE_DIR": str(self._state)}
        self._set_here = set_here | self._clocked("platform")
        self._before = {name: os.environ.get(name) for name in (*self._set_here, "JUPYTER_GPU_URL")}
        self._keeper: asyncio.Task[None] | None = None
        self._last = Endpoint("http://127.0.0.1:1", "none yet")

    @property
    def room(self) -> Room:
        return Room(joined=False, shared=False, disks=self._mounts, clock=self.clock)

    async def start(self) -> None:
        os.environ.update(self._set_here)
        os.environ.pop("JUPYTER_GPU_URL", None)
        await self._proxy("client-local", self._address, self.client_proxies)
        self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(errors.LocalPlatformError):
                if local.find() is None:
                    await asyncio.to_thread(local.ensure)
            await asyncio.sleep(0.2)

    def _address(self) -> Address:
        found = local.find()
        return ("127.0.0.1", int(found.url.rpartition(":")[2])) if found else None

    def endpoint(self, proxy: Proxy) -> Endpoint:
        found = local.find()
        if found is not None:
            self._last = Endpoint(proxy.url, found.token)
        return Endpoint(proxy.url, self._last.token)

    @property
    def attempts(self) -> Path:
        return self.root / "state" / "attempts"

    def controls(self) -> list[list[int]]:
        found = runtime.read_runtime_file()
        return [[found.pid] if found is not None and found.alive else []]

    def agents(self) -> list[list[int]]:
        return [[p.pid for p in psutil.process_iter() if self._is_agent(p)]]

    def _is_agent(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            return "jupyter_gpu_agent" in line and str(self._state) in line
        return False

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await super().stop()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
