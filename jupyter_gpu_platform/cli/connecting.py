"""How commands come to their platform. Help and completion need none, and come sooner without the HTTP library."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .. import errors
    from ..client.sync import Client

#: seconds without an answer after which that is said
SILENCE = 3.0
#: tries are less than so many seconds apart; where none came for longer, the service was back in between
BETWEEN_TRIES = 15.0


def connect(*, start: bool = True) -> Client:
    """Return a client of the platform that is configured, or else of this machine's own.

    :param start: start this machine's platform when it doesn't run.
    :raises LocalPlatformError: it can't be started, or doesn't run and *start* is false.
    """
    from ..client import sync

    client = sync.connect(start=start)
    client.on_pause = _Silence().tell
    return client


class _Silence:
    """Says on stderr that the service doesn't answer, once for each time that it is away."""

    def __init__(self) -> None:
        self._told_until = 0.0

    def tell(self, seconds: float, error: errors.GpuPlatformError) -> None:
        if seconds < SILENCE:
            return
        now = time.monotonic()
        if now > self._told_until:
            print(f"[{error.message}; trying again, and jobs go on meanwhile]", file=sys.stderr, flush=True)
        self._told_until = now + BETWEEN_TRIES
