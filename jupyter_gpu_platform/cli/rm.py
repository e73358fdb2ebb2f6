"""``jupyter gpu rm``: delete jobs and their output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import errors
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
            what = "it and its output" if len(found) == 1 else f"these {len(found)} and their output"
            if not each.agreed([f"{job.id}  {job.phase}  {job.spec.name}" for job in found], f"Delete {what}?"):
                return 1
            names = [job.id for job in found]
        done, code = each.do(client, names, _delete, as_json=args.json)
    if args.json:
        tables.write_json({"items": done})
    return code


def _delete(client: Client, job: Job) -> tuple[Job, str]:
    if not job.phase.ended:
        raise errors.Conflict(
            f"job {job.id} is {job.phase}, and only jobs that have ended can be deleted",
            hint=f"End it first: jupyter gpu cancel {job.id}",
        )
    client.delete(job.id)
    return job, "is deleted"
