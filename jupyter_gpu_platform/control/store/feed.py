"""Waking those who follow the change log."""

from __future__ import annotations

from .database import Database


class ChangeFeed:
    def __init__(self, database: Database) -> None:
        raise NotImplementedError

    async def wait(self, after: int, timeout: float) -> bool:
        """Return True as soon as a change newer than *after* exists, False after *timeout* seconds."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
