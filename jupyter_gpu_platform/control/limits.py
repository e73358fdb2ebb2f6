"""How much of everything one replica takes before it says *come back later*: 429 or 503 with Retry-After, never memory.

What was accepted is never given up for these limits: they are checked before a request is taken on.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from traitlets import Float, Int
from traitlets.config import Configurable

from .. import errors

MIB = 2**20


class Limits(Configurable):
    """Limits of one replica of the control service."""

    max_body_bytes = Int(
        16 * MIB,
        min=1024,
        help="Largest request body, bytes (default: 16777216). A larger one is refused with 413; memory of so much is "
        "taken per request. Uploads of values have a limit of their own, 8 GiB, and are never held in memory.",
    ).tag(config=True)
    max_header_bytes = Int(
        64 * 1024,
        min=4096,
        help="Largest header of a request, bytes (default: 65536). A connection that sends more is closed.",
    ).tag(config=True)
    max_connections = Int(
        10_000,
        min=10,
        help="Open HTTP connections, without those of agents (default: 10000). More are answered 503 with Retry-After "
        "and closed. Each costs a file handle: the service raises its own limit as far as the system lets it.",
    ).tag(config=True)
    max_buffered_bytes = Int(
        256 * MIB,
        min=MIB,
        help="Bytes of request bodies held at one time, all requests together (default: 268435456). A request beyond "
        "it is answered 429. Together with max_waiting_output_bytes this bounds the memory that callers can take.",
    ).tag(config=True)
    max_streams_per_user = Int(
        2000,
        min=1,
        help="Answers that stream to one user at one time: followed output and changes, downloads (default: 2000). "
        "More are answered 429.",
    ).tag(config=True)
    max_uploads = Int(
        64,
        min=1,
        help="Uploads of values at one time (default: 64). More are answered 429; each takes about 2 MiB of memory.",
    ).tag(config=True)
    max_waiting_writes = Int(
        10_000,
        min=1,
        help="Changes that wait for the store (default: 10000). Requests that would add more are answered 429.",
    ).tag(config=True)
    max_waiting_output_bytes = Int(
        256 * MIB,
        min=16 * MIB,
        help="Bytes of jobs' output that wait for the store (default: 268435456). Agents that send more are asked to "
        "send it again later; they and their runners keep it meanwhile.",
    ).tag(config=True)
    max_agent_sockets = Int(
        10_000,
        min=2,
        help="Open WebSockets of agents; each agent has two (default: 10000). More are answered 429.",
    ).tag(config=True)
    max_hellos = Int(
        2000,
        min=1,
        help="Agents that are being welcomed at one time (default: 2000). More are asked to come back in some seconds.",
    ).tag(config=True)
    idle_seconds = Float(
        120.0,
        min=1,
        help="Seconds for which a connection may send no request, or not all of a request's header (default: 120). "
        "Then it is closed.",
    ).tag(config=True)
    body_seconds = Float(
        60.0,
        min=1,
        help="Seconds within which a request's body must have come (default: 60). Else its connection is closed.",
    ).tag(config=True)
    upload_seconds = Float(
        3600.0,
        min=1,
        help="Seconds within which an upload of a value must have come (default: 3600). Else its connection is closed, "
        "and nothing of it is kept.",
    ).tag(config=True)
    send_seconds = Float(
        60.0,
        min=1,
        help="Seconds for which a peer may take nothing of what it is sent (default: 60). Then its connection is cut; "
        "who follows a stream goes on from its cursor.",
    ).tag(config=True)
    shutdown_seconds = Float(
        10.0,
        min=0,
        help="Seconds that calls in flight get to end when the service is asked to end (default: 10). Then they are "
        "cut off, and the exit code is 3.",
    ).tag(config=True)
    close_seconds = Float(
        15.0,
        min=0.1,
        help="Seconds that the service gets, after those for calls, to send the agents away, commit what waits and "
        "close the store (default: 15). Then it ends by force: the exit code is 4, and the log says what held it. "
        "Nothing acknowledged is lost. Give the service the sum of both before you kill it.",
    ).tag(config=True)


class Slots:
    """Places of which only so many are taken at one time, per key.

    :param what: names them in the refusal and in the figures.
    """

    def __init__(self, what: str, limit: int) -> None:
        self.what = what
        self.limit = limit
        #: all that are taken, over all keys
        self.used = 0
        #: how many were refused so far
        self.refused = 0
        self._by_key: Counter[str] = Counter()

    def take(self, key: str = "", amount: int = 1) -> None:
        """Take places; give them back with `free`.

        :raises TooManyRequests: not so many are left.
        """
        self.check(key, amount)
        self._by_key[key] += amount
        self.used += amount

    def check(self, key: str = "", amount: int = 1) -> None:
        """Refuse what could not be taken now.

        :raises TooManyRequests: not so many are left.
        """
        if self._by_key.get(key, 0) + amount > self.limit:
            self.refused += 1
            raise errors.TooManyRequests(
                f"too many {self.what} at one time: at most {self.limit}", hint="Try again in a moment."
            )

    def free(self, key: str = "", amount: int = 1) -> None:
        self.used -= amount
        self._by_key[key] -= amount
        if not self._by_key[key]:
            del self._by_key[key]

    @contextlib.contextmanager
    def taken(self, key: str = "") -> Iterator[None]:
        """Hold one place meanwhile."""
        self.take(key)
        try:
            yield
        finally:
            self.free(key)


class Admission:
    """All the slots of one replica."""

    def __init__(self, limits: Limits) -> None:
        self.bodies = Slots("bytes of request bodies", limits.max_buffered_bytes)
        self.streams = Slots("streams of one user", limits.max_streams_per_user)
        self.uploads = Slots("uploads", limits.max_uploads)
        self.agent_sockets = Slots("agents' connections", limits.max_agent_sockets)
        self.hellos = Slots("agents' hellos", limits.max_hellos)

    @property
    def all(self) -> dict[str, Slots]:
        return {
            "body_bytes": self.bodies,
            "streams": self.streams,
            "uploads": self.uploads,
            "agent_sockets": self.agent_sockets,
            "hellos": self.hellos,
        }
