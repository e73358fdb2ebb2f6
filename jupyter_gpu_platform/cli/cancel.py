"""``jupyter gpu cancel``: end jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.jobs import Job
from . import each, tables
from .arguments import Parser
from .connecting import connect

if TYPE_CHECKING:
    from ..client.sync import Client


def parser() -> Parser:
    made = Parser(
        "cancel",
        "End jobs: their processes get SIGTERM, and SIGKILL after their grace period. A job that has ended stays as "
        "it is.",
        examples="""
            jupyter gpu cancel j01m7zdrv3zhb8rnsc2
            jupyter gpu cancel $(jupyter gpu ls --label sweep=lr --ids)
        """,
    )
    made.job(several=True)
    made.json_option("the jobs")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    with connect() as client:
        done, code = each.do(client, args.jobs, _cancel, as_json=args.json)
    if args.json:
        tables.write_json({"items": done})
    return code


def _cancel(client: Client, job: Job) -> tuple[Job, str]:
    job = job if job.phase.ended else client.cancel(job.id)
    return job, f"has ended: {job.phase}" if job.phase.ended else "is being cancelled"
