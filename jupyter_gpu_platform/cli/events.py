"""``jupyter gpu events``: what happened, and what happens."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from .. import errors
from ..client.describing import printable
from ..client.naming import job_named
from ..client.options import at_least
from ..client.protocol import Change, Event
from . import tables
from .arguments import Parser
from .connecting import connect

if TYPE_CHECKING:
    from ..client.sync import Client

#: how far the change log is read back for the newest events
READ_BACK = 2000


def parser() -> Parser:
    made = Parser(
        "events",
        "Show what happened to one job, or the newest changes of all jobs and clusters that you may see.",
        examples="""
            jupyter gpu events j01m7zdrv3zhb8rnsc2
            jupyter gpu events -f j01m7z     # until that job ends
            jupyter gpu events -f            # whatever happens, until Ctrl-C
        """,
    )
    made.add_argument("job", metavar="ID", nargs="?", help="only this job's; its id, or the beginning")
    made.add_argument("--follow", "-f", action="store_true", help="go on with what comes")
    made.add_argument(
        "--tail", "-n", type=at_least(0), metavar="N", help="only the last N (default: 20 without ID, else all)"
    )
    made.json_option("events (without ID: rows of the change log), one a line,")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    with connect() as client:
        if args.job:
            _show_job(client, job_named(client, args.job).id, args.tail, follow=args.follow, as_json=args.json)
        else:
            _show_all(client, 20 if args.tail is None else args.tail, follow=args.follow, as_json=args.json)
    return 0


def _print_json(value: object) -> None:
    print(msgspec.json.encode(value).decode(), flush=True)


# --- one job ---------------------------------------------------------------------------------------------------


def _show_job(client: Client, job_id: str, tail: int | None, *, follow: bool, as_json: bool) -> None:
    # Read before the events: a change between the two is then seen twice, never missed.
    position = client.jobs(limit=1).log_position
    events = list(_events(client, job_id, 0))
    last = events[-1].id if events else 0
    for event in events[len(events) - tail :] if tail is not None and tail < len(events) else events:
        _print_event(event, as_json=as_json)
    if not follow or client.job(job_id).phase.ended:
        for event in _events(client, job_id, last) if follow else ():
            _print_event(event, as_json=as_json)
        return
    for change in client.changes(position, follow=True):
        if change.object_id.partition("/")[0] != job_id:
            continue
        ended = change.kind == "job.deleted" or client.job(job_id).phase.ended
        for event in _events(client, job_id, last) if change.kind != "job.deleted" else ():
            last = event.id
            _print_event(event, as_json=as_json)
        if ended:
            return


def _events(client: Client, job_id: str, after: int) -> Iterator[Event]:
    while page := client.events(job_id, after=after, limit=1000):
        yield from page
        after = page[-1].id


def _print_event(event: Event, *, as_json: bool) -> None:
    if as_json:
        _print_json(event)
    else:
        print(printable(f"{tables.clock(event.time)}  {event.code:12}  {event.message}"), flush=True)


# --- all -------------------------------------------------------------------------------------------------------


def _show_all(client: Client, tail: int, *, follow: bool, as_json: bool) -> None:
    position = client.jobs(limit=1).log_position
    news = _News()
    told = [(change, line) for change in _recent(client, position) if (line := news.line(change))]
    for change, line in told[max(len(told) - tail, 0) :]:
        _print_change(change, line, as_json=as_json)
    if not follow:
        return
    for change in client.changes(position, follow=True):
        if line := news.line(change):
            _print_change(change, line, as_json=as_json)


def _recent(client: Client, position: int) -> Iterable[Change]:
    """Return the newest changes up to *position*."""
    try:
        # What comes while it is read is left for who follows.
        return deque(change for change in client.changes(max(position - READ_BACK, 0)) if change.id <= position)
    except errors.Gone:
        return ()  # the log was trimmed to less


def _print_change(change: Change, line: str, *, as_json: bool) -> None:
    if as_json:
        _print_json(change)
    else:
        print(printable(f"{tables.clock(change.time)}  {line}"), flush=True)


class _News:
    """Says what is new in a change; many changes of an object are none to a person."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def line(self, change: Change) -> str:
        """Return what the change says that was not said before; empty where that is nothing."""
        line = _line(change)
        if not line or self._said.get(change.object_id) == line:
            return ""
        self._said[change.object_id] = line
        return line


def _line(change: Change) -> str:
    about = change.payload if isinstance(change.payload, dict) else {}
    match change.kind:
        case "job":
            reason = (about.get("reason") or {}).get("message", "")
            where = f" on {about['cluster']}" if about.get("cluster") else ""
            away = "; its cluster can't be heard" if about.get("unreachable_since") else ""
            name = (about.get("spec") or {}).get("name") or "-"
            return f"{change.object_id}  {name}  {about.get('phase')}{where}{away}" + (f": {reason}" if reason else "")
        case "job.deleted":
            return f"{change.object_id}  deleted"
        case "cluster":
            closed = ", closed for new jobs" if about.get("drained") else ""
            return f"cluster {change.object_id}  {about.get('state')}{closed}"
        case "cluster.deleted":
            return f"cluster {change.object_id}  removed"
        case _:
            return ""  # attempts and agents: their jobs and clusters tell
