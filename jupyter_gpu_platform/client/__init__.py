"""The HTTP client: `connect` finds the platform (and starts this machine's own), `Client` and `AsyncClient` talk to it.

Names are imported when first used: the HTTP library alone takes longer to import than all of ours.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .aio import AsyncClient, connect_async
    from .local import ensure, find, stop
    from .protocol import Change, Endpoint, Event, JobPage, OutputPage, Status
    from .sync import Client, connect

_HOMES = {
    "AsyncClient": "aio",
    "Change": "protocol",
    "Client": "sync",
    "Endpoint": "protocol",
    "Event": "protocol",
    "JobPage": "protocol",
    "OutputPage": "protocol",
    "Status": "protocol",
    "connect": "sync",
    "connect_async": "aio",
    "ensure": "local",
    "find": "local",
    "stop": "local",
}

__all__ = [
    "AsyncClient",
    "Change",
    "Client",
    "Endpoint",
    "Event",
    "JobPage",
    "OutputPage",
    "Status",
    "connect",
    "connect_async",
    "ensure",
    "find",
    "stop",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
