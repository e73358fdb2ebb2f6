"""``jupyter gpu ls``: list jobs."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from .. import errors
from ..client import describing
from ..client.options import at_least, pair
from ..model.jobs import ENDED, Job, Phase
from . import tables
from .arguments import Parser
from .connecting import connect

if TYPE_CHECKING:
    from ..client.sync import Client

#: seconds between two lists of --watch, however much happens
AT_MOST_EVERY = 0.5


def parser() -> Parser:
    made = Parser(
        "ls",
        "List jobs that are open, newest first, and why those that wait do. All conditions given must be met.",
        examples="""
            jupyter gpu ls                                   # what is queued or runs
            jupyter gpu ls --all --name train --limit 10     # the last ten whose name holds 'train', ended ones too
            jupyter gpu ls --phase failed --label sweep=lr
            jupyter gpu ls --watch
            jupyter gpu ls --all --json | jq '.items[0].reason'
        """,
    )
    option = made.add_argument
    option("--all", "-a", action="store_true", help="those that have ended, too")
    option("--phase", action="append", choices=[str(phase) for phase in Phase], help="only these; repeatable")
    option("--name", metavar="TEXT", default="", help="only those whose name holds this")
    option("--cluster", metavar="NAME", default="", help="only those placed on this cluster")
    option("--label", type=pair, metavar="K=V", action="append", default=[], help="only those labelled so; repeatable")
    option("--project", metavar="NAME", default="", help="only those of this project")
    option("--owner", metavar="NAME", default="", help="only those of this person (for those who see other people's)")
    option("--limit", "-n", type=at_least(1), default=50, metavar="N", help="at most so many (default: 50)")
    option("--watch", "-w", action="store_true", help="list again whenever something has changed, until Ctrl-C")
    option("--ids", action="store_true", help="print ids only, one a line")
    made.json_option("the jobs (with --watch: one list a line)")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    phases = args.phase or ([] if args.all else [phase for phase in Phase if phase not in ENDED])
    filters = {
        "phases": phases,
        "name": args.name,
        "cluster": args.cluster,
        "labels": dict(args.label),
        "project": args.project,
        "owner": args.owner,
    }
    with connect() as client:
        lists = _changing(client, filters, args.limit) if args.watch else iter([_jobs(client, filters, args.limit)])
        for jobs in lists:
            if args.json and args.watch:
                print(msgspec.json.encode({"items": jobs}).decode(), flush=True)
            elif args.json:
                tables.write_json({"items": jobs})
            elif args.ids:
                print("".join(f"{job.id}\n" for job in jobs), end="", flush=True)
            else:
                _show(jobs, open_only=not (args.all or args.phase), again=args.watch)
    return 0


def _jobs(client: Client, filters: dict[str, Any], limit: int) -> list[Job]:
    return list(itertools.islice(client.iter_jobs(**filters), limit))


def _changing(client: Client, filters: dict[str, Any], limit: int) -> Iterator[list[Job]]:
    """Yield the list now, and each time that it has changed, for ever."""
    shown: list[Job] | None = None
    while True:
        # The position first: a change between the two is then seen twice, never missed.
        position = client.jobs(limit=1).log_position
        jobs = _jobs(client, filters, limit)
        if jobs != shown:
            shown = jobs
            yield jobs
        try:
            next(change for change in client.changes(position, follow=True) if change.kind.startswith("job"))
        except errors.Gone:
            continue  # fell behind the trimmed end of the log: list anew
        time.sleep(AT_MOST_EVERY)


def _show(jobs: list[Job], *, open_only: bool, again: bool) -> None:
    if again and sys.stdout.isatty():
        print("\x1b[H\x1b[2J", end="")  # the list before makes room
    if jobs:
        now = time.time()
        print(tables.table([title.upper() for title in describing.HEAD], [describing.row(job, now) for job in jobs]))
    elif open_only:
        print("No open jobs. Those that have ended: jupyter gpu ls --all")
    else:
        print("No jobs.")
    sys.stdout.flush()
