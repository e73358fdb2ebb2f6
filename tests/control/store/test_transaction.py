"""What one transaction of the main store reads and writes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.control.store import (
    Agent,
    ApiToken,
    ChangeFilter,
    Cluster,
    JobFilter,
    JoinToken,
    Reader,
    Remembered,
    Transaction,
    Writer,
    aging,
)
from jupyter_gpu_platform.model.jobs import Attempt, AttemptState, Job, Phase
from jupyter_gpu_platform.model.resources import Capacity

pytestmark = pytest.mark.anyio
MakeJob = Callable[..., Job]


async def insert(writer: Writer, *jobs: Job) -> None:
    def operation(transaction: Transaction) -> None:
        for job in jobs:
            transaction.insert_job(job)

    await writer.run(operation)


async def kinds(reader: Reader, after: int = 0) -> list[tuple[str, str]]:
    return [(row.kind, row.object_id) for row in (await reader.changes(after)).items]


async def test_a_job_is_kept_as_it_was_given(writer: Writer, reader: Reader, make_job: MakeJob) -> None:
    job = make_job(name="a\0b", labels={"team": "x\0y"}, env={"E": "\0"})
    await insert(writer, job)
    assert await reader.job(job.id) == job
    changed = replace(job, phase=Phase.STARTING, cluster="here", version=2)
    await writer.run(lambda t: t.put_job(changed))
    assert await reader.job(job.id) == changed
    rows = (await reader.changes(0)).items
    assert [(row.kind, row.object_id, row.owner, row.cluster, row.time) for row in rows] == [
        ("job", job.id, "ada", "", 1000.0),
        ("job", job.id, "ada", "here", 1000.0),
    ]
    assert b'"phase":"starting"' in rows[1].payload


async def test_a_job_is_inserted_once_and_put_only_where_it_is(writer: Writer, make_job: MakeJob) -> None:
    job = make_job()
    with pytest.raises(errors.NotFound):
        await writer.run(lambda t: t.put_job(job))
    await insert(writer, job)
    with pytest.raises(errors.Conflict):
        await insert(writer, job)


async def test_open_jobs_come_by_phase_the_oldest_first(writer: Writer, make_job: MakeJob) -> None:
    jobs = [make_job() for _ in range(3)]
    running, ended = replace(make_job(), phase=Phase.RUNNING), replace(make_job(), phase=Phase.FAILED)
    await insert(writer, *reversed(jobs), running, ended)
    assert await writer.run(lambda t: list(t.jobs_open())) == [*jobs, running]


async def test_attempts_by_job_state_and_cluster(writer: Writer, reader: Reader, make_job: MakeJob) -> None:
    job = make_job()
    await insert(writer, job)
    first = Attempt(job=job.id, number=1, cluster="east", state=AttemptState.ENDED, created=1.0)
    second = Attempt(job=job.id, number=2, cluster="west", created=2.0)
    for attempt in (first, second):
        await writer.run(lambda t, attempt=attempt: t.put_attempt(attempt))
    assert await reader.attempts(job.id) == [first, second]
    assert await reader.run(lambda t: t.attempt(job.id, 2)) == second
    assert await reader.run(Transaction.attempts_open) == [second]
    assert await reader.run(lambda t: t.attempts_of("east")) == [first]
    await writer.run(lambda t: t.put_attempt(replace(first, forgotten=True)))
    assert await reader.run(lambda t: t.attempts_of("east")) == []
    assert (await kinds(reader))[1:] == [
        ("attempt", f"{job.id}/1"),
        ("attempt", f"{job.id}/2"),
        ("attempt", f"{job.id}/1"),
    ]
    with pytest.raises(errors.NotFound):
        await writer.run(lambda t: t.put_attempt(replace(first, job="nobody")))


async def test_a_deleted_jobs_attempts_stay_until_they_are_forgotten(
    writer: Writer, reader: Reader, make_job: MakeJob
) -> None:
    job = make_job(labels={"a": "b"})
    await insert(writer, job)
    held = Attempt(job=job.id, number=2, cluster="east", state=AttemptState.ENDED, created=1.0)
    await writer.run(lambda t: t.put_attempt(replace(held, number=1, forgotten=True)))
    await writer.run(lambda t: t.put_attempt(held))
    await writer.run(lambda t: t.event(job.id, "placed", "given to east", 2))
    position = await reader.position()
    assert await writer.run(lambda t: t.delete_jobs([job.id, "j-none"])) == [job.id]
    assert await writer.run(lambda t: t.delete_jobs([job.id])) == []
    assert await reader.run(lambda t: t.attempts_of("east")) == [held]
    assert await reader.events(job.id) == []
    await writer.run(lambda t: t.put_attempt(replace(held, forgotten=True)))
    assert await reader.attempts(job.id) == []
    rows = (await reader.changes(position)).items
    assert [(row.kind, row.object_id, row.owner) for row in rows] == [
        ("job.deleted", job.id, "ada"),
        ("attempt", f"{job.id}/2", "ada"),
    ]


async def test_events_are_read_in_order_and_in_pages(writer: Writer, reader: Reader, make_job: MakeJob) -> None:
    job = make_job()
    await insert(writer, job)
    for number in range(5):
        await writer.run(lambda t, number=number: t.event(job.id, f"code{number}", "…\0", number or None))
    page = await reader.events(job.id, limit=3)
    rest = await reader.events(job.id, after=page[-1].id)
    assert [(event.code, event.attempt, event.time) for event in page + rest] == [
        (f"code{number}", number or None, 1000.0) for number in range(5)
    ]


async def test_jobs_are_listed_by_every_filter_in_pages(writer: Writer, reader: Reader, make_job: MakeJob) -> None:
    mine = [make_job(name=f"Train {number}", labels={"n": str(number % 2)}) for number in range(5)]
    other = replace(make_job(owner="bob", project="vision", cluster="east", name="50%"), phase=Phase.RUNNING)
    await insert(writer, *mine, other)

    async def ids(**wanted: object) -> list[str]:
        return [job.id for job in (await reader.jobs(JobFilter(**wanted))).items]  # type: ignore[arg-type]  # of many types

    newest_first = [job.id for job in reversed(mine)]
    assert await ids() == [other.id, *newest_first]
    assert await ids(owner="ada") == newest_first
    for wanted in ({"project": "vision"}, {"cluster": "east"}, {"phases": (Phase.RUNNING,)}, {"name": "0%"}):
        assert await ids(**wanted) == [other.id]
    assert await ids(name="train 3") == [mine[3].id]
    assert await ids(label={"n": "1"}) == [mine[3].id, mine[1].id]
    assert await ids(label={"n": "1", "m": ""}) == []
    assert await ids(organisation="elsewhere") == []

    first = await reader.jobs(JobFilter(owner="ada"), limit=2)
    second = await reader.jobs(JobFilter(owner="ada"), limit=2, after=first.next)
    third = await reader.jobs(JobFilter(owner="ada"), limit=2, after=second.next)
    assert [job.id for page in (first, second, third) for job in page.items] == newest_first
    assert third.next is None
    assert first.log_position == await reader.position()


async def test_idempotency(writer: Writer, reader: Reader) -> None:
    assert await reader.run(lambda t: t.idempotent("ada", "key")) is None
    await writer.run(lambda t: t.remember("ada", "key", "digest", b"answer"))
    assert await reader.run(lambda t: t.idempotent("ada", "key")) == Remembered("digest", b"answer")
    assert await reader.run(lambda t: t.idempotent("bob", "key")) is None
    assert await writer.run(lambda t: aging.trim_remembered(t, 1000.0)) == 0
    assert await writer.run(lambda t: aging.trim_remembered(t, 1000.5)) == 1
    assert await reader.run(lambda t: t.idempotent("ada", "key")) is None


async def test_leases(writer: Writer) -> None:
    async def acquire(who: str, now: float, *, force: bool = False) -> int | None:
        lease = await writer.run(lambda t: t.acquire_lease("agent", f"http://{who}", who, 10.0, now, force=force))
        return lease.epoch if lease else None

    assert await acquire("a", 0.0) == 1
    assert await acquire("b", 9.9) is None
    assert await acquire("a", 9.9) == 1
    assert await acquire("b", 15.0) is None
    assert await acquire("b", 19.9) == 2
    assert await acquire("a", 20.0) is None
    assert await acquire("a", 20.0, force=True) == 3
    assert await acquire("a", 21.0, force=True) == 4
    await writer.run(lambda t: t.release_lease("agent", "b"))
    assert await acquire("b", 22.0) is None
    await writer.run(lambda t: t.release_lease("agent", "a"))
    assert await acquire("b", 22.0) == 5
    held = await writer.run(lambda t: t.lease("agent"))
    assert held is not None
    assert (held.holder_id, held.holder_url, held.expires) == ("b", "http://b", 32.0)


async def test_clusters_and_agents(writer: Writer, reader: Reader) -> None:
    cluster = Cluster(name="east", created=1.0)
    agent = Agent(id="a1", cluster="east", credential_hash="secret-hash", created=1.0)
    await writer.run(lambda t: t.put_cluster(cluster))
    await writer.run(lambda t: t.put_agent(agent))
    position = await reader.position()
    # What is as it was, or was only seen again, is no change.
    await writer.run(lambda t: t.put_cluster(cluster))
    await writer.run(lambda t: t.put_agent(replace(agent, seen=5.0)))
    assert await reader.position() == position
    await writer.run(lambda t: t.put_cluster(replace(cluster, capacity=Capacity(cpus=4.0))))
    await writer.run(lambda t: t.put_agent(replace(agent, revoked=True)))
    assert await kinds(reader, position) == [("cluster", "east"), ("agent", "a1")]
    assert all(b"secret-hash" not in row.payload for row in (await reader.changes(0)).items)
    assert await reader.run(lambda t: t.agent_by_hash("secret-hash")) == replace(agent, revoked=True)
    assert await reader.agents("west") == []
    assert [found.id for found in await reader.agents()] == ["a1"]
    assert await writer.run(lambda t: t.delete_cluster("east")) is True
    assert await writer.run(lambda t: t.delete_cluster("east")) is False
    assert await reader.agents() == []
    assert (await kinds(reader))[-1] == ("cluster.deleted", "east")


async def test_tokens(writer: Writer, reader: Reader) -> None:
    await writer.run(lambda t: t.put_join_token(JoinToken(hash="h", cluster="east", expires=9.0)))
    taken = await writer.run(lambda t: t.take_join_token("h"))
    assert taken == JoinToken(hash="h", cluster="east", expires=9.0)
    assert await writer.run(lambda t: t.take_join_token("h")) is None
    token = ApiToken(id="t1", hash="x", user="ada", role="viewer", created=1.0)
    await writer.run(lambda t: t.put_token(token))
    assert await reader.run(lambda t: t.token_by_hash("x")) == token
    assert await reader.tokens() == [token]
    assert await writer.run(lambda t: t.delete_token("t1")) is True
    assert await writer.run(lambda t: t.delete_token("t1")) is False


async def test_unknown_attempts_keep_the_time_they_were_first_reported(writer: Writer, reader: Reader) -> None:
    for now in (1.0, 2.0):
        await writer.run(lambda t, now=now: t.put_unknown("east", "j", 1, "i", now))
    (found,) = await reader.unknown()
    assert (found.cluster, found.job, found.attempt, found.incarnation, found.since) == ("east", "j", 1, "i", 1.0)
    assert await reader.unknown("west") == []
    assert await writer.run(lambda t: t.delete_unknown("east", "j", 1)) is True
    assert await writer.run(lambda t: t.delete_unknown("east", "j", 1)) is False


async def test_a_reader_writes_nothing(reader: Reader, make_job: MakeJob) -> None:
    with pytest.raises(errors.GpuPlatformError):
        await reader.run(lambda t: t.insert_job(make_job()))
    assert await reader.position() == 0


async def test_changes_are_filtered_and_the_cursor_moves_past_the_rest(
    writer: Writer, reader: Reader, make_job: MakeJob
) -> None:
    await insert(writer, make_job(owner="ada"), make_job(owner="bob"))
    await writer.run(lambda t: t.put_cluster(Cluster(name="east", created=1.0)))
    page = await reader.changes(0, filter=ChangeFilter(owner="ada"))
    assert [(row.kind, row.owner) for row in page.items] == [("job", "ada"), ("cluster", "")]
    nothing = await reader.changes(0, filter=ChangeFilter(owner="eve", kinds=("job",)))
    assert nothing == ([], await reader.position())
    assert (await reader.changes(0, limit=1)).next < nothing.next
    assert (await reader.changes(nothing.next)).items == []


async def test_a_reader_behind_the_trimmed_end_is_told(writer: Writer, reader: Reader, make_job: MakeJob) -> None:
    await insert(writer, *(make_job() for _ in range(4)))
    ids = [row.id for row in (await reader.changes(0)).items]
    assert await writer.run(lambda t: aging.trim_changes(t, ids[2])) == 2
    with pytest.raises(errors.Gone):
        await reader.changes(ids[0])
    assert [row.id for row in (await reader.changes(ids[1])).items] == ids[2:]
    # Trimmed to the very end, the log still knows where it was, and never gives an id again.
    assert await writer.run(lambda t: aging.trim_changes(t, ids[3] + 100)) == 2
    assert await writer.run(lambda t: aging.trim_changes(t, ids[3] + 100)) == 0
    assert await reader.position() == ids[3]
    assert (await reader.changes(ids[3])).items == []
    await insert(writer, make_job())
    assert [row.id > ids[3] for row in (await reader.changes(ids[3])).items] == [True]
    with pytest.raises(errors.Gone):
        await reader.changes(ids[3] + 1000)
