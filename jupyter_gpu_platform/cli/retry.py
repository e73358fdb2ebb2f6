"""``jupyter gpu retry``: run ended jobs again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..client.naming import job_named
from ..model.jobs import Job
from . import each, tables
from .arguments import Parser
from .attending import CODES, Attended, view_of
from .connecting import connect

if TYPE_CHECKING:
    from ..client.sync import Client


def parser() -> Parser:
    made = Parser(
        "retry",
        "Run jobs that have ended once more, as their next attempt; their output goes on where it ended.",
        examples="""
            jupyter gpu retry j01m7zdrv3zhb8rnsc2
            jupyter gpu retry --follow j01m7z       # and show its output; the exit code is then the job's
        """,
        codes=f"0 done, 1 an error; with --follow: {CODES}",
    )
    made.job(several=True)
    made.add_argument("--follow", "-f", action="store_true", help="show the new attempt's output (one job only)")
    made.json_option("the jobs (with --follow: records, one a line, the job last)")
    return made


def main(argv: list[str]) -> int:
    made = parser()
    args = made.parse_args(argv)
    if args.follow and len(args.jobs) > 1:
        made.error("--follow follows one job only")
    with connect() as client:
        if args.follow:
            before = job_named(client, args.jobs[0])
            after = _end(client, before)
            job = client.retry(before.id)
            return Attended(client, job, view_of(job, as_json=args.json), after=after).run()
        done, code = each.do(client, args.jobs, _again, as_json=args.json)
    if args.json:
        tables.write_json({"items": done})
    return code


def _again(client: Client, job: Job) -> tuple[Job, str]:
    return client.retry(job.id), "is queued again"


def _end(client: Client, job: Job) -> str:
    """Return the cursor behind all that the job has put out."""
    cursor = ""
    while (page := client.output(job.id, cursor)).records:
        cursor = page.cursor
    return cursor
