"""The store's schema: made at once where a store is new, brought up to date by its revisions where it is older.

A new store is made from the tables themselves: Alembic, which takes a third of a second and 15 MB, is loaded only where
there is something to migrate. A test holds the two ways together.
"""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select

from ... import errors
from . import tables

MIGRATIONS = Path(__file__).with_name("migrations")
_PARTS = {"control": tables.control, "output": tables.output}
#: One at a time: Alembic keeps the running migration in a global, and SQLite's log can be begun by one alone.
migrating = threading.Lock()


def revisions() -> list[str]:
    """Return the schemas that this release knows, the oldest first: each revision's file begins with its number."""
    return sorted(path.name[1:5] for path in (MIGRATIONS / "versions").glob("r*.py"))


def known(connection: Connection, part: str) -> str | None:
    """Return the schema that a store has: none where it is empty.

    :raises StoreTooNew: this release doesn't know it.
    """
    version = _version(part)
    if not inspect(connection).has_table(version.name):
        return None
    have = connection.execute(select(version.c.version_num)).scalar()
    if have is not None and have not in revisions():
        raise errors.StoreTooNew(
            f"the store was written by a newer release (its schema: {have})",
            hint="Upgrade jupyter-gpu-platform, or choose another state directory.",
        )
    return have


def bring_up_to_date(connection: Connection, part: str) -> None:
    have, newest = known(connection, part), revisions()[-1]
    if have is None:
        _make(connection, part, newest)
    elif have != newest:
        migrate(connection, part, newest)


def _make(connection: Connection, part: str, newest: str) -> None:
    version = _version(part)
    version.create(connection, checkfirst=True)
    _PARTS[part].create_all(connection, checkfirst=False)
    connection.execute(insert(version).values(version_num=newest))


def migrate(connection: Connection, part: str, revision: str) -> None:
    """Apply the revisions up to this one, within the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection, "part": part})
    # A percent sign would be read as the start of a reference to another option.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, revision)


def _version(part: str) -> Table:
    """The table in which Alembic keeps a store's revision."""
    name = f"schema_version_{part}"
    key = PrimaryKeyConstraint("version_num", name=f"{name}_pkc")
    return Table(name, MetaData(), Column("version_num", String(32), nullable=False), key)
