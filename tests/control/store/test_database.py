"""Opening a store: made from nothing, found again, refused where it can't be used."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, create_engine, inspect, make_url, text

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.control.store import Database, JobFilter, OutputLane, Reader, Writer, schema, tables
from jupyter_gpu_platform.control.store.database import filesystem_type, refuse_shared_filesystem
from jupyter_gpu_platform.model.jobs import Job
from jupyter_gpu_platform.model.records import StreamKey

pytestmark = pytest.mark.anyio


def test_the_migrations_make_the_tables_of_the_program(database_url: str) -> None:
    url = make_url(database_url)
    for metadata, part in ((tables.control, "control"), (tables.output, "output")):
        mine = {*metadata.tables, f"schema_version_{part}"}
        options = {
            "version_table": f"schema_version_{part}",
            "compare_type": True,
            "include_name": lambda name, kind, _parents, mine=mine: (
                name in mine if kind == "table" else name not in SQL
            ),
        }
        engine = create_engine(url.set(drivername="postgresql+psycopg") if url.get_backend_name() != "sqlite" else url)
        with engine.begin() as connection:
            schema.migrate(connection, part, schema.revisions()[-1])
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, metadata) == []
            migrated = described(connection)
            drop_all(connection)
            schema.bring_up_to_date(connection, part)
            assert described(connection) == migrated
            drop_all(connection)
        engine.dispose()


#: indexes that the tables say in SQL
SQL = {"job_by_end"}


def drop_all(connection: Connection) -> None:
    found = MetaData()
    found.reflect(connection)
    found.drop_all(connection)


def described(connection: Connection) -> dict[str, Any]:
    """Say what the database itself knows of its tables."""
    found: dict[str, Any] = {}
    inspector = inspect(connection)
    for name in inspector.get_table_names():
        columns = {column["name"]: {**column, "type": str(column["type"])} for column in inspector.get_columns(name)}
        indexes = {}
        for index in inspector.get_indexes(name):
            options = {option: str(value) for option, value in index.get("dialect_options", {}).items()}
            indexes[index["name"]] = {**index, "dialect_options": options}
        found[name] = (columns, indexes, inspector.get_pk_constraint(name), inspector.get_unique_constraints(name))
    if connection.dialect.name == "sqlite":
        declared = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'"
    else:
        declared = "SELECT attrelid::regclass || '.' || attname FROM pg_attribute WHERE attstorage = 'e' AND attnum > 0"
    return found | {"declared": sorted(connection.exec_driver_sql(declared).scalars())}


def test_the_revisions_are_those_that_alembic_finds() -> None:
    found = ScriptDirectory(str(schema.MIGRATIONS))
    assert sorted(script.revision for script in found.walk_revisions()) == schema.revisions()
    assert found.get_heads() == schema.revisions()[-1:]


async def test_a_reopened_store_has_everything(database_url: str, tmp_path: Path, make_job: Callable[..., Job]) -> None:
    job = make_job()
    first = Database.open(database_url)
    writer, lane = Writer(first), OutputLane(first, str(tmp_path / "segments"))
    await writer.run(lambda transaction: transaction.insert_job(job))
    key = StreamKey(job.id, 1)
    await lane.open_stream(key, "i", "c", 1000)
    await lane.append(key, "i", "c", 1, 1, b'{"seq":1}\n')
    position = first.changes.newest
    await writer.close()
    await lane.close()
    first.close()

    second = Database.open(database_url)
    reader, lane = Reader(second), OutputLane(second, str(tmp_path / "segments"))
    assert second.incarnation == first.incarnation != ""
    assert (await reader.jobs(JobFilter())).items == [job]
    assert second.changes.newest == position == await reader.position()
    assert (await lane.read(job.id)).records == [(1, 1, 0, b'{"seq":1}\n')]
    await reader.close()
    await lane.close()
    second.close()


def test_each_store_has_an_incarnation_of_its_own(tmp_path: Path) -> None:
    seen = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        database = Database.open(f"sqlite:///{tmp_path / name}/control.db")
        seen.add(database.incarnation)
        database.close()
    assert len(seen) == 2


def test_two_starters_of_one_store_make_one(database_url: str) -> None:
    opened: list[Database] = []
    threads = [threading.Thread(target=lambda: opened.append(Database.open(database_url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({database.incarnation for database in opened}) == 1
    for database in opened:
        database.close()
    assert len(opened) == 4


@pytest.mark.parametrize("part", ["control", "output"])
def test_a_newer_store_is_refused(database_url: str, part: str) -> None:
    database = Database.open(database_url)
    with database.write() if part == "control" else database.write_output() as connection:
        connection.execute(text(f"UPDATE schema_version_{part} SET version_num = '9999'"))
    database.close()
    with pytest.raises(errors.StoreTooNew, match="9999"):
        Database.open(database_url)


def test_sqlite_is_set_up_to_lose_nothing(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/control.db")
    for write in (database.write, database.write_output):
        with write() as connection:
            found = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
            assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10000}
    database.close()


@pytest.mark.parametrize("kind", [0x6969, 0xFF534D42, -0xACB2BE])
def test_shared_file_systems_are_refused(kind: int) -> None:
    with pytest.raises(errors.LocalPlatformError) as raised:
        refuse_shared_filesystem(kind, Path("/home/ada"))
    assert "JUPYTER_GPU_STATE_DIR" in raised.value.hint


def test_local_file_systems_are_taken(tmp_path: Path) -> None:
    ext4, tmpfs, overlay = 0xEF53, 0x01021994, 0x794C7630
    for kind in (ext4, tmpfs, overlay, filesystem_type(tmp_path)):
        refuse_shared_filesystem(kind, tmp_path)
    assert filesystem_type(Path("/proc")) == 0x9FA0


@pytest.mark.parametrize("url", ["", "no url", "mysql://there/store", "sqlite://"])
def test_a_url_that_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        Database.open(url)


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(errors.LocalPlatformError, match="nowhere"):
        Database.open(f"sqlite:///{tmp_path}/nowhere/control.db")


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="pip install 'jupyter-gpu-platform[postgres]'")
    with pytest.raises(errors.Unavailable):
        Database.open(f"postgresql://ada@/store?host={tmp_path}")


async def test_a_full_disk_is_said_and_survived(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/control.db")
    writer = Writer(database)
    with database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    # SQLite's own limit gives the very error of a full disk. The pool hands this connection out again.
    with database.write() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    big = make_job(name="x" * 200, env={"BIG": "x" * 500_000})
    with pytest.raises(errors.StorageFull):
        await writer.run(lambda transaction: transaction.insert_job(big))
    with database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    await writer.run(lambda transaction: transaction.insert_job(big))
    await writer.close()
    database.close()


def test_a_new_store_loads_neither_alembic_nor_the_other_database(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from jupyter_gpu_platform.control.store import Database\n"
        f"Database.open('sqlite:///{tmp_path}/control.db').close()\n"
        "assert not {'psycopg', 'alembic', 'sqlalchemy.dialects.postgresql'} & {*sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ)


def test_a_postgresql_that_vanished_is_noticed_in_time(postgres_url: str) -> None:
    url = make_url(postgres_url).update_query_dict({"connect_timeout": "7"})
    opened = Database.open(url.render_as_string(hide_password=False))
    try:
        with opened.read() as connection:
            driver: Any = connection.connection.driver_connection
            said = driver.info.get_parameters()
    finally:
        opened.close()
    assert (said["tcp_user_timeout"], said["keepalives_idle"]) == ("30000", "10")
    assert said["connect_timeout"] == "7"  # the admin's own word
