"""Rows that a transaction has still to write, so that they leave together.

A group commit of a hundred submissions writes a handful of statements instead of a thousand. With SQLite each
statement gives the interpreter's lock away and has to win it back from the thread that serves HTTP: a few large ones
(``VALUES`` with many rows) cost a tenth of many small ones. With PostgreSQL new rows go by COPY, changed ones in a
pipeline: no round trip per row.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError

from . import tables

T = TypeVar("T")

#: Rows of one VALUES at most, far below SQLite's 32,766 parameters. A power of two, as are the smaller ones that end a
#: list: so few statements exist, and each stays compiled.
_ROWS = 128
#: What never changes in a job's row, so that an update leaves the indexes of it alone.
_FIXED = frozenset({"id", "organisation", "project", "owner", "name"})


class Pending:
    """New and changed rows of one transaction, in the order in which they were made."""

    def __init__(self) -> None:
        self.new: dict[Table, list[Mapping[str, Any]]] = {}
        #: changed rows that are known to exist (jobs), or that may (attempts), by their key
        self.changed: dict[Table, dict[Any, Mapping[str, Any]]] = {}

    def insert(self, table: Table, row: Mapping[str, Any]) -> None:
        self.new.setdefault(table, []).append(row)

    def put(self, table: Table, key: Any, row: Mapping[str, Any]) -> None:
        """Write the row, over the one with its key; of several with one key, the last."""
        self.changed.setdefault(table, {})[key] = row

    def __bool__(self) -> bool:
        return bool(self.new or self.changed)

    def write(self, connection: Connection) -> None:
        """Write all of them; none is left."""
        new, changed = self.new, self.changed
        self.new, self.changed = {}, {}
        # What was inserted may have been changed since, never the other way round.
        for table, rows in new.items():
            insert_rows(connection, table, rows)
        for table, by_key in changed.items():
            _upsert_rows(connection, table, list(by_key.values()))

    def clear(self) -> None:
        self.new, self.changed = {}, {}


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a list into pieces of *size* at most."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all have the same columns."""
    columns = tuple(rows[0])
    if connection.dialect.name == "postgresql":
        _copy(connection, table.name, columns, rows)
    else:
        _values(connection, table.name, columns, "", rows)


def _upsert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    columns, replacing = tuple(rows[0]), _replacing(table, tuple(rows[0]))
    if connection.dialect.name == "postgresql":
        statement = _statement(table.name, columns, replacing, 1).replace("?", "%s")
        connection.exec_driver_sql(statement, [tuple(row.values()) for row in rows])
    else:
        _values(connection, table.name, columns, replacing, rows)


def replace_row(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert a row, or replace the one that has its primary key."""
    columns = tuple(row)
    statement = _statement(table.name, columns, _replacing(table, columns), 1)
    if connection.dialect.name == "postgresql":
        statement = statement.replace("?", "%s")
    connection.exec_driver_sql(statement, tuple(row.values()))


def _copy(connection: Connection, table: str, columns: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> None:
    import psycopg

    driver: Any = connection.connection.driver_connection
    statement = f'COPY "{table}" ({", ".join(columns)}) FROM STDIN'
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(tuple(row.values()))
    except psycopg.Error as error:
        # As SQLAlchemy would raise it, had it known the statement.
        raise DBAPIError.instance(
            statement, None, error, psycopg.Error, hide_parameters=True, dialect=connection.dialect
        ) from error


def _values(
    connection: Connection, table: str, columns: tuple[str, ...], replacing: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    done, size = 0, _ROWS
    while done < len(rows):
        while size > len(rows) - done:
            size //= 2
        values = tuple(value for row in rows[done : done + size] for value in row.values())
        connection.exec_driver_sql(_statement(table, columns, replacing, size), values)
        done += size


@functools.cache
def _statement(table: str, columns: tuple[str, ...], replacing: str, rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f'INSERT INTO "{table}" ({", ".join(columns)}) VALUES {", ".join([row] * rows)}{replacing}'  # noqa: S608 -- names are our own


@functools.cache
def _replacing(table: Table, columns: tuple[str, ...]) -> str:
    keys = [column.name for column in table.primary_key]
    fixed = _FIXED if table is tables.job else frozenset(keys)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in fixed)
    return f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}"
