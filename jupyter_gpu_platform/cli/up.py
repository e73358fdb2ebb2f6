"""``jupyter gpu up``: start this machine's own platform."""

from __future__ import annotations

from ..client import local
from ..client.options import at_least
from . import tables
from .arguments import Parser


def parser() -> Parser:
    made = Parser(
        "up",
        "Start this machine's own platform in the background, if it doesn't run. Nobody has to: the first job starts "
        "it too.",
        examples="""
            jupyter gpu up
            jupyter gpu up --fake-gpus 8     # to try things out on a machine without GPUs
            jupyter gpu up --idle-exit 0     # it stays until jupyter gpu down
        """,
    )
    made.add_argument("--fake-gpus", type=at_least(0), metavar="N", help="pretend to have N GPUs, to try things out")
    made.add_argument(
        "--standby", type=at_least(0), metavar="N", help="keep N runners ready for the next cells (default: 1)"
    )
    made.add_argument(
        "--idle-exit", type=at_least(0), metavar="SECONDS", help="stop after so long without jobs; 0: never"
    )
    made.json_option("where it listens")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    options = {"--fake-gpus": args.fake_gpus, "--standby": args.standby, "--idle-exit": args.idle_exit}
    before = local.find()
    wanted = tuple(f"{flag}={number}" for flag, number in options.items() if number is not None)
    found = local.ensure(options=wanted)
    started = before is None or before.pid != found.pid
    facts = {"started": started, "url": found.url, "pid": found.pid, "version": found.version}
    facts |= {"state_dir": found.state_dir, "fake_gpus": found.fake_gpus}
    if args.json:
        tables.write_json(facts)
    else:
        print(f"{'Started' if started else 'Running already'}: {found.url} (process {found.pid}, {found.version})")
        print(f"State: {found.state_dir}")
        if wanted and not started:
            print(f"{' '.join(wanted)} has no effect on a platform that runs: jupyter gpu down, then up again.")
    return 0
