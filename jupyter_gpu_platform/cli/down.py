"""``jupyter gpu down``: stop this machine's own platform."""

from __future__ import annotations

from ..client import local
from . import tables
from .arguments import Parser


def main(argv: list[str]) -> int:
    parser = Parser("down", "Stop this machine's own platform. Jobs go on, and the next start finds them.")
    parser.add_argument("--when-idle", action="store_true", help="only if no job is open and nobody is calling")
    parser.json_option("what was done")
    args = parser.parse_args(argv)
    stopped = local.stop(when_idle=args.when_idle)
    if args.json:
        tables.write_json({"stopped": stopped})
    else:
        print("Stopped. Jobs that run go on." if stopped else "No platform runs on this machine.")
    return 0
