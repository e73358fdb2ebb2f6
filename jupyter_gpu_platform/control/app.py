"""The program: ``jupyter gpu control``, or ``python -m jupyter_gpu_platform.control``."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import gc
import logging
import signal
import sys
from pathlib import Path
from typing import IO, Any

from traitlets import Bool, Enum, Float, Int, Unicode
from traitlets.config import Application

from .. import errors, logs, runtime
from .._version import __version__
from . import local
from .identity import Principal, new_token
from .limits import Limits
from .overdue import end_within
from .retention import KEPT, Retention
from .server import Server, Settings

log = logging.getLogger(__name__)

#: a local platform ends after so many idle seconds unless told otherwise
LOCAL_IDLE_EXIT = 1800.0
MIN_TOKEN = 20
#: exit code of a service that had to cut calls off when it was asked to end
CALLS_CUT_OFF = 3
#: parts with settings of their own
_PARTS = (Limits, Retention)
_ALIASES = (
    *("ip", "port", "state_dir", "database_url", "segments_url", "objects_url", "replica_url"),
    *("backup", "restore", "fake_gpus", "standby", "idle_exit", "token_file"),
)


class ControlApp(Application):
    """Keeps jobs, their output and their attempts; clusters' agents and people talk to it over HTTP."""

    name = "jupyter-gpu-control"
    version = __version__
    description = __doc__

    ip = Unicode(
        "127.0.0.1",
        help="Address to listen on (default: 127.0.0.1, this machine only). 0.0.0.0 opens the service to the network: "
        "put TLS in front of it, for tokens cross it.",
    ).tag(config=True)
    port = Int(
        0, min=0, max=65535, help="TCP port to listen on (default: 0, any free one; its number is in the log)."
    ).tag(config=True)
    state_dir = Unicode(
        "",
        help="Directory of the store, the lock and the logs, on a local disk (default: $JUPYTER_GPU_STATE_DIR or "
        "~/.local/state/jupyter-gpu-platform). Another directory is another platform with other jobs.",
    ).tag(config=True)
    database_url = Unicode(
        "",
        help="Where state is kept: sqlite:////path/control.db or postgresql+psycopg://user@host/name (default: "
        "control.db in the state directory). Several replicas need PostgreSQL.",
    ).tag(config=True)
    segments_url = Unicode(
        "",
        help="fsspec URL to which the output of ended jobs moves, for example s3://bucket/gpu (default: segments in "
        "the state directory). Replicas need one that all of them reach. Moving it needs its files moved, too.",
    ).tag(config=True)
    objects_url = Unicode(
        "",
        help="fsspec URL of values that go into jobs and come out of them, for example s3://bucket/gpu-objects "
        "(default: objects in the state directory). Replicas need one that all of them reach. Moving it needs its "
        "files moved, too.",
    ).tag(config=True)
    replica_url = Unicode(
        "",
        help="URL under which other replicas reach this one (default: http://IP:PORT as listened on). A wrong one "
        "makes requests for agents that are connected here fail at other replicas.",
    ).tag(config=True)
    local = Bool(
        False,
        help="Be the platform of one person on this machine (default: false): write the runtime file with a token, "
        "run an agent, end when idle.",
    ).tag(config=True)
    fake_gpus = Int(
        0,
        min=0,
        max=64,
        help="Number of simulated GPUs of the local agent (default: 0, the real ones). Jobs run on the CPU.",
    ).tag(config=True)
    standby = Int(
        1,
        min=0,
        help="Runners that the local agent keeps ready once cells or functions were run, one per interpreter "
        "(default: 1; 0: none). Each makes the next cell start in tens of milliseconds instead of hundreds, and takes "
        "about 50 MB of memory until nobody came for it in 30 minutes.",
    ).tag(config=True)
    idle_exit = Float(
        -1.0,
        help="Seconds without an open job or a call after which the service ends (default: -1, which is 1800 with "
        "--local and never otherwise; 0: never). The next client starts it again.",
    ).tag(config=True)
    metrics_public = Bool(
        False,
        help="Serve /metrics without a token (default: false, admins only). Whoever reaches the port then sees "
        "counts of jobs and requests.",
    ).tag(config=True)
    token_file = Unicode(
        "",
        help="File with the first admin's token (default: admin.token in the state directory; made if missing). Not "
        "used with --local. Whoever reads it is admin.",
    ).tag(config=True)
    log_to = Enum(
        ("DEBUG", "INFO", "WARNING", "ERROR"),
        "INFO",
        help="Least level that is logged, to stderr (default: INFO). DEBUG has each request and each step of a job, "
        "and costs a few per cent of the throughput.",
    ).tag(config=True)
    log_as = Enum(
        ("json", "text"),
        "json",
        help="Form of the log (default: json). json: an object on each line, for programs that collect logs. text: "
        "for people.",
    ).tag(config=True)

    check = Bool(
        False,
        help="Instead of serving, look whether the store holds what it promises, and end (default: false). It may be "
        "running: a snapshot is read, and nothing is changed. Exit code 2 and a line for each finding where not.",
    ).tag(config=True)
    backup = Unicode(
        "",
        help="Instead of serving, copy the store into this new directory, and end (default: none). It may be running. "
        "It takes as much space as the store.",
    ).tag(config=True)
    restore = Unicode(
        "",
        help="Instead of serving, put a backup in the place of the store, and end (default: none). It must be stopped. "
        "What is there is moved aside, not removed.",
    ).tag(config=True)
    restored = Bool(
        False,
        help="Instead of serving, note that the database was put back from an older copy, and end (default: false). "
        "Do so after pg_restore, before any replica starts: else lost attempts may be taken for new ones.",
    ).tag(config=True)

    classes = list(_PARTS)

    aliases = {name.replace("_", "-"): f"ControlApp.{name}" for name in _ALIASES} | {
        "log-level": "ControlApp.log_to",
        "log-format": "ControlApp.log_as",
        "max-body-bytes": "Limits.max_body_bytes",
        "config": "ControlApp.config_file",
        **{f"keep-{name.replace('_', '-')}": f"Retention.{name}" for name in KEPT},
    }
    flags = {
        "local": ({"ControlApp": {"local": True}}, "Be the platform of one person on this machine."),
        "check": ({"ControlApp": {"check": True}}, "Look whether the store holds what it promises, and end."),
        "restored": ({"ControlApp": {"restored": True}}, "Note that the database was put back, and end."),
        "metrics-public": ({"ControlApp": {"metrics_public": True}}, "Serve /metrics without a token."),
    }
    config_file = Unicode("", help="Configuration file, Python or JSON (default: none).").tag(config=True)

    def initialize(self, argv: list[str] | None = None) -> None:
        _refuse_unknown(sys.argv[1:] if argv is None else argv, {*self.aliases, *self.flags})
        self.parse_command_line(argv)
        if self.config_file:
            path = Path(self.config_file)
            self.load_config_file(path.name, path=str(path.parent.absolute()))

    def start(self) -> None:
        logs.configure(self.log_to, self.log_as)
        try:
            code = asyncio.run(self._serve_or_upkeep())
        except errors.GpuPlatformError as error:
            # One line for people: what is wrong and what to do.
            print(f"{self.name}: {error.message} {error.hint}".strip(), file=sys.stderr)  # noqa: T201 -- for people
            self.exit(1)
        self.exit(code)

    def settings(self, state_dir: Path) -> Settings:
        return Settings(
            database_url=self.database_url or f"sqlite:///{state_dir / 'control.db'}",
            segments_url=self.segments_url or (state_dir / "segments").as_uri(),
            objects_url=self.objects_url or (state_dir / "objects").as_uri(),
            ip=self.ip,
            port=self.port,
            replica_url=self.replica_url,
            local=self.local,
            fake_gpus=self.fake_gpus,
            metrics_public=self.metrics_public,
            limits=Limits(parent=self),
            retention=Retention(parent=self),
        )

    def _state_path(self) -> Path:
        chosen = Path(self.state_dir).expanduser() if self.state_dir else runtime.default_state_dir()
        return chosen.absolute()

    async def _serve_or_upkeep(self) -> int:
        """Do what was asked for; returns the exit code."""
        if self.check or self.backup or self.restore or self.restored:
            return await self._upkeep()
        state_dir = self._state_path()
        local.prepare_state_dir(state_dir)
        return 0 if await self._serve(state_dir) else CALLS_CUT_OFF

    async def _upkeep(self) -> int:
        # What serves never needs it.
        from . import upkeep

        state_dir = self._state_path()
        settings = self.settings(state_dir)
        if self.check:
            return upkeep.show_check(settings)
        if self.backup:
            return upkeep.make_backup(settings, self.backup)
        local.prepare_state_dir(state_dir)
        lock = await local.take_lock(state_dir, patience=0.0)
        try:
            if self.restored:
                return upkeep.mark_restored(settings)
            return upkeep.put_back(settings, self.restore)
        finally:
            _release(lock)

    async def _serve(self, state_dir: Path) -> bool:
        # Replicas with a common PostgreSQL take turns by its locks; a lone file store needs one of its own.
        alone = self.local or not self.database_url.startswith("postgresql")
        lock = await local.take_lock(state_dir) if alone else None
        try:
            return await self._serve_locked(state_dir)
        finally:
            _release(lock)

    async def _serve_locked(self, state_dir: Path) -> bool:
        """Serve until the end is asked for; returns whether all calls in flight came to theirs."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        gc.collect()  # before anybody waits: what is left stays
        server = await Server.open(self.settings(state_dir))
        _be_prompt()
        server.activity.stop = stop.set
        agent = local.AgentChild(state_dir, self.fake_gpus, self.log_to, self.log_as, self.standby)
        written: runtime.RuntimeFile | None = None
        calls_ended = True
        try:
            if self.local:
                token = local.admit_owner(server.services)
                await local.ensure_agent(server.services, state_dir)
                written = local.write_runtime_file(server.services, server.url, token, state_dir)
                agent.start()
            else:
                self._admit_admin(server, state_dir)
            await self._until_end(server, stop)
        finally:
            # Calls first: some need the agent for their answer.
            calls_ended = await server.drain()
            end_within(server.settings.limits.close_seconds)
            await agent.stop()
            await server.close()
            if written is not None:
                runtime.remove_runtime_file(written)
            log.info("ended")
        return calls_ended

    async def _until_end(self, server: Server, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        ends: set[asyncio.Task[Any]] = {loop.create_task(stop.wait())}
        idle = LOCAL_IDLE_EXIT if self.idle_exit < 0 and self.local else self.idle_exit
        if idle > 0:
            ends.add(loop.create_task(local.until_idle(server.services, server.activity, idle)))
        done, pending = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()
        log.info("ending: %s", "asked to" if stop.is_set() else f"idle for {idle:g} s")

    def _admit_admin(self, server: Server, state_dir: Path) -> None:
        path = Path(self.token_file).expanduser() if self.token_file else state_dir / "admin.token"
        token = _read_token(path)
        server.services.identity.add_fixed(token, Principal(user="admin", role="admin"))
        log.info("the first admin's token is in %s", path)


def _refuse_unknown(argv: list[str], known: set[str]) -> None:
    """Refuse options that nothing stands behind; traitlets would warn and start without them."""
    traits = {
        f"{kind.__name__}.{name}" for kind in (ControlApp, *_PARTS) for name in kind.class_trait_names(config=True)
    }
    builtin = {"help", "help-all", "version", "debug", "show-config", "show-config-json", "generate-config"}
    valid = known | traits | builtin
    for argument in argv:
        name = argument.removeprefix("--").partition("=")[0]
        if argument.startswith("--") and name not in valid:
            near = difflib.get_close_matches(name, sorted(valid), n=1)
            hint = f"Did you mean --{near[0]}?" if near else "See --help."
            print(f"{ControlApp.name}: unknown option --{name}. {hint}", file=sys.stderr)  # noqa: T201 -- for people
            raise SystemExit(1)


def _read_token(path: Path) -> str:
    try:
        if not path.exists():
            runtime.write_private(path, new_token("jgpadmin").encode() + b"\n")
        token = path.read_text().strip()
    except (OSError, UnicodeError) as error:
        raise errors.LocalPlatformError(
            f"the token file {path} can't be used: {error}", hint="Choose a readable one with --token-file."
        ) from error
    if len(token) < MIN_TOKEN or not token.isascii() or " " in token:
        raise errors.LocalPlatformError(
            f"the token file {path} holds no usable token",
            hint=f"Put {MIN_TOKEN} or more random ASCII characters into it, or remove it to have one made.",
        )
    return token


def _be_prompt() -> None:
    """Let calls wait for neither the collector nor the store's threads.

    What was loaded by now stays to the end: looking through it would stop everything for a tenth of a second, and so
    would looking through a thousand connections each time that a few more came. And a thread that decodes rows gives
    way to the one that serves calls ten times as soon as Python would have it.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 20)
    sys.setswitchinterval(0.0005)


def _release(lock: IO[str] | None) -> None:
    if lock is not None:
        with contextlib.suppress(OSError):
            lock.truncate(0)
        lock.close()


def main(argv: list[str] | None = None) -> None:
    ControlApp.launch_instance(argv)
