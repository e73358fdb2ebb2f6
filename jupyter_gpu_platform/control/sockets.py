"""One agent's sockets at this replica: the shells around `wire`'s state machines."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from .. import errors, logs
from ..model.records import StreamKey
from ..wire import codec
from ..wire.messages import (
    Answer,
    Append,
    BulkHello,
    CapacityReport,
    Claim,
    Desired,
    Figures,
    Hello,
    Inspected,
    Message,
    Reports,
)
from ..wire.session import Close, Effect, Got, Send, ServiceSession, refuse
from ..wire.streams import ServiceBulk, stream_of
from .attempts import Holder

if TYPE_CHECKING:
    from .services import Services
    from .store.rows import Agent

log = logging.getLogger(__name__)

#: Seconds for which an agent is asked to stay away when the store can't take what it says.
COME_BACK = 2.0
INSPECT_TIMEOUT = 8.0


class Transport(Protocol):
    """The socket, as far as it matters here."""

    def send(self, data: bytes) -> None: ...

    def shut(self, reason: str) -> None: ...


class _Socket(abc.ABC):
    """What both kinds of sockets have in common: effects carried out, tasks that end with the socket."""

    def __init__(self, services: Services, agent: Agent, transport: Transport) -> None:
        self.services = services
        self.agent = agent
        self.closed = False
        self._transport = transport
        self._tasks: set[asyncio.Task[Any]] = set()

    def do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if self.closed:
                return
            match effect:
                case Send(message):
                    self._transport.send(codec.encode(message))
                case Close(code, message, _):
                    with logs.about(agent=self.agent.id):
                        log.info("connection closed: %s (%s)", message, code)
                    self.close(code)
                case Got(message):
                    self.got(message)

    @abc.abstractmethod
    def got(self, message: Message) -> None:
        """Take a message that the session has let through."""

    def refuse(self, code: str, message: str, retry_after: float = 0.0) -> None:
        self.do(refuse(code, message, retry_after))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that waits for the store. What it can't do now ends the connection: the agent asks again."""
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before it begins never awaits its work.
        task.add_done_callback(lambda _: work.close())

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        logs.begin(agent=self.agent.id)
        try:
            await work
        except errors.GpuPlatformError as error:
            self.refuse(error.code, error.message, COME_BACK if error.status in (429, 503) else 0.0)
        except Exception:  # a bug here must not leave a connection that never answers
            self.services.metrics.mistakes.labels("agent message").inc()
            log.exception("a message could not be handled")
            self.refuse("internal_error", "the service made a mistake; its log has the details", COME_BACK)

    def close(self, reason: str) -> None:
        if not self.closed:
            self.closed = True
            self._transport.shut(reason)

    def ended(self) -> None:
        """The socket is gone."""
        self.closed = True
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()


class ControlSocket(_Socket):
    """The control socket of one agent."""

    def __init__(
        self,
        services: Services,
        agent: Agent,
        transport: Transport,
        *,
        holder: Holder,
        heartbeat: float,
        on_live: Callable[[ControlSocket], None],
    ) -> None:
        super().__init__(services, agent, transport)
        self.holder = holder
        self.since = services.now()
        self.session = ServiceSession(_now(), heartbeat)
        #: what the agent last said of itself
        self.figures: Figures | None = None
        self._on_live = on_live
        self._reports: asyncio.Queue[Reports] = asyncio.Queue()
        self._inspections: dict[int, asyncio.Future[Inspected]] = {}

    def received(self, data: bytes | str) -> None:
        try:
            message = codec.decode_from_agent(data)
        except errors.InvalidRequest as error:
            self.refuse(error.code, error.message)
            return
        self.do(self.session.receive(message, _now()))

    def tick(self) -> None:
        self.do(self.session.tick(_now()))

    def got(self, message: Message) -> None:
        match message:
            case Hello():
                self.spawn(self._greet(message))
            case Reports():
                self._reports.put_nowait(message)
            case Claim():
                self.spawn(self._claim(message))
            case CapacityReport(capacity=capacity):
                self.spawn(self.services.attempts.capacity(self.agent.cluster, capacity))
            case Figures():
                self.figures = message
            case Inspected(request=request):
                waiting = self._inspections.pop(request, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)

    @property
    def waiting(self) -> int:
        """Reports that wait for the store."""
        return self._reports.qsize()

    async def _greet(self, hello: Hello) -> None:
        with self.services.admission.hellos.taken():
            greeted = await self.services.attempts.hello(self.agent.id, hello, self.holder)
        log.info("connected: %s, version %s, epoch %d", greeted.cluster, hello.version, greeted.epoch)
        effects = self.session.welcomed(
            store_incarnation=self.services.database.incarnation,
            cluster=greeted.cluster,
            epoch=greeted.epoch,
            revision=greeted.revision,
            desired=greeted.desired,
            unknown=greeted.unknown,
        )
        # Known as live before the welcome leaves: the agent's bulk socket may come at once.
        self._on_live(self)
        self.do(effects)
        self.spawn(self._commit_reports())

    async def _commit_reports(self) -> None:
        while not self.closed:
            several = [await self._reports.get()]
            while not self._reports.empty():
                several.append(self._reports.get_nowait())
            await self.services.attempts.reports(self.agent.cluster, several)
            self.do(self.session.committed(several[-1].seq))

    async def _claim(self, claim: Claim) -> None:
        logs.begin(job=claim.job, attempt=claim.attempt)
        result = await self.services.attempts.claim(self.agent.cluster, claim)
        log.debug("claim %s", f"refused: {result.refusal}" if result.refusal else "granted")
        self.do(self.session.answer(result))

    def tell(self, revision: int, desired: list[Desired]) -> None:
        """Send what changed."""
        self.do(self.session.delta(revision, desired))

    def add(self, desired: list[Desired]) -> None:
        """Send what is wanted besides what the change log says."""
        self.do(self.session.aside(desired))

    def pass_on(self, answer: Answer) -> None:
        """Send what somebody typed.

        :raises Conflict: the agent can't take it.
        """
        self.do(self.session.tell(answer))

    async def inspect(self) -> Inspected:
        """Ask the agent what it really holds.

        :raises Unavailable: it doesn't answer.
        """
        request, effects = self.session.inspect()
        waiting: asyncio.Future[Inspected] = asyncio.get_running_loop().create_future()
        self._inspections[request] = waiting
        self.do(effects)
        try:
            async with asyncio.timeout(INSPECT_TIMEOUT):
                return await waiting
        except TimeoutError:
            raise errors.Unavailable(f"agent {self.agent.id} doesn't answer") from None
        finally:
            self._inspections.pop(request, None)

    def ended(self) -> None:
        super().ended()
        self.session.live = False
        for waiting in self._inspections.values():
            if not waiting.done():
                waiting.set_exception(errors.Unavailable(f"agent {self.agent.id} was just lost"))


