"""``jupyter gpu ls``: list jobs."""

from __future__ import annotations

import argparse
import itertools
import time

from ..client.options import at_least
from ..client.sync import connect
from ..model.jobs import ENDED, Job, Phase
from . import tables
from .arguments import Parser

HEAD = ("ID", "NAME", "PHASE", "GPUS", "CLUSTER", "CREATED", "RAN", "WHY")


def main(argv: list[str]) -> int:
    args = _arguments(argv)
    phases = args.phase or ([] if args.all else [phase for phase in Phase if phase not in ENDED])
    with connect() as client:
        jobs = list(itertools.islice(client.iter_jobs(phases=phases), args.limit))
    if args.json:
        tables.write_json({"items": jobs})
    elif jobs:
        now = time.time()
        print(tables.table(HEAD, [_row(job, now) for job in jobs]))
    elif args.all or args.phase:
        print("No jobs.")
    else:
        print("No open jobs. Those that have ended: jupyter gpu ls --all")
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser("ls", "List jobs that are open, newest first.")
    parser.add_argument("--all", "-a", action="store_true", help="those that have ended, too")
    parser.add_argument("--phase", action="append", choices=[str(phase) for phase in Phase], help="only these")
    parser.add_argument("--limit", "-n", type=at_least(1), default=50, help="at most so many (default: 50)")
    parser.json_option("the jobs")
    return parser.parse_args(argv)


def _row(job: Job, now: float) -> tuple[str, ...]:
    resources = job.spec.resources
    gpus = f"{resources.gpus} {resources.gpu_model or ''}".strip() if resources.gpus else "-"
    created = tables.ago(job.created, now)
    why = tables.why(job, now)
    return (job.id, job.spec.name or "-", job.phase, gpus, job.cluster or "-", created, tables.ran(job, now), why)
