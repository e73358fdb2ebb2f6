"""Pages of the list: what they hold, and that the database reads them from the end of an index, on both databases."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.control.store import Database, JobFilter, Reader, Writer, listing
from jupyter_gpu_platform.control.store.transaction import Transaction
from jupyter_gpu_platform.model.jobs import Job, Phase

pytestmark = pytest.mark.anyio
MakeJob = Callable[..., Job]

#: filters that an index answers alone, as people of each role send them
INDEXED = {
    "all": JobFilter(),
    "phase": JobFilter(phases=(Phase.FAILED,)),
    "phases": JobFilter(phases=(Phase.QUEUED, Phase.RUNNING)),
    "mine": JobFilter(owner="ada", organisation="default"),
    "mine of a phase": JobFilter(owner="ada", organisation="default", phases=(Phase.FAILED,)),
    "one's of any organisation": JobFilter(owner="ada"),
    "project": JobFilter(project="default", organisation="default"),
    "project of a phase": JobFilter(project="default", organisation="default", phases=(Phase.QUEUED,)),
    "cluster": JobFilter(cluster="east"),
    "cluster of a phase": JobFilter(cluster="east", phases=(Phase.FAILED, Phase.QUEUED)),
    "label": JobFilter(label={"team": "x"}),
}
FAR = 6000


@pytest.fixture
def jobs(make_job: MakeJob) -> list[Job]:
    """Jobs of several people, phases, clusters and labels."""
    made = []
    for number in range(60):
        job = make_job(
            owner=("ada", "eve", "bob")[number % 3],
            cluster=("east", "west", None)[number % 4 % 3],
            name=f"Run {number % 7}",
            labels={"team": "xy"[number % 2]},
        )
        made.append(replace(job, phase=(Phase.QUEUED, Phase.FAILED, Phase.RUNNING)[number % 5 % 3]))
    return made


def _fits(job: Job, wanted: JobFilter) -> bool:
    return (
        all(
            getattr(wanted, name) in (None, getattr(job, name))
            for name in ("owner", "project", "organisation", "cluster")
        )
        and (not wanted.phases or job.phase in wanted.phases)
        and wanted.label.items() <= job.spec.labels.items()
        and (wanted.name or "").lower() in job.spec.name.lower()
    )


async def _insert(writer: Writer, jobs: list[Job]) -> None:
    def operation(tx: Transaction) -> None:
        for job in jobs:
            tx.insert_job(job)

    await writer.run(operation)


@pytest.mark.parametrize("more", [JobFilter(), JobFilter(name="run 3"), JobFilter(owner="eve", label={"team": "y"})])
async def test_pages_hold_what_fits_the_newest_first(
    writer: Writer, reader: Reader, jobs: list[Job], more: JobFilter
) -> None:
    await _insert(writer, jobs)
    for name, wanted in INDEXED.items():
        both = replace(wanted, name=more.name, owner=more.owner or wanted.owner, label={**wanted.label, **more.label})
        found: list[Job] = []
        after = None
        while True:
            page = await reader.jobs(both, 4, after)
            assert len(page.items) == 4 or page.next is None
            found += page.items
            after = page.next
            if after is None:
                break
        assert found == [job for job in reversed(jobs) if _fits(job, both)], name


@pytest.fixture
async def large(writer: Writer, database: Database, make_job: MakeJob) -> None:
    """So many jobs that the database chooses its plans as it would for a million."""
    first = make_job(owner="bob", cluster="west", name="the needle", labels={"team": "y"})
    rest = [make_job(cluster="east", labels={"team": "x"}) for _ in range(FAR)]
    await _insert(writer, [first, *(replace(job, phase=Phase.SUCCEEDED) for job in rest)])
    with database.write() as connection:
        connection.exec_driver_sql("ANALYZE")


async def test_each_index_is_read_from_its_end(reader: Reader, large: None, database: Database) -> None:
    for name, wanted in INDEXED.items():
        for after in (None, "jz"):
            plans = await reader.run(lambda tx, w=wanted, a=after: listing.plans(tx, w, 101, a))  # type: ignore[misc]  # a lambda's default
            text = "\n".join(str(row) for row in plans[0])
            if database.is_sqlite:
                # (id, parent, _, text): a walk along an index in its order is called a SCAN, too.
                steps = [(row[1], str(row[3])) for row in plans[0]]  # type: ignore[index]  # SQLite's rows
                reads = [(parent, step) for parent, step in steps if " job" in step]
                assert reads, (name, text)
                assert all("USING COVERING INDEX" in step for _, step in reads), (name, text)
                # Ends of ranges may be sorted when they are merged; what a range holds never is.
                sorts = {parent for parent, step in steps if "TEMP B-TREE" in step}
                assert not sorts & {parent for parent, _ in reads}, (name, text)
            else:
                assert "Seq Scan" not in text, (name, text)
                assert "Bitmap" not in text, (name, text)
                assert text.count("Sort  (") <= 1, (name, text)


async def test_what_no_index_finds_is_looked_for_among_the_newest_only(
    reader: Reader, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    needle = JobFilter(name="needle")
    assert [job.spec.name for job in (await reader.jobs(needle)).items] == ["the needle"]
    monkeypatch.setattr(listing, "LOOKED_THROUGH", (10, FAR // 2))
    with pytest.raises(errors.FilterTooBroad, match="look") as refused:
        await reader.jobs(needle)
    assert refused.value.hint == "Add one of these filters, or another value: label, phase, cluster, owner, project."
    for narrower in (JobFilter(label={"team": "y"}), JobFilter(cluster="west"), JobFilter(phases=(Phase.QUEUED,))):
        found = await reader.jobs(replace(narrower, name="needle"))
        assert [job.owner for job in found.items] == ["bob"]
