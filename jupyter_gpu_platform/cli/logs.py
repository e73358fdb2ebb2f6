"""``jupyter gpu logs``: a job's output, from the beginning or as it comes."""

from __future__ import annotations

import io
import sys
from collections import deque
from collections.abc import Iterator

from ..client.naming import job_named
from ..client.options import at_least
from ..client.protocol import Record
from ..client.sync import Client, connect
from ..client.terminal import Json, Terminal
from .arguments import Parser


def main(argv: list[str]) -> int:
    parser = Parser("logs", "Show a job's output.")
    parser.add_argument("job", metavar="ID", help="the job's id, or its beginning")
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what comes, until the job ends")
    parser.add_argument(
        "--tail", "-n", type=at_least(0), metavar="N", help="only the last N lines (records with --json)"
    )
    parser.json_option("the records, one a line,")
    args = parser.parse_args(argv)
    view: Json | Terminal = Json() if args.json else Terminal()
    with connect() as client:
        job_id, cursor = job_named(client, args.job).id, ""
        if args.tail is not None:
            cursor = (_tail_records if args.json else _tail_lines)(client, job_id, args.tail)
        if args.follow:
            records = client.follow(job_id, cursor)
        else:
            # With a tail, all that there was has been shown.
            records = _recorded(client, job_id) if args.tail is None else iter(())
        for record in records:
            view.show(record)
    return 0


def _recorded(client: Client, job_id: str) -> Iterator[Record]:
    """Yield what the job has put out up to now."""
    cursor = ""
    while (page := client.output(job_id, cursor)).records:
        yield from page.records
        cursor = page.cursor


def _tail_records(client: Client, job_id: str, count: int) -> str:
    """Show the last *count* records and return the cursor behind them."""
    last: deque[Record] = deque(maxlen=count)
    cursor = ""
    for record in _recorded(client, job_id):
        last.append(record)
        cursor = record["cursor"]
    for record in last:
        Json().show(record)
    return cursor


def _tail_lines(client: Client, job_id: str, count: int) -> str:
    """Show the last *count* lines, each on the stream it came on, and return the cursor behind them."""
    lines: deque[tuple[bool, str]] = deque(maxlen=count)
    cursor, open_line = "", {True: "", False: ""}
    for record in _recorded(client, job_id):
        cursor = record["cursor"]
        out, err = io.StringIO(), io.StringIO()
        Terminal(out, err).show(record)
        for is_error, text in ((False, out.getvalue()), (True, err.getvalue())):
            *whole, open_line[is_error] = (open_line[is_error] + text).split("\n")
            lines.extend((is_error, line + "\n") for line in whole)
    lines.extend((is_error, text) for is_error, text in open_line.items() if text)
    for is_error, text in lines:
        (sys.stderr if is_error else sys.stdout).write(text)
    sys.stdout.flush()
    return cursor
