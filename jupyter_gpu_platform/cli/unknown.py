"""``jupyter gpu unknown``: what runs on clusters without the store's knowledge, after it was put back from a backup."""

from __future__ import annotations

from .. import errors
from ..client.options import nearest
from ..client.protocol import Document
from . import each, tables
from .arguments import Parser
from .connecting import connect


def parser() -> Parser:
    made = Parser(
        "unknown",
        "List the attempts that clusters run and the platform knows nothing of: it was put back from a backup that is "
        "older than they are. They are never ended by themselves; a job with such an attempt is held back until you "
        "have ended it here. For administrators.",
        examples="""
            jupyter gpu unknown                                   # of all clusters
            jupyter gpu unknown local --json
            jupyter gpu unknown --end j01m7zdrv3zhb8rnsc2.1       # stops it; what it has put out is lost
        """,
    )
    made.add_argument("clusters", metavar="NAME", nargs="*", help="only those of these clusters")
    made.add_argument(
        "--end", metavar="JOB.ATTEMPT", action="append", default=[], help="stop this one and forget it; repeatable"
    )
    made.add_argument("--yes", "-y", action="store_true", help="with --end: don't ask")
    made.json_option("them")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    with connect() as client:
        names = args.clusters or [cluster["name"] for cluster in client.clusters()]
        listed = [entry for name in names for entry in client.unknown_attempts(name)]
        if args.end:
            listed = _named(listed, args.end)
            if not args.yes and not each.agreed(map(_line, listed), "Stop what runs there? Its output is lost."):
                return 1
            for entry in listed:
                client.unknown_attempt_remove(entry["cluster"], entry["job"], entry["attempt"])
    if args.json:
        tables.write_json({"items": listed})
    elif args.end:
        for entry in listed:
            print(f"{key(entry)}  is being ended")
    else:
        print(tables.table(("CLUSTER", "ATTEMPT", "SINCE"), [_row(entry) for entry in listed]) if listed else "None.")
    return 0


def key(entry: Document) -> str:
    """Name an attempt as `--end` takes it."""
    return f"{entry['job']}.{entry['attempt']}"


def _named(listed: list[Document], wanted: list[str]) -> list[Document]:
    known = {key(entry): entry for entry in listed}
    for name in wanted:
        if name not in known:
            hint = nearest(name, known) or "See jupyter gpu unknown"
            raise errors.NotFound(f"there is no unknown attempt {name!r}", hint=hint)
    return [known[name] for name in dict.fromkeys(wanted)]


def _row(entry: Document) -> tuple[str, str, str]:
    return entry["cluster"], key(entry), tables.clock(entry["since"])


def _line(entry: Document) -> str:
    return "  ".join(_row(entry))
