"""A page of the list (100 jobs) at 1 k, 100 k and 1 M jobs, read through the store's reader, on both databases.

The yardstick of each filter is itself at 1 k. The store is filled directly, by the same code that writes submissions.
With ``--figure FILE`` the growth curve is drawn as a plotly figure (HTML).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from measuring import Figure, database, percentile, report
from msgspec.structs import replace

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.control.store import Database, JobFilter, Reader, Writer
from jupyter_gpu_platform.control.store.transaction import Transaction
from jupyter_gpu_platform.model.jobs import Command, Job, JobSpec, Phase, new_job_id

SIZES = (1_000, 100_000, 1_000_000)
LOOKS = 200
#: by role: an admin asks without an owner, everybody else with one
FILTERS = {
    "all": JobFilter(),
    "phase": JobFilter(phases=(Phase.FAILED,)),
    "open": JobFilter(phases=(Phase.QUEUED, Phase.STARTING, Phase.RUNNING)),
    "owner": JobFilter(owner="user3", organisation="default"),
    "owner, phase": JobFilter(owner="user3", organisation="default", phases=(Phase.FAILED,)),
    "project": JobFilter(project="project1", organisation="default"),
    "project, phase": JobFilter(project="project1", organisation="default", phases=(Phase.FAILED,)),
    "cluster": JobFilter(cluster="cluster2"),
    "cluster, phase": JobFilter(cluster="cluster2", phases=(Phase.FAILED,)),
    "label": JobFilter(label={"team": "t1"}),
    "owner, label": JobFilter(owner="user3", organisation="default", label={"team": "t3"}),
    "owner, cluster": JobFilter(owner="user3", organisation="default", cluster="cluster3"),
    "name": JobFilter(name="run 7"),
    "name that no job has": JobFilter(name="nothing"),
    "owner and label that never meet": JobFilter(owner="user3", organisation="default", label={"team": "t4"}),
}


def _job(number: int) -> Job:
    phase = (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED, Phase.RUNNING, Phase.QUEUED)[number % 5]
    spec = JobSpec(
        source=Command(argv=("python", "train.py", "--seed", str(number))),
        name=f"run {number % 100}",
        labels={"team": f"t{number % 10}"},
    )
    job = Job(
        id=new_job_id(1_700_000_000 + number / 100),
        spec=spec,
        owner=f"user{number % 10}",
        project=f"project{number % 3}",
        organisation="default",
        cluster=f"cluster{number % 4}",
        created=1_700_000_000 + number / 100,
    )
    return replace(job, phase=phase, ended=job.created + 1 if phase.ended else None)


async def _fill(writer: Writer, first: int, end: int) -> None:
    for begin in range(first, end, 2000):
        numbers = range(begin, min(end, begin + 2000))

        def operation(tx: Transaction, numbers: range = numbers) -> None:
            for number in numbers:
                tx.insert_job(_job(number))

        await writer.run(operation)


async def _looks(reader: Reader, wanted: JobFilter, looks: int) -> tuple[list[float], bool]:
    taken, refused = [], False
    for _ in range(looks):
        before = time.perf_counter()
        try:
            await reader.jobs(wanted, 100)
        except errors.FilterTooBroad:
            refused = True
        taken.append(time.perf_counter() - before)
        if sum(taken) > 5:
            break
    return taken, refused


async def measure(url: str, sizes: tuple[int, ...], looks: int) -> dict[str, dict[int, tuple[list[float], bool]]]:
    store = Database.open(url)
    writer, reader = Writer(store), Reader(store)
    found: dict[str, dict[int, tuple[list[float], bool]]] = {}
    filled = 0
    try:
        for size in sizes:
            await _fill(writer, filled, size)
            filled = size
            with store.write() as connection:
                connection.exec_driver_sql("ANALYZE")
            for name, wanted in FILTERS.items():
                await _looks(reader, wanted, 5)
                found.setdefault(name, {})[size] = await _looks(reader, wanted, looks)
    finally:
        await writer.close()
        await reader.close()
        store.close()
    return found


def _draw(path: Path, curves: dict[str, dict[int, float]]) -> None:
    from plotly import graph_objects

    figure = graph_objects.Figure(layout={"title": "A page of the list", "xaxis_type": "log", "yaxis_type": "log"})
    figure.update_layout(xaxis_title="jobs in the store", yaxis_title="median, ms")
    for name, points in curves.items():
        figure.add_scatter(x=list(points), y=list(points.values()), name=name, mode="lines+markers")
    figure.write_html(path, include_plotlyjs="cdn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 20 k jobs in place of 1 M")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--figure", type=Path, help="HTML file for the growth curve")
    options = parser.parse_args()
    sizes, looks = ((1_000, 20_000), 50) if options.quick else (SIZES, LOOKS)
    kinds = ("sqlite", "postgresql") if options.database == "both" else (options.database,)
    figures: list[Figure] = []
    curves: dict[str, dict[int, float]] = {}
    for kind in kinds:
        with database(kind) as where, tempfile.TemporaryDirectory(prefix="jgp-bench-") as folder:
            url = where[1] if where else f"sqlite:///{folder}/control.db"
            for name, points in asyncio.run(measure(url, sizes, looks)).items():
                medians = {size: percentile(taken, 0.5) * 1000 for size, (taken, _) in points.items()}
                curves[f"{kind}: {name}"] = medians
                refused = " (refused)" if points[sizes[-1]][1] else ""
                figures.append(Figure(name=f"{kind}: {name}{refused}", unit="ms", runs=list(medians.values())))
                grown = medians[sizes[-1]] / medians[sizes[0]]
                figures.append(Figure(name="    largest / smallest store", unit="×", runs=[grown]))
    report(
        "list: a page of 100 jobs by filter",
        figures,
        note=f"runs are the medians at {', '.join(f'{size:,}' for size in sizes)} jobs; load {os.getloadavg()[0]:.1f}",
    )
    if options.figure:
        _draw(options.figure, curves)


if __name__ == "__main__":
    main()
