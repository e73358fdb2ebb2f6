"""What ages out, what stays, and that who read something older is told to list again."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.client import AsyncClient, Client
from jupyter_gpu_platform.control.retention import JOBS, Retention
from jupyter_gpu_platform.control.store import aging, tables
from jupyter_gpu_platform.control.store.transaction import Transaction
from jupyter_gpu_platform.model import lifecycle
from jupyter_gpu_platform.model.jobs import Job

from .conftest import COMMAND, TOKENS, Service, settings_at

DAY = 86_400.0
#: the time of these tests
NOW = 1_000 * DAY


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


BOTH = pytest.mark.parametrize("start", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Service]]:
    """Starts a service with a policy."""
    postgres = getattr(request, "param", "sqlite") == "postgres"
    more = {"database_url": request.getfixturevalue("postgres_url")} if postgres else {}
    started: list[Service] = []

    def begin(**policy: Any) -> Service:
        off = {"days": 0.0, "jobs": 0, "output_bytes": 0, "object_bytes": 0, "change_hours": 0.0, "changes": 0}
        retention = Retention(**(off | policy))
        started.append(Service(settings_at(tmp_path, now=clock, retention=retention, **more)))
        return started[-1]

    yield begin
    for service in started:
        service.close()


def keep(service: Service) -> None:
    # A pass rests after each step, so where the machine is busy it takes its time.
    asyncio.run_coroutine_threadsafe(service.server.keeper.run_once(), service._loop).result(100)


def ended(service: Service, *texts: str, days_ago: float = 0.0, **spec: Any) -> str:
    """Make a job that wrote *texts*, and ended so long ago."""
    job_id = service.job(**spec)
    if texts:
        service.run(job_id)
        service.append(job_id, 1, *({"type": "stream", "name": "stdout", "text": text} for text in texts))
        service.end(job_id)
    else:
        service.write(lambda tx: tx.put_job(lifecycle.cancel(known(tx, job_id), None, now=NOW)[0]))
    service.write(lambda tx: put_end(tx, job_id, NOW - days_ago * DAY))
    return job_id


def known(tx: Transaction, job_id: str) -> Job:
    job = tx.job(job_id)
    assert job is not None
    return job


def put_end(tx: Transaction, job_id: str, time: float) -> None:
    tx.put_job(replace(known(tx, job_id), ended=time))


def kept(service: Service) -> set[str]:
    with service.client("admin") as client:
        return {job["id"] for job in client.get("/api/v1/jobs", params={"limit": 1000}).json()["items"]}


def rows(service: Service, job_id: str) -> dict[str, int]:
    """Count what the store has of a job, in every table that names jobs."""
    found = {}

    def count(connection: Any, metadata: Any) -> None:
        for table in metadata.tables.values():
            column = table.c.get("job", table.c.id if table.name == "job" else None)
            if column is not None:
                found[table.name] = len(connection.execute(table.select().where(column == job_id)).all())

    service.call(service.services.reader.run(lambda tx: count(tx.connection, tables.control)))
    service.call(service.services.output.look(lambda connection: count(connection, tables.output)))
    return {name: number for name, number in found.items() if number}


def removed(service: Service, what: str) -> float:
    return service.services.metrics.registry.get_sample_value("jgp_retention_removed_total", {"what": what}) or 0.0


@BOTH
def test_old_jobs_go_with_all_that_is_theirs(start: Callable[..., Service], tmp_path: Path) -> None:
    service = start(days=30.0)
    old, sealed = ended(service, "a\n", days_ago=31, labels={"k": "v"}), ended(service, "b\n", days_ago=40)
    young, tried_again = ended(service, "c\n", days_ago=29), ended(service, "d\n", days_ago=35)
    assert service.call(service.services.output.seal(sealed))
    service.write(lambda tx: tx.put_job(lifecycle.retry(known(tx, tried_again), now=NOW)))
    # Its agent has not let go of it yet: the attempt stays until it has.
    held = rows(service, sealed)["attempt"]
    keep(service)
    assert kept(service) == {young, tried_again}
    assert rows(service, old) == {"attempt": held}
    assert rows(service, sealed) == {"attempt": held}
    assert [path for path in (tmp_path / "segments").rglob("*") if path.is_file()] == []
    assert (removed(service, "jobs"), removed(service, "output_bytes") > 0) == (2.0, True)
    with service.client() as client:
        assert client.get(f"/api/v1/jobs/{young}/output").text.count('"text":"c\\n"') == 1
        assert client.get(f"/api/v1/jobs/{old}/output").status_code == 404


def test_without_limits_everything_stays(start: Callable[..., Service]) -> None:
    service = start()
    jobs = {ended(service, "a\n", days_ago=days) for days in (1, 100, 900)}
    keep(service)
    assert kept(service) == jobs


def test_beyond_a_number_those_go_that_ended_first_but_none_of_a_moment_ago(start: Callable[..., Service]) -> None:
    service = start(jobs=2)
    last = [ended(service, days_ago=days) for days in (5, 4, 3)]
    moment = ended(service, days_ago=300 / DAY)
    running = service.job()
    keep(service)
    assert kept(service) == {last[2], moment, running}


@BOTH
def test_beyond_so_much_output_those_with_output_go(start: Callable[..., Service]) -> None:
    service = start(output_bytes=5000)
    silent = ended(service, days_ago=9)
    big = [ended(service, "x" * 2000, days_ago=days) for days in (8, 7, 6, 5)]
    keep(service)
    assert kept(service) == {silent, *big[2:]}


@BOTH
def test_beyond_so_many_bytes_of_values_the_jobs_that_hold_them_go(
    start: Callable[..., Service], clock: Clock, tmp_path: Path
) -> None:
    service = start(object_bytes=2500)

    def holding(letter: bytes, days_ago: float) -> str:
        digest = hashlib.sha256(letter * 1000).hexdigest()
        with service.client() as client:
            assert client.put(f"/api/v1/objects/{digest}", content=letter * 1000).status_code in (200, 201)
        ref = {"digest": digest, "size": 1000}
        return ended(service, days_ago=days_ago, source={"type": "cell", "code": "", "values": ref})

    plain = ended(service, days_ago=50)
    first, second, third = (holding(*each) for each in ((b"a", 9), (b"b", 8), (b"c", 7)))
    sharing = holding(b"c", 0.0)
    files = tmp_path / "objects"
    assert len(list(files.iterdir())) == 3
    # All that ended long enough ago may go in one step: it is the smallest there is.
    keep(service)
    assert kept(service) == {plain, sharing}
    assert not {first, second, third} & kept(service)
    clock.now += 2 * DAY
    keep(service)
    assert len(list(files.iterdir())) == 1  # what another job holds stays


@BOTH
def test_output_whose_job_is_gone_goes(start: Callable[..., Service]) -> None:
    service = start()
    stays, lost = ended(service, "a\n"), ended(service, "b\n")
    # As if the service had been killed between the two.
    service.write(lambda tx: tx.delete_jobs([lost]))
    assert rows(service, lost)["output_job"] == 1
    keep(service)
    assert "output_job" not in rows(service, lost)
    assert rows(service, stays)["output_chunk"] == 1
    assert removed(service, "lost_output") == 1.0


@BOTH
def test_answers_are_remembered_for_a_day(start: Callable[..., Service], clock: Clock) -> None:
    service = start()
    with service.client() as client:

        def submit(key: str) -> str:
            return str(client.post("/api/v1/jobs", json=COMMAND, headers={"Idempotency-Key": key}).json()["id"])

        first = submit("k")
        clock.now += DAY - 1
        keep(service)
        assert submit("k") == first
        clock.now += 2
        keep(service)
        assert submit("k") != first


@BOTH
@pytest.mark.parametrize("policy", [{"change_hours": 24.0}, {"changes": 5}], ids=["hours", "number"])
def test_the_change_log_is_trimmed_and_who_is_behind_lists_again(
    policy: dict[str, Any], start: Callable[..., Service], clock: Clock
) -> None:
    service = start(**policy)
    for _ in range(10):
        service.job()
    clock.now += 2 * DAY
    for _ in range(5):
        service.job()
    keep(service)
    with Client(service.url, TOKENS["admin"]) as client:
        with pytest.raises(errors.Gone, match="begins after"):
            list(client.changes(0))
        page = client.jobs(limit=100)
        assert len(page.items) == 15
        # What is kept is read on without a hole.
        ids = [change.id for change in client.changes(page.log_position - 3)]
        assert ids[:3] == list(range(page.log_position - 2, page.log_position + 1))


def test_a_reader_that_must_not_miss_a_row_holds_trimming_back(start: Callable[..., Service]) -> None:
    service = start(changes=1)
    for _ in range(6):
        service.job()
    held = service.call(service.services.reader.position()) - 4
    service.write(lambda tx: tx.hold_changes("audit", held))
    keep(service)
    assert service.call(service.services.reader.changes(held)).items[0].id == held + 1
    with pytest.raises(errors.Gone):
        service.call(service.services.reader.changes(held - 1))
    service.write(lambda tx: tx.hold_changes("audit", held + 1))
    keep(service)
    with pytest.raises(errors.Gone):
        service.call(service.services.reader.changes(held))


def test_who_waits_is_answered_though_the_log_is_trimmed_all_the_time(start: Callable[..., Service]) -> None:
    service = start(changes=1)
    waited = [service.job(), service.job()]
    answers: dict[str, Job] = {}

    async def wait_async() -> None:
        async with AsyncClient(service.url, TOKENS["user"]) as client:
            answers["async"] = await client.wait(waited[1], timeout=60)

    def wait_sync() -> None:
        with Client(service.url, TOKENS["user"]) as client:
            answers["sync"] = client.wait(waited[0], timeout=60)

    threads = [threading.Thread(target=wait_sync), threading.Thread(target=lambda: asyncio.run(wait_async()))]
    for thread in threads:
        thread.start()
    for _ in range(20):
        service.job()
        keep(service)
    for job_id in waited:
        service.run(job_id)
        keep(service)
        service.end(job_id)
        keep(service)
    for thread in threads:
        thread.join(60)
    assert {name: job.phase for name, job in answers.items()} == {"sync": "succeeded", "async": "succeeded"}


def test_others_write_while_much_ages_out(start: Callable[..., Service]) -> None:
    service = start(days=1.0)

    def many(tx: Transaction) -> None:
        template = known(tx, first)
        for number in range(8 * JOBS):
            tx.insert_job(replace(template, id=f"{first}{number}"))

    first = ended(service, days_ago=5)
    service.write(many)

    async def both() -> int:
        going = asyncio.ensure_future(service.server.keeper.run_once())
        seen = 0
        for _ in range(3):
            await service.services.writer.run(lambda tx: tx.event(first, "seen", "by another"))
            seen += not going.done()
        await going
        return seen

    assert service.call(both()) == 3
    assert kept(service) == set()


@BOTH
def test_replicas_that_are_gone_leave_nothing(start: Callable[..., Service], clock: Clock) -> None:
    service = start()
    service.write(lambda tx: tx.acquire_lease("replica:dead", "u", "dead", 15.0, clock.now - 2 * DAY))
    service.write(lambda tx: tx.acquire_lease("planner", "u", "dead", 15.0, clock.now - 2 * DAY, force=True))
    keep(service)
    mine = service.services.replica_id
    found = service.call(
        service.services.reader.run(lambda tx: [tx.lease(name) for name in ("replica:dead", "planner")])
    )
    assert found[0] is None
    assert found[1] is not None  # its epoch has to go on growing
    assert service.call(service.services.reader.run(lambda tx: tx.lease(f"replica:{mine}"))) is not None


def test_free_pages_are_given_back_as_many_at_once_as_asked(tmp_path: Path) -> None:
    service = Service(settings_at(tmp_path))
    try:
        for _ in range(20):
            ended(service, "x", days_ago=3, env={"BIG": "y" * 50_000})
        service.call(service.services.writer.run(lambda tx: tx.connection.exec_driver_sql("DELETE FROM change")))
        use = service.call(service.services.reader.run(lambda tx: aging.file_use(tx.connection)))
        given = service.call(service.services.writer.run(lambda tx: aging.give_back(tx.connection, 30)))
        left = service.call(service.services.reader.run(lambda tx: aging.file_use(tx.connection)))
        assert given == 30
        assert use.total - left.total == use.free - left.free == 30 * 4096
    finally:
        service.close()


def test_files_shrink_and_say_how_large_they_are(tmp_path: Path, clock: Clock) -> None:
    service = Service(settings_at(tmp_path, now=clock, retention=Retention(days=1.0, changes=10)))
    try:
        for _ in range(20):
            ended(service, "x" * 50_000, days_ago=3, env={"BIG": "y" * 50_000})

        def size(part: str) -> float:
            return service.services.metrics.registry.get_sample_value("jgp_store_bytes", {"part": part}) or 0.0

        before = service.call(service.services.reader.run(lambda tx: aging.file_use(tx.connection)))
        keep(service)
        after = service.call(service.services.reader.run(lambda tx: aging.file_use(tx.connection)))
        assert after.total < before.total / 2
        assert 0 < size("control") < before.total / 2
        assert 0 < size("output") < 500_000
        assert service.services.metrics.registry.get_sample_value("jgp_store_wal_bytes") is not None
    finally:
        service.close()
