"""Waking those who follow the change log."""

from __future__ import annotations

from .database import Database


class ChangeFeed:
    """Says when there is something new to read; the rows themselves come from `Reader.changes`.

    With SQLite the writer in this process wakes the waiters. With PostgreSQL every replica's commits are heard by
    the database's listening connection, which looks for itself every few seconds in case a call was lost.
    """

    def __init__(self, database: Database) -> None:
        self._changes = database.changes

    async def wait(self, after: int, timeout: float) -> bool:
        """Return True as soon as a change newer than *after* exists, False after *timeout* seconds."""
        return await self._changes.wait(after, timeout)
