"""``jupyter gpu up``: start this machine's own platform."""

from __future__ import annotations

from ..client import local
from ..client.options import at_least
from . import tables
from .arguments import Parser


def main(argv: list[str]) -> int:
    parser = Parser("up", "Start this machine's own platform in the background, if it doesn't run.")
    parser.add_argument("--fake-gpus", type=at_least(0), metavar="N", help="pretend to have N GPUs, to try things out")
    parser.add_argument(
        "--idle-exit", type=at_least(0), metavar="SECONDS", help="stop after so long without jobs; 0: never"
    )
    parser.json_option("where it listens")
    args = parser.parse_args(argv)
    options = {"--fake-gpus": args.fake_gpus, "--idle-exit": args.idle_exit}
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
