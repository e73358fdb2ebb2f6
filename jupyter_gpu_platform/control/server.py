"""One running control service: its parts opened in order, served, and closed in order."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tornado.httpserver import HTTPServer
from tornado.web import Application

from .. import errors
from ..wire.messages import MAX_MESSAGE
from .api.activity import Activity
from .api.routes import url_specs
from .attempts import Attempts
from .gateway import Gateway, routes
from .identity import Identity
from .jobs import Jobs
from .metrics import Metrics
from .objects import Objects
from .planning import Planner
from .sealing import Sealer
from .services import Services
from .store.database import Database
from .store.feed import ChangeFeed
from .store.object_files import ObjectFiles
from .store.output import OutputLane
from .store.reader import Reader
from .store.writer import Writer
from .watch import JobWatch

log = logging.getLogger(__name__)

#: seconds that calls in flight get when the service ends
DRAIN_SECONDS = 5.0


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
    max_body_bytes: int = 16 * 2**20
    now: Callable[[], float] = field(default=time.time)


async def open_services(settings: Settings) -> Services:
    """Open the store and make the services over it."""
    database = await asyncio.to_thread(Database.open, settings.database_url)
    writer, reader, feed = Writer(database, clock=settings.now), Reader(database), ChangeFeed(database)
    output = OutputLane(database, settings.segments_url)
    return Services(
        database=database,
        writer=writer,
        reader=reader,
        feed=feed,
        output=output,
        objects=Objects(writer, reader, ObjectFiles(settings.objects_url), now=settings.now),
        jobs=Jobs(writer, reader, output, feed, now=settings.now),
        attempts=Attempts(writer, reader, output, now=settings.now),
        identity=Identity(writer, reader, now=settings.now),
        metrics=Metrics(),
        watch=JobWatch(reader, feed),
        replica_url=settings.replica_url,
        local=settings.local,
        fake_gpus=settings.fake_gpus,
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
        self.sealer = Sealer(services, lambda: self.planner.epoch is not None)
        self._http: HTTPServer | None = None
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
            max_body_bytes=settings.max_body_bytes,
            metrics_public=settings.metrics_public,
        )
        listening = _bind(settings.ip, settings.port)
        port = listening.getsockname()[1]
        self.url = f"http://{_host(settings.ip)}:{port}"
        self.services.replica_url = settings.replica_url or self.url
        application = Application(
            [*routes(self.gateway), *specs], websocket_max_message_size=2 * MAX_MESSAGE, **tornado_settings
        )
        # Handlers limit bodies themselves, so that too large a one gets an answer instead of a cut connection.
        self._http = HTTPServer(application, max_body_size=2**62, xheaders=False)
        self.services.watch.start()
        await self.gateway.start()
        self.planner.start()
        self.sealer.start()
        self._http.add_socket(listening)
        log.info("listening at %s", self.url)

    async def close(self) -> None:
        """Let calls in flight end, break streams off, and close the store."""
        self.activity.stopping = True
        if self._http is not None:
            self._http.stop()
        self.activity.end_streams()
        await self.activity.drained(DRAIN_SECONDS)
        await self.sealer.stop()
        await self.planner.stop()
        await self.gateway.stop()
        await self.services.watch.stop()
        if self._http is not None:
            await self._http.close_all_connections()
        services = self.services
        await services.writer.close()
        await services.output.close()
        await services.objects.close()
        await services.reader.close()
        await asyncio.to_thread(services.database.close)


def _bind(ip: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server(
            (ip, port), family=socket.AF_INET6 if ":" in ip else socket.AF_INET, backlog=1024
        )
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
    listening.setblocking(False)
    return listening


def _host(ip: str) -> str:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ip or "127.0.0.1"
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{ip}]" if address.version == 6 else ip
