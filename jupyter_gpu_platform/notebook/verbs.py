"""What ``%gpu`` can do: come back to jobs, look at the platform, keep defaults."""

from __future__ import annotations

import itertools
import shlex
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import errors
from ..client import describing, local
from ..client.options import nearest
from ..model.jobs import ENDED, Attempt, Job, Phase
from . import handle
from .config import GpuMagics
from .tables import Table
from .waiting import describe

if TYPE_CHECKING:
    from ..client import Client

#: jobs that `%gpu jobs` shows
LISTED = 20

HELP = """Come back to a job, also from a new kernel; look at the platform; keep defaults.

    %gpu jobs [--all]          your jobs that are open, newest first; with --all those that have ended, too
    %gpu show ID               all about one job
    %gpu logs ID [--tail N]    print its output so far as text, or the last N lines of it
    %gpu output ID             show its output so far, as if it had run here
    %gpu attach ID             show its output from the beginning, and go on until it ends
    %gpu result ID             give the value that it left; its --out names come into this notebook
    %gpu cancel ID             end it
    %gpu status [ID]           say how it is and why it waits; without ID: the platform and its GPUs
    %gpu config [NAME=VALUE …] show the defaults of %%gpu_run, or set them for this notebook; NAME= takes one back
    %gpu up, %gpu down         start or stop this machine's own platform; jobs that run go on

ID is a job's id, or the beginning of one; without it the newest job that this notebook has submitted is meant.

Examples
    %gpu jobs
    %gpu attach j06ehk
    %gpu logs --tail 20
    %gpu config gpus=1 gpu_model=A100
    job = %gpu attach                    # %gpu show, jobs, config and result give values to work with
"""

VERBS = ("jobs", "show", "logs", "output", "attach", "result", "cancel", "status", "config", "up", "down", "help")


