"""Which service the SDK talks to: the one that is configured, until `connect` names another.

``with connect(url, token):`` holds for the block, and for the tasks and copied contexts begun in it; ``.use()`` holds
for this process from then on. Threads that a program starts itself begin without a context: in them the process's own
choice holds.
"""

from __future__ import annotations

import contextvars
import os
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from .protocol import Status
    from .sync import Client


class Connection:
    """A control service, as `connect` found it.

    :param url: several replicas have commas between them; the configured service when absent.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, start: bool = True) -> None:
        self._url, self._token, self._start = url, token, start
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._status: Status | None = None
        self._pid = 0
        #: digests of objects that are there
        self.uploaded: set[str] = set()

    def client(self) -> Client:
        """Return the connection's client, found when it is first asked for and again after a fork.

        :raises LocalPlatformError: this machine's platform can't be started.
        """
        # Imported here: the HTTP library takes long, and decorating a function needs none.
        from . import sync

        with self._lock:
            if self._client is None or self._pid != os.getpid():
                self._client = sync.connect(self._url, self._token, self._start)
                self._pid = os.getpid()
            return self._client

    def close(self) -> None:
        """Let go of what is held of the service; whoever uses the connection again finds it again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    @property
    def status(self) -> Status:
        """Who answers, and as whom it knows the caller; asked once.

        :raises Unauthenticated: the token is not known there.
        :raises Unavailable: nobody answers.
        """
        if self._status is None:
            self._status = self.client().status()
        return self._status

    def use(self) -> Self:
        """Make this the service that all of this process talks to, wherever no ``with`` says otherwise."""
        global _ours
        _ours = self
        return self

    def __enter__(self) -> Self:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _entered.set(_entered.get()[:-1])

    def __repr__(self) -> str:
        status = self.status
        return f"<Connection to {self.client().url} as {status.user}>"


_entered: contextvars.ContextVar[tuple[Connection, ...]] = contextvars.ContextVar("jupyter_gpu_connections", default=())
_ours = Connection()


def connect(url: str | None = None, token: str | None = None, *, start: bool = True) -> Connection:
    """Connect to a control service.

    ``with connect(url, token):`` makes it the current one in the block, ``connect(url, token).use()`` for the
    process; jobs made meanwhile stay with it. Nothing needs to connect that wants the configured service.

    :param url: like ``https://gpu.example.org``; without it ``JUPYTER_GPU_URL``, or else this machine's own platform.
    :param token: without it ``JUPYTER_GPU_TOKEN``.
    :param start: start this machine's platform where it is meant and doesn't run.
    :raises Unauthenticated: there is no token, or it is not known there.
    :raises LocalPlatformError: this machine's platform can't be started, or doesn't run and *start* is false.
    :raises Unavailable: nobody answers for 30 seconds.
    """
    made = Connection(url, token, start=start)
    _ = made.status
    return made


def current() -> Connection:
    """Return the connection that holds here."""
    entered = _entered.get()
    return entered[-1] if entered else _ours
