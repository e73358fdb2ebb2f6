"""``jupyter gpu cancel``: end jobs."""

from __future__ import annotations

from .. import errors
from ..client.naming import job_named
from ..client.sync import connect
from . import tables
from .arguments import Parser
from .main import complain


def main(argv: list[str]) -> int:
    parser = Parser("cancel", "End jobs: SIGTERM first, SIGKILL after their grace period.")
    parser.add_argument("jobs", metavar="ID", nargs="+", help="ids, or their beginnings")
    parser.json_option("the jobs")
    args = parser.parse_args(argv)
    done, failed = [], False
    with connect() as client:
        for text in args.jobs:
            try:
                job = job_named(client, text)
                done.append(job if job.phase.ended else client.cancel(job.id))
            except (errors.NotFound, errors.InvalidRequest, errors.Conflict) as error:
                failed = True
                complain(error)
                continue
            if not args.json:
                last = done[-1]
                print(f"{last.id}  {f'has ended: {last.phase}' if last.phase.ended else 'is being cancelled'}")
    if args.json:
        tables.write_json({"items": done})
    return int(failed)
