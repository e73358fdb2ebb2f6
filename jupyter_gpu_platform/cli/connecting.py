"""How commands come to their platform. Help and completion need none, and come sooner without the HTTP library."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..client.sync import Client


def connect(*, start: bool = True) -> Client:
    """Return a client of the platform that is configured, or else of this machine's own.

    :param start: start this machine's platform when it doesn't run.
    :raises LocalPlatformError: it can't be started, or doesn't run and *start* is false.
    """
    from ..client import sync

    return sync.connect(start=start)
