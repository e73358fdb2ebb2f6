"""``jupyter gpu run``: run a command as a job, as if it ran here."""

from __future__ import annotations

import argparse
import sys

from ..client import fitting
from ..client.options import add_job_options, job_options
from ..client.specifying import specify
from ..model.jobs import Command, Job
from . import tables
from .arguments import Parser
from .attending import CODES, Attended, view_of
from .connecting import connect


def parser() -> Parser:
    made = Parser(
        "run",
        "Run a command as a job and show its output. The exit code is the command's. Ctrl-C offers to cancel the job "
        "or to detach from it; where nobody can be asked, it cancels.",
        examples="""
            jupyter gpu run --gpus 1 -- python train.py --epochs 3
            jupyter gpu run --gpus 2 --gpu-model A100 --name big --max-run-time 2h -- ./train.sh
            jupyter gpu run --detach --env SEED=1 --label sweep=lr -- python train.py
            jupyter gpu run -- sh -c 'nvidia-smi | head -15'       # a shell only where you ask for one
        """,
        codes=CODES,
    )
    add_job_options(made)
    made.add_argument("--detach", "-d", action="store_true", help="print the job's id and leave it to run")
    made.json_option("records (with --detach: the job), one a line, the job last,")
    made.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="[--] COMMAND …", help="the program and its arguments; no shell"
    )
    return made


def main(argv: list[str]) -> int:
    args = _arguments(argv)
    with connect() as client:
        local = client.status().local
        options = job_options(args)
        here = fitting.runs_here(client, options, local=local)
        spec = specify(Command(argv=tuple(args.command)), here=here, **options)
        fitting.check(client, spec, local=local)
        job = client.submit(spec)
        if args.detach:
            _show_detached(job, as_json=args.json)
            return 0
        return Attended(client, job, view_of(job, as_json=args.json)).run()


def _arguments(argv: list[str]) -> argparse.Namespace:
    made = parser()
    args = made.parse_args(argv)
    if args.command[:1] == ["--"]:
        del args.command[0]
    if not args.command:
        made.error("it needs a command: jupyter gpu run [options] -- python train.py")
    if args.command[0].startswith("-"):
        made.error(f"unrecognized arguments: {args.command[0]}")
    return args


def _show_detached(job: Job, *, as_json: bool) -> None:
    if as_json:
        tables.write_json(job)
        return
    print(job.id, flush=True)
    print(f"Its output: jupyter gpu attach {job.id}", file=sys.stderr)
