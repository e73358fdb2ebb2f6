"""What each release has stored is migrated and read by this one, on both databases (samples: `make_samples`)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy
from sqlalchemy import Engine, create_engine, insert, make_url

from jupyter_gpu_platform.control.checking import check
from jupyter_gpu_platform.control.store import Database, JobFilter, OutputLane, Reader, Writer, aging, schema
from jupyter_gpu_platform.model import lifecycle
from jupyter_gpu_platform.model.jobs import AttemptState, Job

SAMPLES = sorted(Path(__file__).with_name("samples").glob("store-*.json"))
LINES = [f'{{"seq":{n},"time":1.5,"type":"stream","name":"stdout","text":"line {n}\\n"}}\n'.encode() for n in (1, 2, 3)]

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/control.db"
    return str(request.getfixturevalue("postgres_url"))


def loaded(value: Any) -> Any:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


def put(engine: Engine, part: str, sample: dict[str, Any]) -> None:
    """Make the tables as that release made them, and fill them."""
    with engine.connect() as connection, connection.begin():
        schema.migrate(connection, part, sample["schema"])
        for name, rows in sample[part].items():
            if rows:
                table = sqlalchemy.table(name, *(sqlalchemy.column(column) for column in rows[0]))
                connection.execute(insert(table), [{key: loaded(row[key]) for key in row} for row in rows])
        if engine.dialect.name == "postgresql" and part == "control":
            for name in ("change", "event"):
                connection.exec_driver_sql(f"SELECT setval('{name}_id_seq', (SELECT max(id) FROM {name}))")


def make(url: str, directory: Path, sample: dict[str, Any]) -> None:
    parsed = make_url(url)
    for part in ("control", "output"):
        path = directory / f"{part}.db"
        engine = create_engine(f"sqlite:///{path}") if parsed.get_backend_name() == "sqlite" else create_engine(parsed)
        put(engine, part, sample)
        engine.dispose()
    (directory / "segments").mkdir()
    for name, content in sample["segments"].items():
        (directory / "segments" / name).write_bytes(loaded(content))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
async def test_a_populated_older_store_is_read_and_goes_on(sample: Path, url: str, tmp_path: Path) -> None:
    content = json.loads(sample.read_text())  # noqa: ASYNC240 -- nothing else runs in this loop
    make(url, tmp_path, content)
    database = Database.open(url)
    writer, reader, lane = Writer(database), Reader(database), OutputLane(database, str(tmp_path / "segments"))
    try:
        jobs = {job.spec.name: job for job in (await reader.jobs(JobFilter())).items}
        for row in content["control"]["job"]:
            kept = json.loads(loaded(row["payload"]))
            now = json.loads(msgspec.json.encode(jobs[kept["spec"]["name"]]))
            assert within(kept, now)
        phases = {name: str(job.phase) for name, job in jobs.items()}
        assert phases == {
            "queued": "queued",
            "starting": "starting",
            "running": "running",
            "succeeded": "succeeded",
            "sealed": "succeeded",
            "cancelled": "cancelled",
        }
        for name in ("running", "succeeded", "sealed"):
            assert [record[3] for record in (await lane.read(jobs[name].id)).records] == LINES
            (attempt,) = await reader.attempts(jobs[name].id)
            assert (attempt.incarnation, attempt.gpus) == ("boot-1-1", ("GPU-1",))
        incarnation = {row["key"]: row["value"] for row in content["control"]["meta"]}["incarnation"]
        assert database.incarnation == incarnation  # it is the same store
        assert [cluster.name for cluster in await reader.clusters()] == ["lab"]
        assert [token.user for token in await reader.tokens()] == ["ada"]
        assert [row.job for row in await reader.unknown()] == ["junknown"]
        # The log goes on where it was: nobody who follows it has to list again.
        ids = [change.id for change in (await reader.changes(0)).items]
        assert ids == [row["id"] for row in content["control"]["change"]]
        # What came with later schemas is there, for the old rows too.
        ended = await reader.run(lambda tx: aging.ended(tx, 1e12, 10))
        assert {row.id for row in ended} == {jobs[name].id for name in ("succeeded", "sealed", "cancelled")}
        await go_on(writer, jobs)
        position = await reader.position()
        assert position > max(ids)
    finally:
        await writer.close()
        await reader.close()
        await lane.close()
        database.close()
    inspected = Database.inspect(url)
    assert check(inspected, str(tmp_path / "segments"), str(tmp_path / "objects")) == []
    inspected.close()


async def go_on(writer: Writer, jobs: dict[str, Job]) -> None:
    """Do with the old rows what comes next in their lives."""

    def operation(tx: Any) -> None:
        job, attempt = tx.job(jobs["starting"].id), tx.attempt(jobs["starting"].id, 1)
        claimed = lifecycle.claim(job, attempt, cluster="lab", incarnation="boot-1-2", now=9.0)
        assert claimed.granted
        tx.put_job(claimed.job)
        tx.put_attempt(claimed.attempt)
        job, attempt = tx.job(jobs["running"].id), tx.attempt(jobs["running"].id, 1)
        report = lifecycle.Report(job=job.id, attempt=1, incarnation="boot-1-1", exit_code=0)
        ended = lifecycle.end(job, attempt, report, cluster="lab", now=9.0)
        assert ended.attempt.state is AttemptState.ENDED
        tx.put_job(ended.job)
        tx.put_attempt(ended.attempt)

    await writer.run(operation)


def within(kept: Any, now: Any) -> bool:
    """Say whether everything that was kept is there still; fields may have come since."""
    if isinstance(kept, dict):
        return isinstance(now, dict) and all(key in now and within(kept[key], now[key]) for key in kept)
    return bool(kept == now)
