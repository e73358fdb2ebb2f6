"""The card that says what a job waits for. It is first updated after two seconds: quick work shows none."""

from __future__ import annotations

import html
import time
import uuid
from typing import Any

from ..model.jobs import Job, Phase


class Card:
    """One display under the cell, updated in place, settled to one line when output starts."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._since = time.monotonic()
        self._id = f"gpu-{uuid.uuid4().hex}"
        self._shown = ""
        self._job: Job | None = None
        # A terminal can't update what it printed: there only a change of phase or reason is worth a line.
        self._updates = getattr(shell, "kernel", None) is not None
        self._settled = False

    def update(self, job: Job) -> None:
        """Show what the job does now."""
        if self._settled:
            return
        before, self._job = self._job, job
        if before and not self._updates and (before.phase, before.reason) == (job.phase, job.reason):
            return
        self._publish(describe(job, time.time()))

    def settle(self, job: Job | None = None) -> None:
        """Leave one quiet line: the job's output comes now, or it has ended."""
        if self._settled:
            return
        self._settled = True
        job = job or self._job
        if self._shown and job is not None:
            waited = time.monotonic() - self._since
            where = f" on {job.cluster}" if job.cluster else ""
            self._publish(f"Job {job.id}{where}: first output after {_seconds(waited)}")

    def end(self, job: Job) -> None:
        """Settle for a job that ended without any output."""
        if self._settled:
            return
        self._settled = True
        if self._shown:
            self._publish(describe(job, time.time()))

    def _publish(self, text: str) -> None:
        if text == self._shown:
            return
        self._shell.display_pub.publish(
            data={"text/plain": text, "text/html": f"<small>{html.escape(text)}</small>"},
            metadata={},
            transient={"display_id": self._id},
            update=bool(self._shown),
        )
        self._shown = text


def describe(job: Job, now: float) -> str:
    """Say in one line what a job does and, where it waits, why.

    :param now: seconds since the epoch, by this machine's clock.
    """
    where = f" on {job.cluster}" if job.cluster else ""
    since = _seconds(now - (job.started or job.created))
    why = f": {job.reason.message}" if job.reason else ""
    if job.unreachable_since is not None and not job.phase.ended:
        lost = _seconds(now - job.unreachable_since)
        return f"Job {job.id} {job.phase}{where}; its cluster has not been heard for {lost}, it goes on there"
    match job.phase:
        case Phase.QUEUED:
            return f"Job {job.id} queued for {since}{why or ': waiting to be placed'}"
        case Phase.STARTING:
            return f"Job {job.id} starting{where}{why}, {since} since it was submitted"
        case Phase.RUNNING | Phase.SUSPENDED:
            return f"Job {job.id} {job.phase}{where} for {since}, no output yet"
        case _:
            took = _seconds((job.ended or now) - (job.started or job.created))
            return f"Job {job.id} {job.phase}{where} after {took}{why}"


def _seconds(duration: float) -> str:
    whole = max(0, round(duration))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
