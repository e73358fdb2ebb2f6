"""How the command line writes for people: aligned tables, times as distances, sizes in words."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

import msgspec

from ..client.terminal import printable
from ..model.jobs import Job
from ..model.units import format_duration


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


def clock(then: float) -> str:
    """Say when something was, by this machine's clock: the time, and the day where that is not today."""
    local, today = time.localtime(then), time.localtime()
    return time.strftime("%H:%M:%S" if local[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", local)


def ago(then: float | None, now: float) -> str:
    return "" if then is None else f"{format_duration(max(now - then, 0))} ago"


def ran(job: Job, now: float) -> str:
    """Say how long the job has run."""
    return "" if job.started is None else format_duration((job.ended or now) - job.started)


def gpus(job: Job) -> str:
    """Say which GPUs the job asks for."""
    wanted = job.spec.resources
    return f"{wanted.gpus} {wanted.gpu_model or ''}".strip() if wanted.gpus else ""


def why(job: Job, now: float) -> str:
    """Say why the job waits, or how it ended."""
    if job.unreachable_since is not None and not job.phase.ended:
        return f"unreachable since {ago(job.unreachable_since, now)}"
    return job.reason.message if job.reason else ""


def write_json(value: object) -> None:
    """Print *value* as one JSON document for people and programs."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