class BulkSocket(_Socket):
    """One bulk socket of an agent. It may be at another replica than the control socket: the lease joins them."""

    def __init__(
        self,
        services: Services,
        agent: Agent,
        transport: Transport,
        *,
        heartbeat: float,
        check: Callable[[Agent, BulkHello], Coroutine[Any, Any, None]],
    ) -> None:
        super().__init__(services, agent, transport)
        self.session = ServiceBulk(_now(), heartbeat)
        self._check = check
        self._joined = False
        #: what came before the hello was checked
        self._early: list[Append] = []
        #: appends that are being committed, in the order in which they came; a task per stream answers them
        self._streams: dict[StreamKey, deque[asyncio.Task[list[Effect]]]] = {}

    @property
    def epoch(self) -> int | None:
        return None if self.session.hello is None else self.session.hello.epoch

    def received(self, data: bytes | str) -> None:
        try:
            message = codec.decode_from_agent(data)
        except errors.InvalidRequest as error:
            self.refuse(error.code, error.message)
            return
        self.do(self.session.receive(message, _now()))

    def tick(self) -> None:
        self.do(self.session.tick(_now()))

    def got(self, message: Message) -> None:
        if isinstance(message, BulkHello):
            self.spawn(self._join(message))
        elif isinstance(message, Append):
            if self._joined:
                self._commit(message)
            else:
                self._early.append(message)

    @property
    def waiting(self) -> int:
        """Messages with output that wait for the store."""
        return len(self._early) + sum(map(len, self._streams.values()))

    async def _join(self, hello: BulkHello) -> None:
        await self._check(self.agent, hello)
        self._joined = True
        early, self._early = self._early, []
        for append in early:
            self._commit(append)

    def _commit(self, append: Append) -> None:
        """Hand records to the store at once: what waits there while one commit lasts shares the next."""
        key = stream_of(append)
        committing = asyncio.create_task(self._append(key, append))
        self._tasks.add(committing)
        committing.add_done_callback(self._committed)
        if key in self._streams:
            self._streams[key].append(committing)
        else:
            self._streams[key] = deque([committing])
            self.spawn(self._answer(key))

    def _committed(self, task: asyncio.Task[list[Effect]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever answers raises it; after the first of a stream nobody does

    async def _answer(self, key: StreamKey) -> None:
        queue = self._streams[key]
        while queue and not self.closed:
            self.do(await queue[0])
            queue.popleft()
        self._streams.pop(key, None)

    async def _append(self, key: StreamKey, append: Append) -> list[Effect]:
        try:
            next_seq = await self.services.output.append(
                key, append.incarnation, self.agent.cluster, append.first, append.count, append.lines
            )
        except (errors.ClaimLost, errors.InvalidRequest) as error:
            return self.session.refused(append, error.code, error.message)
        return self.session.appended(append, next_seq)


def _now() -> float:
    return asyncio.get_running_loop().time()
