"""A backup is taken while jobs run; what is restored from it is another store, and loses nothing that it knew."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.client import Client, connect, local
from jupyter_gpu_platform.model.jobs import Cell, Command, Job, JobSpec, Phase

from .conftest import AGENT, Place, eventually
from .test_kills import output_digest, submit_writer


def control(place: Place, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jupyter_gpu_platform.control", f"--state-dir={place.state}", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))


def done(outcome: subprocess.CompletedProcess[str]) -> str:
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


def stop(place: Place) -> None:
    local.stop()
    place.kill(*AGENT)


def texts(client: Client, job: Job) -> list[str]:
    return [record["text"] for record in client.follow(job.id) if record["type"] == "stream"]


def until_told(folder: Path, name: str) -> JobSpec:
    script = (
        'echo begun; touch "$0/begun-$1"; while [ ! -e "$0/go" ]; do sleep 0.05; done; echo ended; touch "$0/done-$1"'
    )
    return JobSpec(source=Command(argv=("sh", "-c", script, str(folder), name)))


class Sqlite:
    """Copies by the service's own commands."""

    options: tuple[str, ...] = ()
    restore: tuple[str, ...]

    def __init__(self, place: Place) -> None:
        self._place = place
        self.restore = (f"--restore={place.root / 'copy'}",)

    def copy(self) -> None:
        assert "3 jobs" in done(control(self._place, f"--backup={self._place.root / 'copy'}"))

    def put_back(self) -> None:
        told = done(control(self._place, *self.restore))
        assert "3 jobs" in told
        assert "replaced-" in told


class Postgres:
    """Copies as docs/operations-upkeep.md says."""

    restore = ("--restored",)

    def __init__(self, place: Place, url: str) -> None:
        self._place = place
        self._url = url.replace("+psycopg", "")
        self._copy = place.root / "copy"
        self.options = (f"--database-url={self._url}",)

    def copy(self) -> None:
        self._copy.mkdir()
        # Nothing is sealed yet and nobody has values, so there are no files to be copied.
        self._run("pg_dump", "--format=custom", f"--file={self._copy / 'control.dump'}", self._url)

    def put_back(self) -> None:
        self._run("pg_restore", "--clean", "--if-exists", f"--dbname={self._url}", str(self._copy / "control.dump"))
        assert "counts as a restored one" in done(control(self._place, *self.options, *self.restore))

    def _run(self, program: str, *arguments: str) -> None:
        import psycopg

        # Those of the server's own release.
        with psycopg.connect(self._url) as connection:
            (folder,) = connection.execute("SELECT setting FROM pg_config WHERE name = 'BINDIR'").fetchone() or ("",)
        subprocess.run([Path(folder, program), *arguments], check=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def copies(request: pytest.FixtureRequest) -> Iterator[Sqlite | Postgres]:
    # The database goes only after the platform, so it is asked for first.
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    place = request.getfixturevalue("place")
    yield Postgres(place, url) if url else Sqlite(place)
    stop(place)


def test_running_jobs_go_on_over_a_restore(copies: Sqlite | Postgres, place: Place) -> None:
    local.ensure(options=copies.options)
    with connect() as before:
        ended = before.submit(JobSpec(source=Command(argv=("echo", "kept"))))
        before.wait(ended.id)
        writer = submit_writer(before, place.root)
        eventually((place.root / "half").exists, "the job to be half-way")
        (place.root / "sub").mkdir()
        command = before.submit(until_told(place.root / "sub", "known"))
        eventually((place.root / "sub" / "begun-known").exists, "the command to run")
        incarnation, position = before.status().incarnation, before.jobs(limit=1).log_position
        copies.copy()

        # What comes now is lost with the store, or kept by the agent alone.
        lost = before.submit(until_told(place.root / "sub", "lost"))
        eventually((place.root / "sub" / "begun-lost").exists, "the job that is lost to run")
        again = before.retry(ended.id)
        assert before.wait(again.id).attempt == 2
        refused = control(place, *copies.options, *copies.restore)
        assert (refused.returncode, "another control service" in refused.stderr) == (1, True)
    stop(place)
    copies.put_back()
    assert "as it should be" in done(control(place, *copies.options, "--check"))

    local.ensure(options=copies.options)
    with connect() as after:
        assert after.status().incarnation != incarnation
        with pytest.raises(errors.Gone):
            list(after.changes(position))
        unknown = eventually(lambda: after.unknown_attempts("local"), "the lost job's attempt to be listed")
        assert [entry["job"] for entry in unknown] == [lost.id]
        assert texts(after, ended) == ["kept\n"]
        # The number of the attempt that was lost is not given again.
        assert after.wait(after.retry(ended.id).id).attempt > 1000
        fresh = after.submit(JobSpec(source=Command(argv=("true",))))
        assert after.wait(fresh.id).attempt == 1

        (place.root / "go").touch()
        (place.root / "sub" / "go").touch()
        assert output_digest(after, writer) == (place.root / "digest").read_text()
        assert "".join(texts(after, command)) == "begun\nended\n"
        assert [after.wait(job.id).attempt for job in (writer, command)] == [1, 1]
        eventually((place.root / "sub" / "done-lost").exists, "the lost job to come to its own end")


def test_values_and_sealed_output_are_in_a_backup_unless_their_job_is_deleted_meanwhile(place: Place) -> None:
    from jupyter_gpu_platform.control.store import Database, OutputLane

    with connect() as client:
        job = client.submit(JobSpec(source=Cell(code="x = 6 * 7\nprint(x)", out=("x",))))
        assert client.wait(job.id).phase is Phase.SUCCEEDED
        records = list(client.follow(job.id))
    stop(place)

    async def seal() -> None:
        database = Database.open(f"sqlite:///{place.state / 'control.db'}")
        lane = OutputLane(database, (place.state / "segments").as_uri())
        assert await lane.seal(job.id)
        await lane.close()
        database.close()

    import asyncio

    asyncio.run(seal())
    done(control(place, f"--backup={place.root / 'copy'}"))
    for name in ("segments", "objects"):
        assert len(list((place.root / "copy" / name).iterdir())) == 1, name
    not_empty = control(place, f"--backup={place.root / 'copy'}")
    assert (not_empty.returncode, "is not empty" in not_empty.stderr) == (1, True)
    shutil.rmtree(place.state)  # the disk was lost
    done(control(place, f"--restore={place.root / 'copy'}"))
    assert "as it should be" in done(control(place, "--check"))
    with connect() as restored:
        assert list(restored.follow(job.id)) == records
    stop(place)

    # A job that is deleted while it is copied: its rows are in the snapshot, its segment is gone when its turn comes.
    (segment,) = (place.state / "segments").iterdir()
    segment.unlink()
    made = done(control(place, f"--backup={place.root / 'second'}"))
    assert made.startswith("0 jobs")
    with contextlib.closing(sqlite3.connect(place.root / "second" / "output.db")) as output:
        assert output.execute("SELECT count(*) FROM output_job").fetchone() == (0,)


def test_what_is_no_whole_backup_is_refused(place: Place) -> None:
    place.root.joinpath("copy").mkdir()
    refused = control(place, f"--restore={place.root / 'copy'}")
    assert (refused.returncode, "no whole backup" in refused.stderr) == (1, True)
    missing = control(place, f"--backup={place.root / 'other'}")
    assert (missing.returncode, "there is no store" in missing.stderr) == (1, True)
    assert not (place.root / "other").exists()