class Verbs:
    """The verbs, for one shell.

    :param connect: gives the client, and starts the local platform where that is what it takes.
    :param newest: gives the newest job that was submitted here, or None.
    :param namespace: the notebook's names.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        newest: Callable[[], handle.Job[Any] | None],
        settings: GpuMagics,
        namespace: dict[str, Any],
    ) -> None:
        self._connect, self._newest, self._settings, self._namespace = connect, newest, settings, namespace

    def run(self, line: str) -> Any:
        """Do what the line says, and return what is to be shown.

        :raises InvalidRequest: with the nearest verb where it is unknown.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise errors.InvalidRequest(f"%gpu: {error} in: {line}", hint="Close the quotation.") from None
        if not words or words[0] in ("help", "--help", "-h"):
            print(HELP, end="")  # noqa: T201 - what a line magic shows
            return None
        verb, rest = words[0], words[1:]
        if verb not in VERBS:
            hint = nearest(verb, VERBS).replace("Did you mean ", "Did you mean %gpu ")
            raise errors.InvalidRequest(f"%gpu has no verb {verb!r}", hint=hint or f"There are: {', '.join(VERBS)}")
        found: Any = getattr(self, f"_{verb}")(rest)
        return found

    # --- one job ---------------------------------------------------------------------------------------------

    def _handle(self, verb: str, words: list[str]) -> handle.Job[Any]:
        """Return the job that the words name, which must be one or none."""
        if len(words) > 1 or any(word.startswith("-") for word in words):
            raise _usage(verb, words)
        if words:
            # Imported here: loading the extension stays quick.
            from ..client.naming import job_named

            return handle.Job(self._connect, job_named(self._connect(), words[0]))
        newest = self._newest()
        if newest is None:
            raise errors.InvalidRequest(
                f"%gpu {verb}: this notebook has submitted no job yet",
                hint=f"Name one: %gpu {verb} ID. %gpu jobs lists them.",
            )
        return newest

    def _show(self, words: list[str]) -> Table:
        job = self._handle("show", words).status()
        client = self._connect()
        return Table(("about", "what"), _facts(job, client.attempts(job.id), time.time()))

    def _logs(self, words: list[str]) -> None:
        words, tail = list(words), None
        if "--tail" in words:
            at = words.index("--tail")
            if not words[at + 1 : at + 2] or not words[at + 1].isdigit():
                raise errors.InvalidRequest("%gpu logs: --tail takes a number of lines", hint="%gpu logs ID --tail 20")
            tail = int(words[at + 1])
            del words[at : at + 2]
        text = self._handle("logs", words).logs()
        if tail is not None:
            text = "".join(text.splitlines(keepends=True)[-tail:] if tail else [])
        print(text, end="")  # noqa: T201 - what a line magic shows

    def _output(self, words: list[str]) -> None:
        self._handle("output", words).output()

    def _attach(self, words: list[str]) -> None:
        self._handle("attach", words).attach()

    def _result(self, words: list[str]) -> Any:
        job = self._handle("result", words)
        kept = job.outcome(job.wait())
        self._namespace.update(kept.returned.values)
        if kept.returned.values:
            print(f"Here now: {', '.join(kept.returned.values)}")  # noqa: T201 - what a line magic shows
        return kept.given()

    def _cancel(self, words: list[str]) -> None:
        job = self._handle("cancel", words)
        job.cancel()
        print(describe(job.status(), time.time()))  # noqa: T201 - what a line magic shows

    def _status(self, words: list[str]) -> Table | None:
        if not words:
            return self._platform()
        print(describe(self._handle("status", words).status(), time.time()))  # noqa: T201 - what a line magic shows
        return None

    # --- all jobs, the platform ------------------------------------------------------------------------------

    def _jobs(self, words: list[str]) -> handle.JobList:
        if words not in ([], ["--all"]):
            raise _usage("jobs", words, ("--all",))
        phases = () if words else [phase for phase in Phase if phase not in ENDED]
        found = itertools.islice(self._connect().iter_jobs(phases=phases), LISTED)
        return handle.JobList([handle.Job(self._connect, job) for job in found])

    def _platform(self) -> Table:
        client = self._connect()
        status, open_phases = client.status(), [phase for phase in Phase if phase not in ENDED]
        jobs = Counter(job.phase for job in client.iter_jobs(phases=open_phases))
        rows = [
            ("platform", f"{client.url} ({'this machine' if status.local else 'remote'}, {status.version})"),
            ("you", f"{status.user} ({status.role})"),
            ("jobs", ", ".join(f"{count} {phase}" for phase, count in jobs.items()) or "none open"),
        ]
        for cluster in client.clusters():
            capacity = cluster.get("capacity") or {}
            models = Counter(gpu["model"] for gpu in capacity.get("gpus", ()))
            gpus = ", ".join(f"{count} × {model}" for model, count in models.items())
            state = "closed for new jobs" if cluster.get("drained") else str(cluster.get("state", ""))
            rows.append((f"cluster {cluster['name']}", f"{state}; {gpus or capacity.get('gpu_note') or 'no GPU'}"))
        return Table(("about", "what"), rows)

    def _config(self, words: list[str]) -> Table:
        names = []
        for word in words:
            name, sign, text = word.partition("=")
            names.append(self._settings.set(name, text) if sign else self._settings.named(name))
        rows = [row for row in self._settings.rows() if not names or row[0] in names]
        return Table(("setting", "value", "meaning"), rows)

    def _up(self, words: list[str]) -> None:
        if words:
            raise _usage("up", words)
        found = local.ensure()
        print(f"Runs: {found.url} (process {found.pid}, {found.version})")  # noqa: T201 - what a line magic shows

    def _down(self, words: list[str]) -> None:
        if words:
            raise _usage("down", words)
        stopped = local.stop()
        said = "Stopped. Jobs that run go on." if stopped else "No platform runs on this machine."
        print(said)  # noqa: T201 - what a line magic shows


def _usage(verb: str, words: list[str], known: tuple[str, ...] = ()) -> errors.InvalidRequest:
    usage = next(line.strip() for line in HELP.splitlines() if f"%gpu {verb}" in line).split("  ")[0]
    hint = nearest(words[0], known) if words else ""
    return errors.InvalidRequest(
        f"%gpu {verb} does not understand {shlex.join(words)!r}", hint=f"{hint} Write: {usage}".strip()
    )


def _facts(job: Job, attempts: tuple[Attempt, ...], now: float) -> list[tuple[str, str]]:
    rows = describing.facts(job, now)
    for attempt in attempts:
        gpus = f" on {' '.join(attempt.gpus)}" if attempt.gpus else ""
        why = f": {attempt.reason.message}" if attempt.reason else ""
        rows.append((f"attempt {attempt.number}", f"{attempt.state} at {attempt.cluster}{gpus}{why}"))
    return rows
