"""Where agents connect: their sockets at this replica, what is told to them, and the way to those held elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Collection, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec.structs import replace
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from .. import errors
from ..wire.messages import Answer, BulkHello, Desired, Figures, Inspected
from ..wire.session import HEARTBEAT
from . import leases
from .attempts import Holder
from .metrics import counted
from .problems import Named
from .relay import PREFIX, Relay, RelayHandler
from .sockets import BulkSocket, ControlSocket
from .store.replicas import replica_key
from .store.rows import Agent

if TYPE_CHECKING:
    from .services import Services
    from .store.transaction import Transaction

log = logging.getLogger(__name__)

S = TypeVar("S", bound=msgspec.Struct)

#: Credentials looked up at one time: when a thousand agents dial, calls of people don't wait behind all of them.
ADMITTED_AT_ONCE = 3
#: The generation of a tombstone for an attempt that the store doesn't know: newer than any that another store gave.
_LAST_GENERATION = 2**62


class Connected(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that is connected to this replica."""

    agent: str
    cluster: str
    epoch: int
    version: str
    #: seconds since the epoch
    since: float
    #: the revision of desired state that was sent, and the one that the agent has made durable
    sent: int
    applied: int


class _Forget(msgspec.Struct):
    job: str
    attempt: int


def _nobody_is_connected(tx: Transaction) -> None:
    """Start without believing the store: a file has one service, so whoever was connected was so to a dead one.

    After a restored backup nothing may be placed before the agents have said what they hold.
    """
    for cluster in tx.clusters():
        if cluster.state == "connected":
            tx.put_cluster(replace(cluster, state="away"))


