"""Waking coroutines from the threads that commit, and, with PostgreSQL, from the commits of other replicas.

A signal is a hint and never data: who is woken reads the database from its own cursor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .database import Database

log = logging.getLogger(__name__)

CHANGE_CHANNEL = "jupyter_gpu_change"
OUTPUT_CHANNEL = "jupyter_gpu_output"

#: How often the listener looks into the database even if nobody called, seconds.
SAFETY_LOOK = 5.0
#: How often a replica whose connection doesn't hold the lock tries to take it, seconds.
FIRST_LOOK = 1.0
#: Key of that advisory lock.
FIRST_LOCK = 0x6A677033


class Signals:
    """Waiters by key. *Waiting* happens on event loops, *waking* on any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}

    @contextlib.contextmanager
    def subscribed(self, key: str) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever *key* is woken."""
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiters.setdefault(key, set()).add(waiter)
        try:
            yield waiter[1]
        finally:
            with self._lock:
                self._waiters[key].discard(waiter)
                if not self._waiters[key]:
                    del self._waiters[key]

    @property
    def waiters(self) -> int:
        """How many wait, for whichever key."""
        with self._lock:
            return sum(map(len, self._waiters.values()))

    def wake(self, key: str) -> None:
        with self._lock:
            waiters = list(self._waiters.get(key, ()))
        for loop, woken in waiters:
            # A loop that was closed meanwhile has nobody to wake.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(woken.set)

    def wake_all(self) -> None:
        with self._lock:
            keys = list(self._waiters)
        for key in keys:
            self.wake(key)


class Position:
    """The newest position of the change log that this process has heard of."""

    def __init__(self) -> None:
        self.newest = 0
        self._lock = threading.Lock()
        self._signals = Signals()

    def advance(self, position: int) -> None:
        with self._lock:
            if position <= self.newest:
                return
            self.newest = position
        self._signals.wake("")

    @property
    def waiters(self) -> int:
        return self._signals.waiters

    async def wait(self, after: int, timeout: float) -> bool:
        with self._signals.subscribed("") as woken, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.newest <= after:
                    await woken.wait()
                    woken.clear()
        return self.newest > after


class Listener:
    """A thread with a connection of its own that hears other replicas' commits (PostgreSQL's LISTEN).

    The connection also stands for this replica's life: one of the replicas' connections holds a lock, which PostgreSQL
    gives to another as soon as that connection ends, by a kill for instance. So a standby planner need not wait until
    the lease of one that died has run out. It is a hint like the rest: what fences is the lease's epoch.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = threading.Thread(target=self._run, name="store-listener", daemon=True)
        self._wake_read, self._wake_write = os.pipe()
        #: this replica's connection holds the lock
        self.first = False
        #: how often the connection was made
        self.connections = 0
        self._closing = False

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        os.write(self._wake_write, b".")
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        import psycopg

        while not self._closing:
            try:
                self._listen(psycopg)
            except psycopg.Error as error:
                log.warning("the listening connection to the store was lost: %s", str(error).strip())
            finally:
                self.first = False
            # A closed listener is woken by its pipe; another one tries again soon.
            select.select([self._wake_read], [], [], 1.0)

    def _listen(self, psycopg: Any) -> None:
        url = self._database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True, application_name="jupyter-gpu-listener") as connection:
            connection.execute(f"LISTEN {CHANGE_CHANNEL}")
            connection.execute(f"LISTEN {OUTPUT_CHANNEL}")
            # What was committed before this connection listened was announced to nobody here.
            self._look(connection)
            self._database.outputs.wake_all()
            self.connections += 1
            tried, looked = -FIRST_LOOK, time.monotonic()
            while not self._closing:
                patience = SAFETY_LOOK if self.first else FIRST_LOOK
                ready, _, _ = select.select([connection.fileno(), self._wake_read], [], [], patience)
                now = time.monotonic()
                if not self.first and now - tried >= FIRST_LOOK:
                    tried = now
                    self.first = connection.execute(f"SELECT pg_try_advisory_lock({FIRST_LOCK})").fetchone()[0]
                if not ready and now - looked >= SAFETY_LOOK:
                    looked = now
                    self._look(connection)
                for note in connection.notifies(timeout=0):
                    self._heard(note.channel, note.payload)

    def _heard(self, channel: str, payload: str) -> None:
        if channel == CHANGE_CHANNEL:
            self._database.changes.advance(int(payload))
        else:
            self._database.outputs.wake(payload)

    def _look(self, connection: Any) -> None:
        query = (
            "SELECT greatest((SELECT max(id) FROM change), (SELECT value::bigint FROM meta WHERE key = 'trimmed'), 0)"
        )
        self._database.changes.advance(connection.execute(query).fetchone()[0])
