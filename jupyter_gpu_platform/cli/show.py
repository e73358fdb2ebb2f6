"""``jupyter gpu show``: all about one job."""

from __future__ import annotations

import shlex
import time

from ..client.naming import job_named
from ..model.jobs import Attempt, Cell, Command, Function, Job, Script
from ..model.units import format_size
from . import tables
from .arguments import Parser
from .connecting import connect


def parser() -> Parser:
    made = Parser(
        "show",
        "Show all about one job: what it runs, how it is and why, its attempts and what happened to it.",
        examples="""
            jupyter gpu show j01m7zdrv3zhb8rnsc2
            jupyter gpu show --json j01m7z | jq .job.reason
        """,
    )
    made.job()
    made.json_option("it")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    with connect() as client:
        job = job_named(client, args.job)
        attempts, events = client.attempts(job.id), client.events(job.id)
    if args.json:
        tables.write_json({"job": job, "attempts": attempts, "events": events})
        return 0
    now = time.time()
    print(tables.fields(_fields(job, now)))
    if attempts:
        head = ("ATTEMPT", "STATE", "CLUSTER", "GPUS", "BEGAN", "EXIT", "WHY")
        print("\n" + tables.table(head, [_attempt(attempt, now) for attempt in attempts]))
    if events:
        rows = [(tables.ago(event.time, now), event.code, event.message) for event in events]
        print("\n" + tables.table(("WHEN", "EVENT", "WHAT"), rows))
    return 0


def _fields(job: Job, now: float) -> list[tuple[str, str]]:
    resources, environment = job.spec.resources, job.spec.environment
    return [
        ("job", job.id),
        ("name", job.spec.name),
        ("phase", job.phase + (" (asked to end)" if job.cancel_requested and not job.phase.ended else "")),
        ("why", tables.why(job, now)),
        ("runs", source(job)),
        ("owner", f"{job.owner} (project {job.project})"),
        ("cluster", job.cluster or ""),
        ("gpus", tables.gpus(job)),
        ("cpus", f"{resources.cpus:g}" if resources.cpus else ""),
        ("memory", format_size(resources.memory) if resources.memory else ""),
        ("image", environment.image or ""),
        ("directory", environment.workdir or ""),
        ("created", tables.ago(job.created, now)),
        ("started", tables.ago(job.started, now)),
        ("ended", tables.ago(job.ended, now)),
        ("ran", tables.ran(job, now)),
        ("exit code", "" if job.exit_code is None else str(job.exit_code)),
        ("labels", " ".join(f"{key}={value}" for key, value in job.spec.labels.items())),
    ]


def source(job: Job) -> str:
    """Say in one line what the job runs."""
    match job.spec.source:
        case Command(argv=argv):
            return shlex.join(argv)
        case Script(path=path, args=args):
            return shlex.join(("python", path, *args))
        case Function(qualname=qualname):
            return f"{qualname}(…)"
        case Cell(code=code):
            lines = code.strip().splitlines() or [""]
            return lines[0] + (f" … ({len(lines)} lines)" if len(lines) > 1 else "")


def _attempt(attempt: Attempt, now: float) -> tuple[str, ...]:
    code = "" if attempt.exit_code is None else str(attempt.exit_code)
    why = attempt.reason.message if attempt.reason else ""
    began = tables.ago(attempt.claimed, now)
    return (str(attempt.number), attempt.state, attempt.cluster, " ".join(attempt.gpus) or "-", began, code, why)
