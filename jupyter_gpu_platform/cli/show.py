"""``jupyter gpu show``: all about one job."""

from __future__ import annotations

import time

from ..client import describing
from ..client.naming import job_named
from ..model.jobs import Attempt
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
    print(tables.fields(describing.facts(job, now)))
    if attempts:
        head = ("ATTEMPT", "STATE", "CLUSTER", "GPUS", "BEGAN", "EXIT", "WHY")
        print("\n" + tables.table(head, [_attempt(attempt, now) for attempt in attempts]))
    if events:
        rows = [(describing.ago(event.time, now), event.code, event.message) for event in events]
        print("\n" + tables.table(("WHEN", "EVENT", "WHAT"), rows))
    return 0


def _attempt(attempt: Attempt, now: float) -> tuple[str, ...]:
    code = "" if attempt.exit_code is None else str(attempt.exit_code)
    why = attempt.reason.message if attempt.reason else ""
    began = describing.ago(attempt.claimed, now)
    return (str(attempt.number), attempt.state, attempt.cluster, " ".join(attempt.gpus) or "-", began, code, why)
