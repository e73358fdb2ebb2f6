"""The card that says what a job waits for. It is first updated after two seconds: quick work shows none."""

from __future__ import annotations

import html
import time
import uuid
from typing import Any

from ..model.jobs import Job, Phase
from ..model.units import format_duration


class Card:
    """One display under the cell, updated in place, settled to one line when output starts."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._id = f"gpu-{uuid.uuid4().hex}"
        self._shown = ""
        self._job: Job | None = None
        self._path = _Path()
        # A terminal can't update what it printed: there only a change of phase or reason is worth a line.
        self._updates = getattr(shell, "kernel", None) is not None
        self._settled = False

    def prepare(self, doing: str) -> None:
        """Show what is done before the job has an id."""
        if self._job is None and not self._settled:
            self._show(doing, f"<small>{html.escape(doing)}</small>")

    def update(self, job: Job) -> None:
        """Show what the job does now."""
        if self._settled:
            return
        before, self._job = self._job, job
        now = time.time()
        self._path.at(job, now)
        if before and not self._updates and (before.phase, before.reason) == (job.phase, job.reason):
            return
        self._publish(job, self._path.text(now), _why(job, now))

    def settle(self, job: Job | None = None) -> None:
        """Leave one quiet line: the job's output comes now, or it has ended."""
        if self._settled:
            return
        self._settled = True
        job = self._job or job
        if self._shown and job is not None:
            now = time.time()
            self._path.at(job, now)
            waited = format_duration(now - job.created)
            self._publish(job, self._path.text(now), f"first output after {waited}")

    def end(self, job: Job) -> None:
        """Settle for a job that ended without any output."""
        if self._settled:
            return
        self._settled = True
        if self._shown:
            now = time.time()
            self._path.at(job, job.ended or now)
            self._publish(job, self._path.text(now), _why(job, now))

    def _publish(self, job: Job, path: str, why: str) -> None:
        where = f" on {job.cluster}" if job.cluster else ""
        text = f"Job {job.id}{where}: {path}" + (f" ({why})" if why else "")
        rich = (
            f"<small>Job <code>{html.escape(job.id)}</code>{html.escape(where)}: <b>{html.escape(path)}</b>"
            + (f" – {html.escape(why)}" if why else "")
            + "</small>"
        )
        self._show(text, rich)

    def _show(self, text: str, rich: str) -> None:
        if text == self._shown:
            return
        self._shell.display_pub.publish(
            data={"text/plain": text, "text/html": rich},
            metadata={},
            transient={"display_id": self._id},
            update=bool(self._shown),
        )
        self._shown = text


class _Path:
    """The phases that a job went through, and when each began as far as it was seen."""

    def __init__(self) -> None:
        self._steps: list[tuple[Phase, float]] = []

    def at(self, job: Job, now: float) -> None:
        if not self._steps:
            self._steps.append((Phase.QUEUED, job.requeued or job.created))
        if job.phase is not self._steps[-1][0]:
            began = job.started if job.phase is Phase.RUNNING and job.started else now
            self._steps.append((job.phase, max(began, self._steps[-1][1])))

    def text(self, now: float) -> str:
        ends = [began for _, began in self._steps[1:]] + [now]
        parts = [
            phase.value if phase.ended else f"{phase} {format_duration(end - began)}"
            for (phase, began), end in zip(self._steps, ends, strict=True)
        ]
        return " → ".join(parts)


def _why(job: Job, now: float) -> str:
    """Say why a job is where it is, as far as something is known."""
    if job.unreachable_since is not None and not job.phase.ended:
        return f"its cluster has not been heard for {format_duration(now - job.unreachable_since)}, it goes on there"
    if job.phase is Phase.RUNNING:
        return "no output yet"
    if job.reason:
        return job.reason.message
    return "waiting to be placed" if job.phase is Phase.QUEUED else ""


def describe(job: Job, now: float) -> str:
    """Say in one line what a job does and, where it waits, why.

    :param now: seconds since the epoch, by this machine's clock.
    """
    where = f" on {job.cluster}" if job.cluster else ""
    since = format_duration(now - (job.started or job.created))
    why = f": {job.reason.message}" if job.reason else ""
    if job.unreachable_since is not None and not job.phase.ended:
        return f"Job {job.id} {job.phase}{where}; {_why(job, now)}"
    match job.phase:
        case Phase.QUEUED:
            return f"Job {job.id} queued for {since}{why or ': waiting to be placed'}"
        case Phase.STARTING:
            return f"Job {job.id} starting{where}{why}, {since} since it was submitted"
        case Phase.RUNNING | Phase.SUSPENDED:
            return f"Job {job.id} {job.phase}{where} for {since}"
        case _:
            took = format_duration((job.ended or now) - (job.started or job.created))
            return f"Job {job.id} {job.phase}{where} after {took}{why}"
