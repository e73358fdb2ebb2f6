"""One running control service: its parts opened in order, served, and closed in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tornado.web import Application

from .. import errors
from ..wire.messages import MAX_MESSAGE
from .api import changes
from .api.activity import Activity
from .api.routes import url_specs
from .attempts import Attempts
from .gateway import Gateway, routes
from .heads import Heads
from .identity import Identity
from .jobs import Jobs
from .limits import Limits
from .listening import BoundedServer
from .metrics import Metrics
from .objects import Objects
from .planning import Planner
from .retention import Keeper, Retention
from .sealing import Sealer
from .services import Services
from .store.database import Database
from .store.feed import ChangeFeed
from .store.object_files import ObjectFiles
from .store.output import OutputLane
from .store.reader import Reader
from .store.writer import Writer
from .tail import ChangeTail
from .watch import JobWatch

log = logging.getLogger(__name__)

#: seconds for which the ends of connections are waited for
PARTING = 2.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the one who starts a service decides; `app.ControlApp` says what each means."""

    database_url: str
    segments_url: str
    objects_url: str
    ip: str = "127.0.0.1"
    port: int = 0
    replica_url: str = ""
    local: bool = False
    fake_gpus: int = 0
    metrics_public: bool = False
    limits: Limits = field(default_factory=Limits)
    retention: Retention = field(default_factory=Retention)
    now: Callable[[], float] = field(default=time.time)


async def open_services(settings: Settings) -> Services:
    """Open the store and make the services over it."""
    database = await asyncio.to_thread(Database.open, settings.database_url)
    limits = settings.limits
    writer = Writer(database, clock=settings.now, queue_limit=limits.max_waiting_writes)
    reader, feed = Reader(database), ChangeFeed(database)
    output = OutputLane(database, settings.segments_url, queue_bytes=limits.max_waiting_output_bytes)
    metrics, identity = Metrics(), Identity(writer, reader, now=settings.now)
    watch = JobWatch(reader, feed, metrics, now=settings.now, revoked=identity.forget)
    return Services(
        database=database,
        writer=writer,
        reader=reader,
        feed=feed,
        output=output,
        objects=Objects(writer, reader, ObjectFiles(settings.objects_url), now=settings.now),
        jobs=Jobs(writer, reader, output, feed, now=settings.now),
        attempts=Attempts(writer, reader, output, now=settings.now),
        identity=identity,
        metrics=metrics,
        heads=Heads(output, reader, watch),
        tail=ChangeTail(reader, feed, metrics, changes.line),
        watch=watch,
        replica_url=settings.replica_url,
        local=settings.local,
        fake_gpus=settings.fake_gpus,
        limits=limits,
        now=settings.now,
        started=settings.now(),
    )


class Server:
    """A control service in this process and event loop."""

    def __init__(self, services: Services, settings: Settings) -> None:
        self.services = services
        self.settings = settings
        self.activity = Activity(settings.now)
        self.gateway = Gateway(services)
        services.gateway = self.gateway
        self.planner = Planner(services)
        services.planner_epoch = lambda: self.planner.epoch
        self.sealer = Sealer(services, lambda: self.planner.epoch is not None)
        self.keeper = Keeper(services, lambda: self.planner.epoch is not None, settings.retention)
        self._http: BoundedServer | None = None
        self._measuring: asyncio.Task[None] | None = None
        self.url = ""

    @classmethod
    async def open(cls, settings: Settings) -> Server:
        """Open the store and listen.

        :raises LocalPlatformError: it can't listen there.
        """
        services = await open_services(settings)
        server = cls(services, settings)
        try:
            await server.start()
        except BaseException:
            await server.close()
            raise
        return server

    async def start(self) -> None:
        settings = self.settings
        specs, tornado_settings = url_specs(
            self.services,
            self.activity,
            metrics_public=settings.metrics_public,
        )
        bound = _bind(settings.ip, settings.port)
        port = bound.getsockname()[1]
        self.url = f"http://{_host(settings.ip)}:{port}"
        self.services.replica_url = settings.replica_url or self.url
        application = Application(
            [*routes(self.gateway), *specs], websocket_max_message_size=2 * MAX_MESSAGE, **tornado_settings
        )
        self._http = BoundedServer(application, settings.limits)
        self.services.metrics.watch(self.services, self._http)
        self._measuring = asyncio.create_task(self.services.metrics.measure_lag(), name="event loop lag")
        self.services.watch.start()
        self.services.tail.start()
        await self.gateway.start()
        self.planner.start()
        self.sealer.start()
        self.keeper.start()
        _listen(bound)
        self._http.add_socket(bound)
        log.info("listening at %s", self.url)

    async def drain(self) -> bool:
        """Take no new calls, tell those who follow to come back elsewhere, and let the calls in flight end.

        Returns whether all of them did within the time that they have.
        """
        self.activity.stopping = True
        if self._http is not None:
            self._http.stop()
        self.activity.end_streams()
        ended = await self.activity.drained(self.settings.limits.shutdown_seconds)
        if not ended:
            log.warning("%d calls were cut off: they took longer than the service may wait", self.activity.calls)
        return ended

    async def close(self) -> None:
        """Drain, send the agents away, give the leases back, commit what waits, and close the store."""
        if not self.activity.stopping:
            await self.drain()
        if self._measuring is not None:
            self._measuring.cancel()
        await self.keeper.stop()
        await self.sealer.stop()
        await self.planner.stop()
        await self.gateway.stop()
        await self.services.watch.stop()
        await self.services.tail.stop()
        if self._http is not None:
            # A call that was cut off in the midst of a step ends with that step, or with the process.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PARTING):
                    await self._http.close_all_connections()
        services = self.services
        await services.writer.close()
        await services.output.close()
        await services.objects.close()
        await services.reader.close()
        await asyncio.to_thread(services.database.close)


def _bind(ip: str, port: int) -> socket.socket:
    """Take an address, so that it can be told; until `_listen` who dials is refused, and not left waiting."""
    with _refusals_told(ip, port):
        bound = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if bound.family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((ip, port))
        except OSError:
            bound.close()
            raise
    bound.setblocking(False)
    return bound


def _listen(bound: socket.socket) -> None:
    with _refusals_told(*bound.getsockname()[:2]):
        bound.listen(1024)


@contextlib.contextmanager
def _refusals_told(ip: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = {
            errno.EADDRINUSE: "Stop what listens there, or choose another with --port (0: any free one).",
            errno.EACCES: "Ports below 1024 are the administrator's: choose another with --port.",
            errno.EADDRNOTAVAIL: "Choose an address of this machine with --ip.",
        }
        raise errors.LocalPlatformError(
            f"can't listen on {ip or '*'} port {port}: {error.strerror}",
            hint=fix.get(error.errno or 0, "Choose another address with --ip and --port."),
        ) from error


def _host(ip: str) -> str:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ip or "127.0.0.1"
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{ip}]" if address.version == 6 else ip
