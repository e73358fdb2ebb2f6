"""``--check``: silent about a sound store, and right about each thing that was broken on purpose."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from jupyter_gpu_platform.control.checking import check
from jupyter_gpu_platform.control.store.database import Database
from jupyter_gpu_platform.model import lifecycle

from .conftest import Service, settings_at

BODY = b"a value"
BOTH = pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        f"sqlite:///{tmp_path / 'control.db'}"
        if getattr(request, "param", "sqlite") == "sqlite"
        else str(request.getfixturevalue("postgres_url"))
    )


def fill(service: Service) -> dict[str, str]:
    """Make one job of each kind."""
    digest = hashlib.sha256(BODY).hexdigest()
    with service.client() as client:
        client.put(f"/api/v1/objects/{digest}", content=BODY)
    cell = {"type": "cell", "code": "", "values": {"digest": digest, "size": len(BODY)}}
    jobs = {name: service.job(source=cell, labels={"k": "v"}) for name in ("queued", "running", "ended", "sealed")}
    for name in ("running", "ended", "sealed"):
        service.run(jobs[name])
        for first in (1, 3):
            records = [{"type": "stream", "name": "stdout", "text": f"{first + more}\n"} for more in (0, 1)]
            service.append(jobs[name], first, *records)
    for name in ("ended", "sealed"):
        service.end(jobs[name])
    assert service.call(service.services.output.seal(jobs["sealed"]))
    service.write(lambda tx: tx.put_job(lifecycle.cancel(tx.job(jobs["queued"]), None, now=1.0)[0]))  # type: ignore[arg-type]  # it is there
    return jobs


class Store:
    """A stopped store, filled, and what a check says of it."""

    def __init__(self, url: str, directory: Path, jobs: dict[str, str]) -> None:
        self.url = url
        self.directory = directory
        self.jobs = jobs

    def codes(self) -> set[str]:
        database = Database.inspect(self.url)
        try:
            places = [(self.directory / name).as_uri() for name in ("segments", "objects")]
            return {finding.code for finding in check(database, *places)}
        finally:
            database.close()

    def break_(self, work: Callable[[Connection], None], *, output: bool = False) -> None:
        database = Database.inspect(self.url)
        with database.write_output() if output else database.write() as connection:
            work(connection)
        database.close()

    def file(self, folder: str) -> Path:
        (path,) = (self.directory / folder).iterdir()
        return path


@pytest.fixture
def store(url: str, tmp_path: Path) -> Store:
    service = Service(settings_at(tmp_path, database_url=url))
    try:
        jobs = fill(service)
    finally:
        service.close()
    return Store(url, tmp_path, jobs)


#: what is done to the store with SQL, in which lane, and what the check calls it
BROKEN: dict[str, tuple[str, str]] = {
    "UPDATE job SET phase = 'failed' WHERE id = :running": ("control", "column_differs"),
    "UPDATE job SET payload = :junk WHERE id = :ended": ("control", "unreadable"),
    "UPDATE attempt SET payload = :junk WHERE job = :ended": ("control", "unreadable"),
    "UPDATE attempt SET cluster = 'x' WHERE job = :ended": ("control", "column_differs"),
    "DELETE FROM attempt WHERE job = :running": ("control", "attempt_missing"),
    "DELETE FROM job WHERE id = :running": ("control", "attempt_without_job"),
    "DELETE FROM job WHERE id = :queued": ("control", "change_missing"),
    "DELETE FROM change WHERE id = (SELECT max(id) FROM change WHERE object_id = :ended)": (
        "control",
        "change_missing",
    ),
    "INSERT INTO event (job, time, code, message) VALUES ('j-gone', 1, 'c', 'm')": ("control", "stray_row"),
    "INSERT INTO job_label (job, key, value) VALUES ('j-gone', 'k', 'v')": ("control", "stray_row"),
    "DELETE FROM cluster": ("control", "stray_row"),
    'DELETE FROM "object"': ("control", "object_missing"),
    'UPDATE "object" SET size = 1': ("control", "object_file"),
    "INSERT INTO meta (key, value) VALUES ('trimmed', '1')": ("control", "change_position"),
    "DELETE FROM output_chunk WHERE job = :ended AND last = 2": ("output", "output_not_dense"),
    "UPDATE output_chunk SET data = :junk WHERE job = :running AND last = 2": ("output", "chunk_unreadable"),
    "UPDATE output_job SET records = 9 WHERE job = :sealed": ("output", "output_not_dense"),
    "UPDATE output_stream SET next_seq = 9 WHERE job = :running": ("output", "output_not_dense"),
    "UPDATE output_job SET newest_attempt = 2 WHERE job = :running": ("output", "output_fence"),
    "DELETE FROM output_job WHERE job = :ended": ("output", "stray_output"),
    'UPDATE output_segment SET "index" = :junk': ("output", "segment_unreadable"),
    "UPDATE output_segment SET last = 9": ("output", "output_not_dense"),
}


@BOTH
def test_a_sound_store_has_nothing_wrong(store: Store) -> None:
    assert store.codes() == set()


@BOTH
def test_what_is_broken_is_found(store: Store) -> None:
    """Each is broken in a transaction that is undone afterwards, so that one store does for all."""
    for statement, (lane, code) in BROKEN.items():
        saved: dict[str, list[Any]] = {}
        tables_of = statement.split()[2 if statement.startswith(("DELETE", "INSERT")) else 1].strip('"')

        def save(connection: Connection, table: str = tables_of, saved: dict[str, list[Any]] = saved) -> None:
            saved[table] = [dict(row) for row in connection.execute(text(f'SELECT * FROM "{table}"')).mappings()]

        def damage(connection: Connection, statement: str = statement) -> None:
            names = {**store.jobs, "junk": b"\x00junk"}
            used = {name: value for name, value in names.items() if f":{name}" in statement}
            assert connection.execute(text(statement), used).rowcount >= 1

        def mend(connection: Connection, table: str = tables_of, saved: dict[str, list[Any]] = saved) -> None:
            connection.execute(text(f'DELETE FROM "{table}"'))
            if saved[table]:
                names = list(saved[table][0])
                columns = ", ".join(f'"{name}"' for name in names)
                values = ", ".join(f":{name}" for name in names)
                connection.execute(text(f'INSERT INTO "{table}" ({columns}) VALUES ({values})'), saved[table])

        for work in (save, damage):
            store.break_(work, output=lane == "output")
        assert code in store.codes(), statement
        store.break_(mend, output=lane == "output")
    assert store.codes() == set()


def test_an_open_attempt_that_is_not_the_newest_is_found(store: Store) -> None:
    """As a planner would leave it that places a job twice."""

    def place_twice(connection: Connection) -> None:
        query = text("SELECT payload FROM attempt WHERE job = :job")
        payload = bytes(connection.execute(query, {"job": store.jobs["running"]}).scalar_one())
        second = payload.replace(b'"number":1', b'"number":2')
        insert = text(
            "INSERT INTO attempt (job, number, organisation, project, owner, cluster, state, forgotten, "
            "payload_version, payload) SELECT job, 2, organisation, project, owner, cluster, state, forgotten, "
            "payload_version, :payload FROM attempt WHERE job = :job"
        )
        connection.execute(insert, {"job": store.jobs["running"], "payload": second})

    store.break_(place_twice)
    assert "attempt_not_newest" in store.codes()


def test_a_phase_that_its_attempt_does_not_bear_out_is_found(store: Store) -> None:
    def end(connection: Connection) -> None:
        query = text("SELECT payload FROM attempt WHERE job = :job")
        payload = bytes(connection.execute(query, {"job": store.jobs["running"]}).scalar_one())
        ended = payload.replace(b'"state":"running"', b'"state":"ended"')
        update = text("UPDATE attempt SET state = 'ended', payload = :payload WHERE job = :job")
        connection.execute(update, {"job": store.jobs["running"], "payload": ended})

    store.break_(end)
    assert store.codes() == {"phase_without_attempt"}


@BOTH
def test_ids_that_would_be_given_twice_are_found(store: Store) -> None:
    def forget(connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            connection.execute(text("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'change'"))
        else:
            connection.execute(text("SELECT setval('change_id_seq', 1)"))

    store.break_(forget)
    assert store.codes() == {"change_position"}


@pytest.mark.parametrize("how", ["gone", "cut", "changed"])
def test_a_segment_that_cannot_be_read_is_found(how: str, store: Store) -> None:
    path = store.file("segments")
    if how == "gone":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[:-3] if how == "cut" else data[:-6] + bytes(6))
    assert store.codes() == {"segment_unreadable"}


def test_an_object_without_its_file_is_found(store: Store) -> None:
    store.file("objects").unlink()
    assert store.codes() == {"object_file"}


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jupyter_gpu_platform.control", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_looks_at_a_running_store_and_changes_nothing(tmp_path: Path) -> None:
    missing = run("--check", f"--state-dir={tmp_path / 'none'}")
    assert (missing.returncode, "no directory" in missing.stderr) == (1, True)
    service = Service(settings_at(tmp_path))
    try:
        jobs = fill(service)
        sound = run("--check", f"--state-dir={tmp_path}")
        assert (sound.returncode, sound.stdout) == (0, "The store is as it should be.\n"), sound.stderr
        (tmp_path / "segments").joinpath(next((tmp_path / "segments").iterdir()).name).unlink()
        wrong = run("--check", f"--state-dir={tmp_path}")
        assert wrong.returncode == 2, wrong.stderr
        assert wrong.stdout.startswith(f"segment_unreadable: job {jobs['sealed']}: segment {jobs['sealed']}-4.segment")
        assert "put the store back from a backup" in wrong.stdout
        assert wrong.stdout.endswith("1 found to be wrong.\n")
    finally:
        service.close()


def test_a_damaged_file_is_found(tmp_path: Path) -> None:
    service = Service(settings_at(tmp_path))
    fill(service)
    service.close()
    path = tmp_path / "control.db"
    data = bytearray(path.read_bytes())
    data[8192:] = b"\x5a" * (len(data) - 8192)
    path.write_bytes(data)
    wrong = run("--check", f"--state-dir={tmp_path}")
    assert wrong.returncode != 0
    assert "file_damaged" in wrong.stdout or "can't be used" in wrong.stderr or "malformed" in wrong.stderr
