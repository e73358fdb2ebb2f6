"""The one way to change the main store: operations, committed in groups."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from .database import Database
from .transaction import Transaction

T = TypeVar("T")


class Writer:
    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        raise NotImplementedError

    async def run(self, operation: Callable[[Transaction], T]) -> T:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
