"""A job in words: the same ones in the notebook, the SDK and the command line."""

from __future__ import annotations

import shlex

from ..model.jobs import Cell, Command, Function, Job, Script, Source
from ..model.units import format_duration, format_size

#: the columns of `row`
HEAD = ("id", "name", "phase", "GPUs", "cluster", "created", "ran", "why")
#: of a cell's first line, this many characters are shown
_LINE = 60


def printable(text: str) -> str:
    """Return *text* on one line, without what would steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


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


def source(given: Source) -> str:
    """Say in one line what is run."""
    match given:
        case Command(argv=argv):
            return shlex.join(argv)
        case Script(path=path, args=args):
            return shlex.join(("python", path, *args))
        case Function(qualname=qualname):
            return f"{qualname}(…)"
        case Cell(code=code):
            lines = code.strip().splitlines() or [""]
            return lines[0][:_LINE] + (f" … ({len(lines)} lines)" if len(lines) > 1 else "")


def row(job: Job, now: float) -> tuple[str, ...]:
    """Describe a job as a line of a list."""
    created = ago(job.created, now)
    name, cluster = job.spec.name or "-", job.cluster or "-"
    return (job.id, name, str(job.phase), gpus(job) or "-", cluster, created, ran(job, now), why(job, now))


def facts(job: Job, now: float) -> list[tuple[str, str]]:
    """Tell all about a job: names and texts, the empty ones left out."""
    resources, environment = job.spec.resources, job.spec.environment
    rows = [
        ("job", job.id),
        ("name", job.spec.name),
        ("phase", job.phase + (" (asked to end)" if job.cancel_requested and not job.phase.ended else "")),
        ("why", why(job, now)),
        ("runs", source(job.spec.source)),
        ("owner", f"{job.owner} (project {job.project})"),
        ("cluster", job.cluster or ""),
        ("gpus", gpus(job)),
        ("cpus", f"{resources.cpus:g}" if resources.cpus else ""),
        ("memory", format_size(resources.memory) if resources.memory else ""),
        ("image", environment.image or ""),
        ("directory", environment.workdir or ""),
        ("created", ago(job.created, now)),
        ("started", ago(job.started, now)),
        ("ended", ago(job.ended, now)),
        ("ran", ran(job, now)),
        ("exit code", "" if job.exit_code is None else str(job.exit_code)),
        ("labels", " ".join(f"{key}={value}" for key, value in job.spec.labels.items())),
    ]
    return [(name, text) for name, text in rows if text]
