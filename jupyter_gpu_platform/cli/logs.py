"""``jupyter gpu logs``: a job's output, from the beginning or as it comes."""

from __future__ import annotations

import io
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..client.naming import job_named
from ..client.options import at_least, duration
from ..client.protocol import Record
from ..client.terminal import Json, Terminal
from .arguments import Parser
from .connecting import connect

if TYPE_CHECKING:
    from ..client.sync import Client


def parser() -> Parser:
    made = Parser(
        "logs",
        "Show a job's output: stdout and stderr each on its own, pictures as files that are named. See attach for "
        "the job's exit code and its questions.",
        examples="""
            jupyter gpu logs j01m7zdrv3zhb8rnsc2
            jupyter gpu logs -f --tail 20 j01m7z
            jupyter gpu logs --since 10m j01m7z > recent.txt     # its stdout of the last ten minutes
        """,
    )
    made.job()
    made.add_argument("--follow", "-f", action="store_true", help="go on with what comes, until the job ends")
    made.add_argument("--tail", "-n", type=at_least(0), metavar="N", help="only the last N lines (records with --json)")
    made.add_argument(
        "--since", type=duration, metavar="TIME", help="only what is younger than this, such as 90s, 10m, 2h30m"
    )
    made.json_option("the records, one a line,")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    earliest = time.time() - args.since if args.since else 0.0
    with connect() as client:
        job = job_named(client, args.job)
        view: Json | Terminal = Json() if args.json else Terminal(job=job.id)
        cursor = ""
        if args.tail is not None:
            last = _Last(args.tail, lines=not args.json)
            for record in _recorded(client, job.id):
                cursor = record["cursor"]
                if record["time"] >= earliest:
                    last.add(record)
            last.show(job.id)
            if not args.follow:
                return 0
        for record in client.follow(job.id, cursor) if args.follow else _recorded(client, job.id):
            if record["time"] >= earliest:
                view.show(record)
    return 0


def _recorded(client: Client, job_id: str) -> Iterator[Record]:
    """Yield what the job has put out up to now."""
    cursor = ""
    while (page := client.output(job_id, cursor)).records:
        yield from page.records
        cursor = page.cursor


class _Last:
    """The last records, or as many as hold the last lines; the rest is forgotten at once."""

    def __init__(self, count: int, *, lines: bool) -> None:
        self._count = count
        self._lines = lines
        self._kept: deque[tuple[Record, int]] = deque()
        self._total = 0

    def add(self, record: Record) -> None:
        size = _height(record) if self._lines else 1
        self._kept.append((record, size))
        self._total += size
        # One more than wanted: the last line may not have its end yet.
        while self._kept and self._total - self._kept[0][1] > self._count:
            self._total -= self._kept.popleft()[1]

    def show(self, job: str) -> None:
        records = [record for record, _ in self._kept]
        if self._lines:
            _show_lines(records, self._count, job)
            return
        for record in records[max(len(records) - self._count, 0) :]:
            Json().show(record)


def _height(record: Record) -> int:
    """Return how many lines the record ends."""
    out = io.StringIO()
    Terminal(out, out).show(record)
    return out.getvalue().count("\n")


def _show_lines(records: list[Record], count: int, job: str) -> None:
    """Show the last *count* lines of *records*, each on the stream it came on."""
    lines: deque[tuple[bool, str]] = deque(maxlen=count)
    out, err, open_line = io.StringIO(), io.StringIO(), {True: "", False: ""}
    terminal = Terminal(out, err, job=job)
    for record in records:
        terminal.show(record)
        for is_error, stream in ((False, out), (True, err)):
            *whole, open_line[is_error] = (open_line[is_error] + stream.getvalue()).split("\n")
            lines.extend((is_error, line + "\n") for line in whole)
            stream.seek(0)
            stream.truncate()
    lines.extend((is_error, text) for is_error, text in open_line.items() if text)
    for is_error, text in lines:
        (sys.stderr if is_error else sys.stdout).write(text)
    sys.stdout.flush()
