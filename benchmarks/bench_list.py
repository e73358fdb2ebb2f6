"""A page of the list (50 jobs) at 1 k, 100 k and 1 M jobs, read through the store's reader, on both databases.

The yardstick of each filter is itself at 1 k, where the indexed ones fill a page, too. The rows are written directly,
without their changes and events. With ``--figure FILE`` the growth curve is drawn as a plotly figure (HTML).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

import msgspec
from measuring import Figure, database, percentile, report

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.control.store import Database, JobFilter, Reader, tables
from jupyter_gpu_platform.control.store.pending import insert_rows
from jupyter_gpu_platform.model.jobs import Command, Job, JobSpec, Phase, new_job_id

SIZES = (1_000, 100_000, 1_000_000)
LOOKS = 200
PAGE = 50
#: rows written in one transaction
BATCH = 5_000
MINE = {"owner": "user3", "organisation": "default"}
#: each answered by one index; an admin asks without an owner, everybody else with one
INDEXED = {
    "all": JobFilter(),
    "phase": JobFilter(phases=(Phase.FAILED,)),
    "open": JobFilter(phases=(Phase.QUEUED, Phase.STARTING, Phase.RUNNING)),
    "owner": JobFilter(**MINE),
    "owner, phase": JobFilter(**MINE, phases=(Phase.FAILED,)),
    "owner, open": JobFilter(**MINE, phases=(Phase.QUEUED, Phase.STARTING, Phase.RUNNING)),
    "project": JobFilter(project="project1", organisation="default"),
    "project, phase": JobFilter(project="project1", organisation="default", phases=(Phase.FAILED,)),
    "cluster": JobFilter(cluster="cluster2"),
    "cluster, phase": JobFilter(cluster="cluster2", phases=(Phase.FAILED,)),
    "label": JobFilter(label={"team": "t1"}),
}
OTHERS = {
    "owner, label": JobFilter(**MINE, label={"team": "t3"}),
    "owner, cluster": JobFilter(**MINE, cluster="cluster3"),
    "owner, project": JobFilter(**MINE, project="project1"),
    "label, phase": JobFilter(label={"team": "t1"}, phases=(Phase.FAILED,)),
    "name": JobFilter(name="run 7"),
    "owner, name": JobFilter(**MINE, name="run 7"),
    "name that no job has": JobFilter(name="nothing"),
    "owner and label that never meet": JobFilter(**MINE, label={"team": "rare"}),
}
FILTERS = {**INDEXED, **OTHERS}


def _job(number: int) -> Job:
    phases = (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED, Phase.RUNNING, Phase.QUEUED)
    phase = phases[number // 60 % 5]
    spec = JobSpec(
        source=Command(argv=("python", "train.py", "--seed", str(number))),
        name=f"run {number % 100}",
        # One job in four has the rare label, and none of these is user3's.
        labels={"team": "rare" if number % 4 == 0 else f"t{number // 7 % 10}"},
    )
    created = 1_700_000_000 + number / 100
    return Job(
        id=new_job_id(created),
        spec=spec,
        owner=f"user{number % 4}",
        project=f"project{number % 3}",
        organisation="default",
        cluster=f"cluster{number // 12 % 4}",
        created=created,
        phase=phase,
        ended=created + 1 if phase.ended else None,
    )


def _fill(store: Database, first: int, end: int) -> None:
    encode = msgspec.json.Encoder().encode
    for begin in range(first, end, BATCH):
        jobs = [_job(number) for number in range(begin, min(end, begin + BATCH))]
        rows = [
            {
                "id": job.id,
                "phase": job.phase.value,
                "cluster": job.cluster,
                "name": job.spec.name,
                "organisation": job.organisation,
                "project": job.project,
                "owner": job.owner,
                "ended": job.ended,
                "payload_version": tables.PAYLOAD_VERSION,
                "payload": encode(job),
            }
            for job in jobs
        ]
        labels = [{"job": job.id, "key": key, "value": value} for job in jobs for key, value in job.spec.labels.items()]
        with store.write() as connection:
            insert_rows(connection, tables.job, rows)
            insert_rows(connection, tables.job_label, labels)


async def _looks(reader: Reader, wanted: JobFilter, looks: int) -> tuple[list[float], bool]:
    taken, refused = [], False
    for _ in range(looks):
        before = time.perf_counter()
        try:
            await reader.jobs(wanted, PAGE)
        except errors.FilterTooBroad:
            refused = True
        taken.append(time.perf_counter() - before)
        if sum(taken) > 2:
            break
    return taken, refused


async def measure(url: str, sizes: tuple[int, ...], looks: int) -> dict[str, dict[int, tuple[list[float], bool]]]:
    store = Database.open(url)
    reader = Reader(store)
    found: dict[str, dict[int, tuple[list[float], bool]]] = {}
    filled = 0
    try:
        for size in sizes:
            _fill(store, filled, size)
            filled = size
            with store.write() as connection:
                connection.exec_driver_sql("ANALYZE")
            for name, wanted in FILTERS.items():
                await _looks(reader, wanted, 5)
                found.setdefault(name, {})[size] = await _looks(reader, wanted, looks)
    finally:
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
        f"list: a page of {PAGE} jobs by filter",
        figures,
        note=f"runs are the medians at {', '.join(f'{size:,}' for size in sizes)} jobs; load {os.getloadavg()[0]:.1f}",
    )
    if options.figure:
        _draw(options.figure, curves)


if __name__ == "__main__":
    main()
