"""``jupyter gpu rm``: delete jobs and their output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .. import errors
from ..client.describing import printable
from ..client.naming import job_named
from ..model.jobs import Job
from . import each, tables
from .arguments import Parser
from .connecting import connect

if TYPE_CHECKING:
    from ..client.sync import Client


def parser() -> Parser:
    made = Parser(
        "rm",
        "Delete jobs, their output and their kept values. Only jobs that have ended can be deleted: cancel the "
        "others first. It asks, unless --yes is given.",
        examples="""
            jupyter gpu rm j01m7zdrv3zhb8rnsc2
            jupyter gpu rm --yes $(jupyter gpu ls --phase failed --ids)
        """,
    )
    made.job(several=True)
    made.add_argument("--yes", "-y", action="store_true", help="don't ask")
    made.json_option("the jobs as they were")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    with connect() as client:
        names = args.jobs
        if not args.yes:
            found = [job_named(client, name) for name in names]
            if not _asked(found):
                return 1
            names = [job.id for job in found]
        done, code = each.do(client, names, _delete, as_json=args.json)
    if args.json:
        tables.write_json({"items": done})
    return code


def _asked(jobs: list[Job]) -> bool:
    """Ask whether *jobs* are to be deleted.

    :raises InvalidRequest: there is nobody to ask.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise errors.InvalidRequest("there is nobody here to ask whether they are to be deleted", hint="Give --yes.")
    for job in jobs:
        print(printable(f"{job.id}  {job.phase}  {job.spec.name}").rstrip(), file=sys.stderr)
    question = "Delete it and its output?" if len(jobs) == 1 else f"Delete these {len(jobs)} and their output?"
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _delete(client: Client, job: Job) -> tuple[Job, str]:
    if not job.phase.ended:
        raise errors.Conflict(
            f"job {job.id} is {job.phase}, and only jobs that have ended can be deleted",
            hint=f"End it first: jupyter gpu cancel {job.id}",
        )
    client.delete(job.id)
    return job, "is deleted"