class Gateway:
    """Holds the agents' sockets of one replica."""

    def __init__(self, services: Services, *, heartbeat: float = HEARTBEAT, renew: float = leases.RENEW) -> None:
        self._services = services
        self._heartbeat = heartbeat
        self._renew = renew
        self._opened: set[ControlSocket | BulkSocket] = set()
        #: every WebSocket that is not closed yet, and what is set when it is
        self._transports: dict[AgentSocket, asyncio.Event] = {}
        #: the welcomed ones, by agent and by cluster
        self._live: dict[str, ControlSocket] = {}
        self._by_cluster: dict[str, set[ControlSocket]] = {}
        #: those of them whose welcome is older than what the others were told; the rest knows all up to `_position`
        self._behind: set[ControlSocket] = set()
        #: those that were welcomed since the look at the log that is under way began
        self._came: list[ControlSocket] = []
        self._admitting = asyncio.Semaphore(ADMITTED_AT_ONCE)
        self._relay: Relay | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._position = 0
        #: cluster → the newest change of it that was followed
        self._newest: dict[str, int] = {}
        #: what was followed since then is in `_newest`
        self._unseen = 0

    async def start(self) -> None:
        """Begin to serve; the replica's URL must be known by now."""
        services = self._services
        key = await asyncio.to_thread(replica_key, services.database)
        self._relay = Relay(key, services.now)
        await self._keep_replica()
        if services.database.is_sqlite:
            await services.writer.run(_nobody_is_connected)
        self._position = self._unseen = await services.reader.position()
        loops = (self._tick, self._follow, self._watch_leases)
        self._tasks = [asyncio.create_task(self._forever(loop), name=f"gateway {loop.__name__}") for loop in loops]

    async def stop(self) -> None:
        """Send the agents away, to other replicas or to this one's successor."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for socket in list(self._opened):
            socket.refuse("restarting", "this replica stops")
            self.lost(socket)
        await asyncio.gather(*self._background, return_exceptions=True)
        # Each is closed once its peer has answered, or in a few seconds.
        await asyncio.gather(*(closed.wait() for closed in list(self._transports.values())))
        replica = self._services.replica_id
        with contextlib.suppress(errors.GpuPlatformError):
            await self._services.writer.run(lambda tx: leases.end_replica(tx, replica), own=True)

    def connected(self) -> dict[str, Connected]:
        """The agents connected to this replica, by id."""
        return {
            agent_id: Connected(
                agent=agent_id,
                cluster=socket.agent.cluster,
                epoch=socket.session.epoch,
                version=socket.session.hello.version if socket.session.hello else "",
                since=socket.since,
                sent=self._told(socket),
                applied=socket.session.applied,
            )
            for agent_id, socket in self._live.items()
        }

    def _told(self, socket: ControlSocket) -> int:
        """Up to which change of the log an agent was told what concerns it."""
        own = socket.session.revision
        return own if socket in self._behind else max(own, self._position)

    @property
    def position(self) -> int:
        """How far the agents were told what the change log says."""
        return self._position

    def socket_counts(self) -> dict[str, float]:
        bulk = sum(isinstance(socket, BulkSocket) for socket in self._opened)
        return {"control": len(self._opened) - bulk, "bulk": bulk}

    def waiting(self) -> dict[str, float]:
        """How many messages of agents wait for the store."""
        reports = sum(socket.waiting for socket in self._opened if isinstance(socket, ControlSocket))
        appends = sum(socket.waiting for socket in self._opened if isinstance(socket, BulkSocket))
        return {"reports": reports, "appends": appends}

    def figures(self) -> dict[str, Figures]:
        """What the agents that are connected here say of themselves, by cluster."""
        live = self._live.values()
        return {socket.agent.cluster: socket.figures for socket in live if socket.figures is not None}

    def relay(self) -> Relay:
        if self._relay is None:
            raise errors.Unavailable("this replica is just starting")
        return self._relay

    # --- sockets come and go -----------------------------------------------------------------------------------

    async def admit(self, agent_id: str, authorization: str | None) -> Agent:
        """Say which agent dials.

        :raises Unauthenticated: its credential is unknown, revoked, or another agent's.
        """
        async with self._admitting:
            agent = await self._services.identity.agent(authorization)
        if agent.id != agent_id:
            raise errors.Unauthenticated("this is another agent's credential")
        self._services.admission.agent_sockets.check()
        return agent

    def opened(self, agent: Agent, kind: str, handler: AgentSocket) -> ControlSocket | BulkSocket:
        services = self._services
        socket: ControlSocket | BulkSocket
        if kind == "control":
            holder = Holder(f"{services.replica_id}/{secrets.token_hex(6)}", services.replica_url)
            socket = ControlSocket(
                services, agent, handler, holder=holder, heartbeat=self._heartbeat, on_live=self._went_live
            )
        else:
            socket = BulkSocket(services, agent, handler, heartbeat=self._heartbeat, check=self._check_bulk)
        services.admission.agent_sockets.take()
        self._opened.add(socket)
        self._transports[handler] = asyncio.Event()
        if self._stopping:
            socket.refuse("restarting", "this replica stops")
        return socket

    def _went_live(self, socket: ControlSocket) -> None:
        older = self._live.get(socket.agent.id)
        self._live[socket.agent.id] = socket
        self._services.metrics.agent_connections.inc()
        if older is not None:
            self._supersede(older)
        self._by_cluster.setdefault(socket.agent.cluster, set()).add(socket)
        self._came.append(socket)
        self._bring_up(socket)

    def _supersede(self, socket: ControlSocket | BulkSocket) -> None:
        socket.refuse("superseded", "the agent has a newer connection")
        self.lost(socket)

    def lost(self, socket: ControlSocket | BulkSocket) -> None:
        """A socket is gone."""
        if socket not in self._opened:
            return
        self._opened.discard(socket)
        live = isinstance(socket, ControlSocket) and socket.session.live
        socket.ended()
        if isinstance(socket, ControlSocket) and live:
            if self._live.get(socket.agent.id) is socket:
                del self._live[socket.agent.id]
            of_cluster = self._by_cluster[socket.agent.cluster]
            of_cluster.discard(socket)
            if not of_cluster:
                del self._by_cluster[socket.agent.cluster]
            left = self._services.attempts.left(socket.agent.id, socket.holder, socket.session.epoch)
            self._spawn(left)

    def closed(self, handler: AgentSocket) -> None:
        """A WebSocket is closed."""
        closed = self._transports.pop(handler, None)
        if closed is not None:
            self._services.admission.agent_sockets.free()
            closed.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_logged(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _check_bulk(self, agent: Agent, hello: BulkHello) -> None:
        """Join a bulk socket to the session that holds the agent, wherever that is."""
        control = self._live.get(agent.id)
        if control is not None and control.session.epoch == hello.epoch:
            return  # as nearly always: both came here
        lease = await self._services.reader.run(lambda tx: tx.lease(leases.agent_lease(agent.id)))
        if lease is None or lease.epoch != hello.epoch:
            raise errors.Conflict("the agent has a newer connection")

    # --- loops -------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        await asyncio.sleep(self._heartbeat / 4)
        for number, socket in enumerate(list(self._opened)):
            socket.tick()
            if number % 100 == 99:
                await asyncio.sleep(0)  # two thousand sockets' pings are no one step of the loop

    async def _follow(self) -> None:
        """Tell the agents what the change log says of their clusters; those of other clusters cost nothing."""
        services = self._services
        self._came.clear()
        try:
            news = await services.attempts.desired_since(self._position, set(self._by_cluster))
        except errors.Gone:
            self._position = self._unseen = await services.reader.position()
            for socket in list(self._live.values()):
                socket.refuse("log_trimmed", "too much has changed: say hello again")
            return
        if news.agents:
            await self._check_leases(news.agents)
        self._newest.update(news.newest)
        self._position = news.position
        for cluster, desired in news.desired.items():
            for socket in self._by_cluster.get(cluster, set()) - self._behind:
                socket.tell(news.position, desired)
        for socket in self._came:
            self._bring_up(socket)  # its cluster may not have been asked about
        await services.feed.wait(news.position, 5.0)

    def _bring_up(self, socket: ControlSocket) -> None:
        if socket.session.revision < self._position and socket not in self._behind:
            self._behind.add(socket)
            self._spawn(self._catch_up(socket))

    async def _catch_up(self, socket: ControlSocket) -> None:
        """Bring a connection up to where the others are: its welcome was read from an older snapshot."""
        cluster = socket.agent.cluster
        try:
            while not socket.closed and socket.session.revision < self._position:
                if max(self._newest.get(cluster, 0), self._unseen) <= socket.session.revision:
                    socket.tell(self._position, [])
                    return
                news = await self._services.attempts.desired_since(socket.session.revision, {cluster})
                socket.tell(news.position, news.desired.get(cluster, []))
        except errors.GpuPlatformError as error:
            # The log was trimmed, or the store can't be read: the next hello begins from what is wanted then.
            socket.refuse(error.code, "what has changed can't be read: say hello again")
        finally:
            self._behind.discard(socket)

    async def _watch_leases(self) -> None:
        await asyncio.sleep(self._renew)
        await self._keep_replica()
        await self._check_leases(None)

    async def _keep_replica(self) -> None:
        services = self._services
        await services.writer.run(
            lambda tx: leases.keep_replica(tx, services.replica_id, services.replica_url, services.now()),
            own=True,
        )

    async def _check_leases(self, only: set[str] | None) -> None:
        """Close sockets of agents that were revoked, were given up, or have a newer connection at another replica."""
        # With their epochs from before the look: who is welcomed meanwhile was not yet connected in what it sees.
        sockets = {
            socket: socket.session.epoch if isinstance(socket, ControlSocket) else socket.epoch
            for socket in self._opened
            if (only is None or socket.agent.id in only) and (socket.session.hello is not None)
        }
        ids = {socket.agent.id for socket in sockets}
        if not ids:
            return

        def look(tx: Transaction) -> dict[str, tuple[bool, int, bool]]:
            given_up = set() if only else {cluster.name for cluster in tx.clusters() if cluster.state == "away"}
            found = {}
            listed = tx.agents() if only is None else filter(None, map(tx.agent, ids))
            agents = {agent.id: agent for agent in listed}
            held = leases.of_agents(tx, ids)
            for agent_id in ids:
                agent, lease = agents.get(agent_id), held.get(agent_id)
                epoch = lease.epoch if lease else 0
                found[agent_id] = (
                    agent is None or agent.revoked,
                    epoch,
                    agent is not None and agent.cluster in given_up,
                )
            return found

        known = await self._services.reader.run(look)
        for socket, mine in sockets.items():
            revoked, epoch, away = known[socket.agent.id]
            if revoked:
                socket.refuse("unauthenticated", "the agent's credential was revoked", 60.0)
                self.lost(socket)
            elif mine and mine < epoch:
                self._supersede(socket)
            elif away and mine and isinstance(socket, ControlSocket):
                # The planner gave it up while we could not renew our lease, or by a clock that jumped; only a hello
                # makes it reachable again.
                socket.refuse("given_up", "the service had given this agent up: say hello again")
                self.lost(socket)

    async def _forever(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                with counted(self._services.metrics.loop(f"gateway {step.__name__.lstrip('_')}")):
                    await step()
            except errors.GpuPlatformError as error:
                log.warning("%s: %s", step.__name__, error)
                await asyncio.sleep(1.0)
            except Exception:  # a bug in one round must not end the loop
                self._services.metrics.mistakes.labels("gateway").inc()
                log.exception("%s failed", step.__name__)
                await asyncio.sleep(1.0)

    # --- questions to agents -----------------------------------------------------------------------------------

    async def inspect(self, agent_id: str) -> Inspected:
        """Ask an agent, wherever it is connected, what it really holds.

        :raises Unavailable: it isn't connected, or doesn't answer.
        """
        if agent_id in self._live:
            return await self._live[agent_id].inspect()
        return msgspec.msgpack.decode(await self._elsewhere(agent_id, "inspect", b""), type=Inspected)

    async def forget_unknown(self, cluster: str, job: str, attempt: int) -> None:
        """Have the agent stop and forget an attempt that this store doesn't know: an admin has decided so.

        The attempt goes from the list once the agent says that nothing is left of it.

        :raises Conflict: the store knows the attempt.
        :raises Unavailable: no agent of the cluster is connected.
        """

        def look(tx: Transaction) -> tuple[bool, list[Agent]]:
            known = tx.attempt(job, attempt)
            return known is not None and known.cluster == cluster, tx.agents(cluster)

        known, agents = await self._services.reader.run(look)
        if known:
            raise errors.Conflict(f"attempt {job}.{attempt} is known", hint="Cancel its job.")
        await self._tell(_last_seen(agents, cluster), "forget", msgspec.msgpack.encode(_Forget(job, attempt)))

    async def pass_on(self, cluster: str, answer: Answer) -> None:
        """Pass what somebody typed to the agent whose attempt asks for it. It is not kept, and may be lost.

        :raises Conflict: the agent can't take answers.
        :raises Unavailable: no agent of the cluster is connected.
        """
        agents = await self._services.reader.agents(cluster)
        await self._tell(_last_seen(agents, cluster), "answer", msgspec.msgpack.encode(answer))

    async def _tell(self, agent_id: str, verb: str, body: bytes) -> None:
        if agent_id in self._live:
            await self.answer(agent_id, verb, body)
        else:
            await self._elsewhere(agent_id, verb, body)

    async def _elsewhere(self, agent_id: str, verb: str, body: bytes) -> bytes:
        services = self._services

        def look(tx: Transaction) -> str:
            lease = tx.lease(leases.agent_lease(agent_id))
            mine = lease is not None and leases.replica_of(lease) == services.replica_id
            if lease is None or mine or not leases.alive(tx, lease, services.now()):
                raise errors.Unavailable(f"agent {agent_id} is not connected")
            return lease.holder_url

        url = await services.reader.run(look)
        try:
            answer = await self.relay().ask(url, f"{PREFIX}/{agent_id}/{verb}", body)
        except errors.GpuPlatformError:
            services.metrics.relayed.labels("failed").inc()
            raise
        services.metrics.relayed.labels("answered").inc()
        return answer

    async def answer(self, agent_id: str, verb: str, body: bytes) -> bytes:
        """Answer another replica about an agent that is connected here."""
        socket = self._live.get(agent_id)
        if socket is None:
            raise errors.Unavailable(f"agent {agent_id} is not connected here any more")
        if verb == "inspect":
            return msgspec.msgpack.encode(await socket.inspect())
        if verb == "answer":
            socket.pass_on(_decoded(body, Answer))
            return b""
        if verb == "forget":
            asked = _decoded(body, _Forget)
            tombstone = Desired(
                job=asked.job, attempt=asked.attempt, generation=_LAST_GENERATION, action="forget", grace=10.0
            )
            socket.add([tombstone])
            return b""
        raise errors.NotFound(f"replicas don't ask each other {verb!r}")


def _decoded(body: bytes, kind: type[S]) -> S:
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.DecodeError:
        raise errors.InvalidRequest("this names no attempt") from None


def _last_seen(agents: Collection[Agent], cluster: str) -> str:
    """Name the agent that speaks for a cluster now."""
    agents = [agent for agent in agents if not agent.revoked]
    if not agents:
        raise errors.Unavailable(f"cluster {cluster} has no agent")
    return max(agents, key=lambda agent: agent.seen or 0.0).id


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except errors.GpuPlatformError as error:
        log.warning("%s", error)


class AgentSocket(Named, WebSocketHandler):
    """``/api/v1/agents/<id>/control`` and ``…/bulk``."""

    _agent: Agent
    _socket: ControlSocket | BulkSocket | None = None

    def initialize(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def check_origin(self, origin: str) -> bool:
        """Browsers have no business here; agents send no Origin, and then this isn't asked."""
        return False

    async def prepare(self) -> None:
        try:
            self._agent = await self._gateway.admit(self.path_args[0], self.request.headers.get("Authorization"))
        except errors.GpuPlatformError as error:
            self.refuse(error)

    def open(self, agent_id: str, kind: str) -> None:
        self.set_nodelay(True)
        self._socket = self._gateway.opened(self._agent, kind, self)

    def on_message(self, message: str | bytes) -> None:
        if self._socket is not None and not self._socket.closed:
            self._socket.received(message)

    def on_close(self) -> None:
        if self._socket is not None:
            self._gateway.lost(self._socket)
        self._gateway.closed(self)

    # what `sockets` needs of a transport

    def send(self, data: bytes) -> None:
        # The peer closed it this moment: `on_close` follows.
        with contextlib.suppress(WebSocketClosedError):
            sent = asyncio.ensure_future(self.write_message(data, binary=True))
            sent.add_done_callback(_seen)

    def shut(self, reason: str) -> None:
        self.close(4000, reason[:100])


def _seen(sent: asyncio.Future[None]) -> None:
    """A message that could not be written is no news: the connection's end is."""
    if not sent.cancelled():
        sent.exception()


def routes(gateway: Gateway) -> list[tuple[str, type, dict[str, Any]]]:
    """What an application mounts."""
    return [
        (r"/api/v1/agents/([^/]+)/(control|bulk)", AgentSocket, {"gateway": gateway}),
        (PREFIX + r"/([^/]+)/([a-z]+)", RelayHandler, {"relay": gateway.relay, "answer": gateway.answer}),
    ]
