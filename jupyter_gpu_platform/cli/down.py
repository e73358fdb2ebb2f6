"""``jupyter gpu down``: stop this machine's own platform."""

from __future__ import annotations

from ..client import local
from . import tables
from .arguments import Parser


def parser() -> Parser:
    made = Parser(
        "down",
        "Stop this machine's own platform. Jobs go on, and the next start finds them.",
        examples="""
            jupyter gpu down
            jupyter gpu down --when-idle     # an error where a job is open
        """,
    )
    made.add_argument("--when-idle", action="store_true", help="only if no job is open and nobody is calling")
    made.json_option("what was done")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    stopped = local.stop(when_idle=args.when_idle)
    if args.json:
        tables.write_json({"stopped": stopped})
    else:
        print("Stopped. Jobs that run go on." if stopped else "No platform runs on this machine.")
    return 0
