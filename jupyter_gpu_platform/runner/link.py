"""The supervisor's connection to its agent: it dials out, retries for ever, and loses nothing.

Three conversations, each in a thread: the claim, then at the end the report; a parked poll that brings what is wanted
of the job; and the posts of records. *Sent* and *durable* are two cursors: posts go out while earlier ones are still
unanswered, and whenever anything about the connection is odd, sending begins again from what is durable.
"""

from __future__ import annotations

import collections
import http.client
import json
import random
import socket
import threading
import time
from typing import Any, Callable

#: one post (bytes); a longer record goes alone
POST = 2**20
#: unanswered posts, at most
WINDOW = 8
#: seconds an answer may take; the agent parks requests for up to 25
PATIENCE = 60.0
#: seconds without progress after which unacknowledged records are sent again: the agent may have lost them
QUIET = 15.0

FAILURES = (OSError, http.client.HTTPException, ValueError)


class Again(Exception):
    """The agent, or the service behind it, can't take this now."""


class Backoff:
    """Jittered pauses that grow to two seconds, ended early by *closed*."""

    def __init__(self, closed: threading.Event) -> None:
        self._closed = closed
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def pause(self) -> None:
        ceiling = min(2.0, 0.05 * 2 ** min(self._failures, 10))
        self._failures += 1
        self._closed.wait(ceiling * random.uniform(0.5, 1.0))


class UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("agent", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Agent:
    """Where the agent is: at a Unix socket of this machine, or at an address of the cluster, over TLS.

    :param given: the attempt's ``spec.json``: ``socket``, or ``host``, ``port`` and ``ca`` (its certificate, PEM).
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self._socket = given.get("socket")
        #: Posts in flight on one connection. Two threads must not use one TLS connection at the same time, and within
        #: a cluster an answer comes soon.
        self.window = WINDOW if self._socket else 1
        if not self._socket:
            import ssl  # a job of this machine needs none

            self._address = str(given["host"]), int(given["port"])
            # The agent's own authority signs for agents alone, at whatever address one is just now.
            self._context = ssl.create_default_context(cadata=given["ca"])
            self._context.check_hostname = False

    def connection(self) -> http.client.HTTPConnection:
        if self._socket:
            return UnixConnection(self._socket)
        return http.client.HTTPSConnection(*self._address, timeout=PATIENCE, context=self._context)


class _Answers:
    """Lets one response after another be read from a socket: each would buffer, and then close, a file of its own."""

    def __init__(self, sock: socket.socket) -> None:
        self._file = sock.makefile("rb")

    def makefile(self, mode: str, *args: Any) -> _Answers:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        """Nothing: the next response is read from the same file."""

    def read_response(self) -> tuple[int, Any]:
        response = http.client.HTTPResponse(self, method="POST")  # type: ignore[arg-type]  # it needs makefile() alone
        response.begin()
        body = response.read()
        return response.status, json.loads(body.decode() or "{}")


class Link:
    """All that is said between one supervisor and its agent.

    What comes in is put into `events` as (kind, data), and *wake()* is called: ``claimed``, ``refused``, ``wanted``,
    ``inputs``, ``durable``, ``fenced``, ``reported``, ``away`` (nobody answers).

    :param path: ``/v1/attempts/JOB/ATTEMPT/REPLICA``.
    """

    def __init__(
        self, agent: Agent, token: str, path: str, incarnation: str, spool: Any, wake: Callable[[], None]
    ) -> None:
        self.events: collections.deque[tuple[str, Any]] = collections.deque()
        self.durable = 1
        self.agent = agent
        self.headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
        self.path = path
        self.incarnation = incarnation
        self._spool = spool
        self._wake = wake
        self.closed = threading.Event()
        self._stale = False
        #: where the agent told us to go on, if it did: before `durable` where the store is an older copy of itself
        self._resume: int | None = None

    def start(self, version: str) -> None:
        body = {"protocol": 1, "version": version, "capabilities": [], "incarnation": self.incarnation}
        self.thread(self._claim, body)
        self.thread(self._poll)

    def send_records(self) -> None:
        """Begin to send what the spool has: allowed once the claim is granted."""
        self.thread(self._post)

    def report(self, exit_code: int | None, reason: dict[str, Any] | None, last_seq: int) -> None:
        """Report the end; ``reported`` comes once the service has committed it."""
        body = {"incarnation": self.incarnation, "exit_code": exit_code, "reason": reason, "last_seq": last_seq}
        self.thread(self._report, body)

    def close(self) -> None:
        self.closed.set()
        self._spool.close()

    def thread(self, target: Callable[..., None], *args: Any) -> None:
        threading.Thread(target=target, args=args, name=target.__name__.strip("_"), daemon=True).start()

    def tell(self, kind: str, data: Any = None) -> None:
        self.events.append((kind, data))
        self._wake()

    def _ask(self, connection: http.client.HTTPConnection, method: str, tail: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, self.path + tail, body=data, headers=self.headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read().decode() or "{}")

    def _insist(self, tail: str, body: Any) -> tuple[int, Any]:
        """Post until the answer is a final one."""
        backoff = Backoff(self.closed)
        while not self.closed.is_set():
            connection = self.agent.connection()
            try:
                status, answer = self._ask(connection, "POST", tail, body)
                if status in (200, 409, 410):
                    return status, answer
            except FAILURES:
                self.tell("away")
            finally:
                connection.close()
            backoff.pause()
        return 0, {}

    def _claim(self, body: Any) -> None:
        status, answer = self._insist("/claim", body)
        if status == 200 and answer.get("granted"):
            self.tell("claimed", answer)
        elif status:
            self.tell("refused", answer)

    def _report(self, body: Any) -> None:
        if self._insist("/ended", body)[0]:
            self.tell("reported")

    # --- what is wanted

    def _poll(self) -> None:
        backoff = Backoff(self.closed)
        connection = self.agent.connection()
        generation = inputs = 0
        while not self.closed.is_set():
            known = (self.incarnation, generation, self.durable, inputs)
            tail = "/wanted?incarnation=%s&generation=%d&durable=%d&inputs=%d" % known
            try:
                status, answer = self._ask(connection, "GET", tail)
                if status == 410:
                    self.tell("fenced")
                    return
                if status != 200:
                    raise Again
                backoff.reset()
                self._advance(int(answer["durable"]))
                answers = answer.get("inputs")
                if answers:
                    inputs = max(inputs, *(int(given["request"]) for given in answers))
                    self.tell("inputs", answers)
                if answer["generation"] > generation:
                    generation = answer["generation"]
                    self.tell("wanted", answer)
            except (Again, KeyError, *FAILURES):
                self.tell("away")
                connection.close()
                self._restart()
                backoff.pause()

    def _advance(self, durable: int) -> None:
        if durable > self.durable:
            with self._spool.changed:
                self.durable = durable
            self._spool.trim(durable)
            self.tell("durable")

    def _restart(self) -> None:
        """The agent may be a new one that has lost what was in flight."""
        with self._spool.changed:
            self._stale = True
            self._spool.changed.notify_all()

    # --- records

    def _post(self) -> None:
        backoff = Backoff(self.closed)
        while not self.closed.is_set():
            posts = _Posts(self._spool)
            connection = self.agent.connection()
            self._stale = False
            begun = self.durable
            try:
                connection.connect()
                self.thread(self._read_answers, posts, _Answers(connection.sock))
                self._send(posts, connection.sock)
            except (Again, *FAILURES):
                self.tell("away")
            finally:
                posts.end()
                connection.close()
            if posts.fenced:
                self.tell("fenced")
                return
            if self.durable > begun or posts.answered:
                backoff.reset()
            backoff.pause()

    def _send(self, posts: _Posts, sock: socket.socket) -> None:
        resume, self._resume = self._resume, None
        sent = self.durable if resume is None else resume
        while True:
            sent = self._wait_for_work(posts, sent)
            count, data = self._spool.read(sent, POST)
            if not count:
                raise Again
            head = "POST %s/records?incarnation=%s&first=%d&count=%d HTTP/1.1\r\nHost: agent\r\n" % (
                self.path,
                self.incarnation,
                sent,
                count,
            )
            for name, value in self.headers.items():
                head += "%s: %s\r\n" % (name, value)
            posts.add()
            sock.sendall((head + "Content-Length: %d\r\n\r\n" % len(data)).encode() + data)
            sent += count

    def _wait_for_work(self, posts: _Posts, sent: int) -> int:
        """Wait until there is something to send and room for it; return where to go on."""
        spool = self._spool
        mark, since = self.durable, time.monotonic()
        with spool.changed:
            while True:
                if posts.broken or self._stale or spool.closed:
                    raise Again
                if self.durable != mark:
                    mark, since = self.durable, time.monotonic()
                if spool.next > sent and posts.unanswered < self.agent.window:
                    return sent
                if self.durable < sent and time.monotonic() - since > QUIET:
                    raise Again
                spool.changed.wait(QUIET)

    def _read_answers(self, posts: _Posts, answers: _Answers) -> None:
        try:
            while posts.wait():
                status, answer = answers.read_response()
                posts.take()
                if status == 410:
                    posts.fenced = True
                elif status == 409:
                    self._resume = int(answer["expected"])
                if status != 200:
                    raise Again
                self._advance(int(answer["durable"]))
        except (Again, KeyError, AttributeError, *FAILURES):
            pass  # the sender sees that the posts are broken, and begins again
        finally:
            posts.end()


class _Posts:
    """The posts in flight on one connection."""

    def __init__(self, spool: Any) -> None:
        self._changed = spool.changed
        self.unanswered = 0
        self.answered = 0
        self.broken = False
        self.fenced = False

    def add(self) -> None:
        with self._changed:
            self.unanswered += 1
            self._changed.notify_all()

    def take(self) -> None:
        with self._changed:
            self.unanswered -= 1
            self.answered += 1
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self.broken = True
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait for a post that will be answered; False when the connection is done with."""
        with self._changed:
            while not self.unanswered and not self.broken:
                self._changed.wait()
            return not self.broken
