"""``jupyter gpu status``: the platform, its clusters and their GPUs."""

from __future__ import annotations

import os
import time
from collections import Counter

from ..client import local
from ..client.protocol import Status
from ..model.jobs import ENDED, Phase
from ..model.units import format_duration
from . import tables
from .arguments import Parser
from .clusters import clusters_table
from .connecting import connect


def parser() -> Parser:
    made = Parser(
        "status",
        "Show the platform, its clusters and their GPUs. It starts nothing.",
        examples="""
            jupyter gpu status
            JUPYTER_GPU_URL=https://gpu.example.org JUPYTER_GPU_TOKEN=… jupyter gpu status
        """,
    )
    made.json_option("it")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if not os.environ.get("JUPYTER_GPU_URL") and local.find() is None:
        if args.json:
            tables.write_json({"running": False})
        else:
            print("No platform runs on this machine. The first job starts it, or: jupyter gpu up")
        return 0
    with connect(start=False) as client:
        url, status, clusters = client.url, client.status(), client.clusters()
        jobs = Counter(job.phase for job in client.iter_jobs(phases=[phase for phase in Phase if phase not in ENDED]))
    if args.json:
        tables.write_json({"running": True, "url": url, "status": status, "clusters": clusters, "open_jobs": jobs})
        return 0
    print(tables.fields(_fields(url, status, jobs)))
    if clusters:
        print("\n" + clusters_table(clusters))
    return 0


def _fields(url: str, status: Status, jobs: Counter[Phase]) -> list[tuple[str, str]]:
    place = "this machine" if status.local else "remote"
    age = f", up {format_duration(time.time() - status.started)}" if status.started else ""
    open_jobs = ", ".join(f"{count} {phase}" for phase, count in jobs.items()) or "none open"
    return [
        ("platform", f"{url} ({place}, {status.version}{age})"),
        ("you", f"{status.user} ({status.role})"),
        ("jobs", open_jobs),
        ("note", f"{status.fake_gpus} of its GPUs are pretended" if status.fake_gpus else ""),
    ]
