"""Group commit: few transactions, each operation on its own, answered when it is committed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.control.store import Cluster, Database, JobFilter, Reader, Transaction, Writer
from jupyter_gpu_platform.model.jobs import Job

pytestmark = pytest.mark.anyio
MakeJob = Callable[..., Job]


def insert(job: Job) -> Callable[[Transaction], str]:
    def operation(transaction: Transaction) -> str:
        transaction.insert_job(job)
        return job.id

    return operation


async def test_many_operations_share_few_transactions(writer: Writer, reader: Reader, make_job: MakeJob) -> None:
    jobs = [make_job() for _ in range(300)]
    answers = await asyncio.gather(*(writer.run(insert(job)) for job in jobs))
    assert answers == [job.id for job in jobs]
    assert writer.operations == 300
    assert writer.transactions < 30
    assert len((await reader.changes(0)).items) == 300


async def test_each_operation_of_a_batch_finds_the_answer_under_its_own_key(writer: Writer) -> None:
    def once(owner: str, key: str, answer: bytes) -> Callable[[Transaction], bytes]:
        def operation(transaction: Transaction) -> bytes:
            known = transaction.idempotent(owner, key)
            if known is None:
                transaction.remember(owner, key, "digest", answer)
            return answer if known is None else known.answer

        return operation

    async def ask(owner: str, key: str, answer: bytes) -> bytes:
        return await writer.run(once(owner, key, answer), key=(owner, key))

    asked = [(owner, f"key {number}") for owner in ("ada", "bob") for number in range(100)]
    first = [f"{owner} {key}".encode() for owner, key in asked]
    assert await asyncio.gather(*(ask(*which, answer) for which, answer in zip(asked, first, strict=True))) == first
    # Again, each with another answer, and each twice: all get the first.
    assert await asyncio.gather(*(ask(*which, b"new") for which in asked * 2)) == first * 2
    assert set(await asyncio.gather(*(ask("ada", "new key", b"%d" % n) for n in range(50)))) == {b"0"}


async def test_a_failing_operation_undoes_its_own_changes_only(
    writer: Writer, reader: Reader, make_job: MakeJob
) -> None:
    good, bad, other = make_job(), make_job(), make_job()

    def fail(transaction: Transaction) -> None:
        transaction.insert_job(bad)
        raise errors.Forbidden("not this one")

    results = await asyncio.gather(
        writer.run(insert(good)), writer.run(fail), writer.run(insert(other)), return_exceptions=True
    )
    assert results[0] == good.id
    assert isinstance(results[1], errors.Forbidden)
    assert results[2] == other.id
    assert {row.object_id for row in (await reader.changes(0)).items} == {good.id, other.id}
    assert await reader.job(bad.id) is None


async def test_a_refused_statement_hurts_nobody_else(writer: Writer, reader: Reader, make_job: MakeJob) -> None:
    good = make_job()
    operations = [
        writer.run(lambda transaction: transaction.remember("ada", "key", "digest", b"answer")),
        writer.run(lambda transaction: transaction.remember("ada", "key", "digest", b"answer")),
        writer.run(insert(good)),
    ]
    first, second, third = await asyncio.gather(*operations, return_exceptions=True)
    assert first is None
    assert isinstance(second, errors.Conflict)
    assert third == good.id


async def test_an_answer_comes_after_the_commit(writer: Writer, database: Database, make_job: MakeJob) -> None:
    reached, go_on = threading.Event(), threading.Event()
    job = make_job()

    def slow(transaction: Transaction) -> None:
        reached.set()
        go_on.wait(30)

    holding = asyncio.create_task(writer.run(slow))
    await asyncio.to_thread(reached.wait, 30)
    # These two share the next transaction; the first has done its part when the second one stalls.
    reached.clear()
    go_on_later = threading.Event()

    def stall(transaction: Transaction) -> None:
        reached.set()
        go_on_later.wait(30)

    inserting = asyncio.create_task(writer.run(insert(job)))
    await asyncio.sleep(0)
    stalling = asyncio.create_task(writer.run(stall))
    await asyncio.sleep(0)
    go_on.set()
    await holding
    await asyncio.to_thread(reached.wait, 30)
    assert not inserting.done()
    with database.read() as connection:
        assert Transaction(connection, lambda: 0.0).job(job.id) is None
    go_on_later.set()
    assert await inserting == job.id
    await stalling
    with database.read() as connection:
        assert Transaction(connection, lambda: 0.0).job(job.id) == job


async def test_too_many_waiting_operations_are_turned_away(database: Database) -> None:
    writer = Writer(database, queue_limit=3)
    reached, go_on = threading.Event(), threading.Event()

    def hold(transaction: Transaction) -> None:
        reached.set()
        go_on.wait(30)

    holding = asyncio.create_task(writer.run(hold))
    await asyncio.to_thread(reached.wait, 30)
    waiting = [asyncio.create_task(writer.run(Transaction.revision)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(errors.TooManyRequests):
        await writer.run(Transaction.revision)
    go_on.set()
    await asyncio.gather(holding, *waiting)
    await writer.close()


async def test_an_operation_whose_caller_went_away_in_time_is_not_run(writer: Writer, reader: Reader) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold(transaction: Transaction) -> None:
        reached.set()
        go_on.wait(30)

    holding = asyncio.create_task(writer.run(hold))
    await asyncio.to_thread(reached.wait, 30)
    gone = asyncio.create_task(writer.run(lambda t: t.put_cluster(Cluster(name="gone", created=1.0))))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    go_on.set()
    await holding
    await writer.run(Transaction.revision)
    assert await reader.clusters() == []


async def test_closing_commits_what_waits_and_takes_nothing_more(database: Database, make_job: MakeJob) -> None:
    writer, reader = Writer(database), Reader(database)
    tasks = [asyncio.create_task(writer.run(insert(make_job()))) for _ in range(20)]
    await asyncio.sleep(0)
    await writer.close()
    await asyncio.gather(*tasks)
    with pytest.raises(errors.Unavailable):
        await writer.run(Transaction.revision)
    assert len((await reader.jobs(JobFilter())).items) == 20
    await writer.close()
    await reader.close()
    with pytest.raises(errors.Unavailable):
        await reader.ping()
