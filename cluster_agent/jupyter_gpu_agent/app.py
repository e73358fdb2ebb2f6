"""The agent's program: one per cluster, dialling out to the control service; on a laptop, the local platform's own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import pkgutil
import random
import signal
import sys
from pathlib import Path
from typing import IO, Any

from traitlets import Bool, Dict, Enum, Float, Int, List, Unicode
from traitlets.config import Application

from jupyter_gpu_platform import __version__, errors, logs, runtime

from . import credentials
from .connection import Connection, Endpoint
from .core import Core
from .executors import ENTRY_POINTS, OWN, ExecutorFactory, ExecutorSettings

#: the variable that may hold a join token: a command line could be read by every user of the machine
JOIN_TOKEN_VARIABLE = "JUPYTER_GPU_JOIN_TOKEN"  # noqa: S105 -- the variable's name
#: a local agent tries again at least this often, in seconds: a person waits for it
LOCAL_PAUSE = 1.0


class AgentApp(Application):
    """Runs jobs of one cluster for a control service that it dials."""

    name = "jupyter-gpu-agent"
    version = __version__
    description = __doc__ or ""

    local = Bool(
        False,
        help="Be the agent of this machine's local platform: its control service is found through the runtime file, "
        "and the agent leaves by itself when that stays away. Default: False.",
    ).tag(config=True)
    state_dir = Unicode(
        help="Directory for credentials and, with the process executor, for attempts. "
        "Default: JUPYTER_GPU_STATE_DIR, or ~/.local/state/jupyter-gpu-platform."
    ).tag(config=True)
    urls = List(
        Unicode(),
        help="URLs of the control service's replicas; they are tried in random order. Default: none, which only a "
        "local agent can do with.",
    ).tag(config=True)
    join_token_file = Unicode(
        help="File with the join token, needed once. Default: none; the variable JUPYTER_GPU_JOIN_TOKEN serves as well."
    ).tag(config=True)
    credential_file = Unicode(
        help="File (0600) that keeps this agent's own credential. Default: agent.json in the state directory."
    ).tag(config=True)
    executor = Unicode(
        "process",
        help="What makes jobs real here: process; kubernetes, as pods of a cluster; or simulated, which only seems to "
        "run them. Default: process.",
    ).tag(config=True)
    executor_options = Dict(
        value_trait=Unicode(),
        help="What only this executor understands, as name=value; an unknown name is refused. "
        "simulated: start_delay and run_time (seconds, or a range: 0.5:2), records, record_length, failures (a share), "
        "seed, cpus. kubernetes: link (host:port at which pods reach this agent; needed), listen, kubeconfig, "
        "namespace, projects, image, user, pull_policy, pull_secrets, state_secret, all_pods. Default: none.",
    ).tag(config=True)
    fake_gpus = Int(
        0, min=0, max=64, help="Simulate this many GPUs, for development; says so everywhere. Default: 0."
    ).tag(config=True)
    standby = Int(
        1,
        min=0,
        help="Runners kept ready by the process executor, one per interpreter that cells or functions used: the next "
        "one of them starts in tens of milliseconds instead of hundreds, for about 40 MB of memory each. None is kept "
        "while less than 1 GiB of memory is free. Default: 1; 0: none.",
    ).tag(config=True)
    standby_seconds = Float(
        1800.0, min=0, help="Seconds after which a runner that nobody came for is ended. Default: 1800."
    ).tag(config=True)
    orphan_exit = Float(
        600.0,
        min=0,
        help="Seconds that a local agent stays without its control service before it leaves; jobs go on. Default: 600.",
    ).tag(config=True)

    log_to = Enum(
        ("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", help="Least level that is logged, to stderr. Default: INFO."
    ).tag(config=True)
    log_as = Enum(
        ("json", "text"), "text", help="Form of the log: json, an object on each line, or text. Default: text."
    ).tag(config=True)

    aliases = {
        "state-dir": "AgentApp.state_dir",
        "url": "AgentApp.urls",
        "join-token-file": "AgentApp.join_token_file",
        "credential-file": "AgentApp.credential_file",
        "executor": "AgentApp.executor",
        "executor-option": "AgentApp.executor_options",
        "fake-gpus": "AgentApp.fake_gpus",
        "standby": "AgentApp.standby",
        "standby-seconds": "AgentApp.standby_seconds",
        "orphan-exit": "AgentApp.orphan_exit",
        "log-level": "AgentApp.log_to",
        "log-format": "AgentApp.log_as",
    }
    flags = {"local": ({"AgentApp": {"local": True}}, "Be the agent of this machine's local platform.")}

    def start(self) -> None:
        logs.configure(self.log_to, self.log_as)
        try:
            lock = self._lock() if self.local else None
            asyncio.run(self._run())
        except errors.GpuPlatformError as error:
            self.exit_with(error)
        if lock is not None:
            lock.close()

    def exit_with(self, error: errors.GpuPlatformError) -> None:
        print(f"{self.name}: {error}", file=sys.stderr)  # noqa: T201 -- a program's last word
        self.exit(1)

    @property
    def _state(self) -> Path:
        return Path(self.state_dir).expanduser() if self.state_dir else runtime.default_state_dir()

    @property
    def _credential_path(self) -> Path:
        return Path(self.credential_file).expanduser() if self.credential_file else self._state / "agent.json"

    def _lock(self) -> IO[bytes]:
        """Wait until no other agent works on this state directory: the one before may outlive its control service."""
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (self._state / "agent.lock").open("ab")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    async def _run(self) -> None:
        core = Core()
        settings = ExecutorSettings(
            state_dir=self._state,
            fake_gpus=self.fake_gpus,
            standby=self.standby,
            standby_seconds=self.standby_seconds,
            options=self.executor_options,
        )
        await core.start(self._factory()(core, settings))
        try:
            resolve = self._local_endpoint if self.local else await self._remote_endpoint(core)
            pause = {"longest_pause": LOCAL_PAUSE} if self.local else {}
            connection = Connection(core, resolve, **pause)
            await self._until_told(connection)
        finally:
            await core.close()

    async def _until_told(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told.set)
        running = asyncio.create_task(connection.run())
        stopping = asyncio.create_task(told.wait())
        watching = asyncio.create_task(self._until_orphaned(connection)) if self.local else None
        tasks = [task for task in (running, stopping, watching) if task is not None]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if running in done:
            running.result()

    async def _until_orphaned(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        while (left := connection.last_live + self.orphan_exit - loop.time()) > 0:  # noqa: ASYNC110 -- a deadline that moves
            await asyncio.sleep(left)
        logging.getLogger(__name__).info("no control service for %g s: leaving, jobs go on", self.orphan_exit)

    def _factory(self) -> ExecutorFactory:
        if self.executor in OWN:
            try:
                own: ExecutorFactory = pkgutil.resolve_name(OWN[self.executor])
            except ModuleNotFoundError as error:
                raise errors.InvalidRequest(
                    f"the {self.executor} executor needs {error.name}, which is not installed",
                    hint=f"pip install 'jupyter-gpu-platform[{self.executor}]'",
                ) from None
            return own
        # Reading what is installed takes memory that an agent with an executor of ours never needs.
        import importlib.metadata

        found = importlib.metadata.entry_points(group=ENTRY_POINTS)
        if self.executor not in found.names:
            raise errors.InvalidRequest(
                f"there is no executor {self.executor!r}", hint=f"Installed: {', '.join(sorted({*OWN, *found.names}))}."
            )
        other: ExecutorFactory = found[self.executor].load()
        return other

    def _local_endpoint(self) -> Endpoint | None:
        """The control service of this machine: a new one has a new port, so it is looked up for each try."""
        found = runtime.read_runtime_file()
        if found is None or not found.alive or Path(found.state_dir).resolve() != self._state.resolve():
            return None
        credential = credentials.load(self._credential_path)
        return Endpoint(found.url, credential.agent_id, credential.credential) if credential else None

    async def _remote_endpoint(self, core: Core) -> Any:
        """Join if need be; return what picks a replica for each try."""
        urls = [url.rstrip("/") for url in self.urls]
        if not urls:
            raise errors.InvalidRequest("no control service was named", hint="Name one with --url, or use --local.")
        credential = await self._credential(urls, core)
        return lambda: Endpoint(random.choice(urls), credential.agent_id, credential.credential)  # noqa: S311 -- no secret

    def _join_token(self) -> str:
        token = os.environ.pop(JOIN_TOKEN_VARIABLE, "")
        if self.join_token_file:
            # It is needed once, and may be gone by now.
            with contextlib.suppress(FileNotFoundError):
                token = Path(self.join_token_file).expanduser().read_text().strip()
        return token

    async def _credential(self, urls: list[str], core: Core) -> credentials.Credential:
        """Say who this agent is: who it was, or another one where it has a join token that it hasn't used yet."""
        known, token = credentials.load(self._credential_path), self._join_token()
        if known is None:
            return await self._join(urls, core, token, "")
        if not token or known.joined_by == credentials.fingerprint(token):
            return known
        try:
            return await self._join(urls, core, token, known.credential)
        except errors.GpuPlatformError as error:
            logging.getLogger(__name__).warning("going on with the credential that is there: %s", error)
            return known

    async def _join(self, urls: list[str], core: Core, token: str, replaces: str) -> credentials.Credential:
        if not token:
            raise errors.InvalidRequest(
                "this agent has neither a credential nor a join token",
                hint=f"Give it one with --join-token-file or {JOIN_TOKEN_VARIABLE}.",
            )
        credential = await credentials.join(random.choice(urls), token, replaces)  # noqa: S311 -- no secret
        credentials.save(self._credential_path, credential)
        await core.executor.keep(self._credential_path.name)
        return credential


def main() -> None:
    AgentApp.launch_instance()
