"""What the replicas of one store share besides its rows: a key by which they know each other."""

from __future__ import annotations

import secrets

from sqlalchemy import select

from . import tables
from .database import Database


def replica_key(database: Database) -> bytes:
    """Return the secret that only this store's replicas know; made by the first who asks."""
    with database.write() as connection:
        made = {"key": "replica_key", "value": secrets.token_hex(32)}
        connection.execute(tables.insert_missing(connection.dialect, tables.meta), made)
        query = select(tables.meta.c.value).where(tables.meta.c.key == "replica_key")
        return bytes.fromhex(connection.execute(query).scalar_one())
