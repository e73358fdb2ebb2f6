"""How the command line writes for people: aligned tables, times as distances, sizes in words."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

import msgspec

from ..model.jobs import Job
from ..model.units import format_duration


def printable(text: str) -> str:
    """Return *text* on one line, without what would steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns; the last one is cut to the terminal's width."""
    lines = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    limit = shutil.get_terminal_size((200, 24)).columns if sys.stdout.isatty() else 10_000
    return "\n".join(_cut("  ".join(map(str.ljust, line, widths)).rstrip(), limit) for line in lines)


def _cut(line: str, limit: int) -> str:
    return line if len(line) <= limit else line[: limit - 1] + "…"


def fields(pairs: Sequence[tuple[str, str]]) -> str:
    """Write names and values under each other; empty values are left out."""
    shown = [(name, printable(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name:{width}}  {value}" for name, value in shown)


def ago(then: float | None, now: float) -> str:
    return "" if then is None else f"{format_duration(max(now - then, 0))} ago"


def ran(job: Job, now: float) -> str:
    """Say how long the job has run."""
    return "" if job.started is None else format_duration((job.ended or now) - job.started)


def why(job: Job, now: float) -> str:
    """Say why the job waits, or how it ended."""
    if job.unreachable_since is not None and not job.phase.ended:
        return f"unreachable since {ago(job.unreachable_since, now)}"
    return job.reason.message if job.reason else ""


def write_json(value: object) -> None:
    """Print *value* as one JSON document for people and programs."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
