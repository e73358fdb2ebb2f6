"""How the command line writes for people: aligned tables, times as distances, sizes in words."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

import msgspec

from ..client.describing import printable


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns; the last one is cut to the terminal's width."""
    lines = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    limit = shutil.get_terminal_size((200, 24)).columns if sys.stdout.isatty() else 10_000
    return "\n".join(_cut("  ".join(map(str.ljust, line, widths)).rstrip(), limit) for line in lines)


def _cut(line: str, limit: int) -> str:
    return line if len(line) <= limit else line[: limit - 1] + "…"


def fields(pairs: Sequence[tuple[str, str]]) -> str:
    """Write names and values under each other."""
    shown = [(name, printable(value)) for name, value in pairs]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name:{width}}  {value}" for name, value in shown)


def clock(then: float) -> str:
    """Say when something was, by this machine's clock: the time, and the day where that is not today."""
    local, today = time.localtime(then), time.localtime()
    return time.strftime("%H:%M:%S" if local[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", local)


def write_json(value: object) -> None:
    """Print *value* as one JSON document for people and programs."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
