"""``gpu.run``, ``gpu.attach`` and ``gpu.jobs``: jobs without a function."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Unpack

from .. import errors
from ..client import fitting
from ..client.current import current
from ..client.specifying import Options, specify
from ..model.jobs import Command, Phase
from ..notebook import failures
from ..notebook.handle import Job, JobList
from .functions import checked

#: What only a shell understands.
_SHELL = {"|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1", "2>", "&>"}


def run(
    command: str | Sequence[str],
    *,
    wait: bool = True,
    on_interrupt: Literal["cancel", "detach"] = "cancel",
    **options: Unpack[Options],
) -> Job[None]:
    """Run a command as a job, show its output here, and return the job once it has ended well.

    :param command: a program and its arguments, as a line or as a sequence. No shell is in between: for pipes and the
        like pass ``["sh", "-c", "…"]``.
    :param wait: if false, return the job at once and show nothing.
    :param on_interrupt: what Ctrl-C does: cancel the job, or leave it running (``detach``).
    :param options: how to run it, as `Options` says: ``gpus=2``, ``name="training"``, …
    :raises JobFailed: it ended badly; with ``wait=False``, `Job.result` raises it.
    :raises KeyboardInterrupt: it was interrupted.
    :raises InvalidRequest: the command or an option is none, or the service refuses it.
    :raises Unavailable: the service can't be reached for 30 seconds.
    """
    argv = _argv(command)
    connection = current()
    try:
        client, local, known = connection.client(), connection.status.local, checked(options)
        spec = specify(Command(argv=argv), here=fitting.runs_here(client, known, local=local), **known)
        fitting.check(client, spec, local=local)
        submitted = client.submit(spec)
    except errors.GpuPlatformError as error:
        raise failures.readable(error) from None
    job: Job[None] = Job(connection.client, submitted, own=True)
    if wait:
        job.attach(on_interrupt=on_interrupt)
    return job


def _argv(command: str | Sequence[str]) -> tuple[str, ...]:
    if callable(command):
        raise errors.InvalidRequest("gpu.run takes a command", hint="A function: gpu.remote(function)(arguments)")
    if not isinstance(command, str):
        argv = tuple(map(str, command))
    else:
        try:
            argv = tuple(shlex.split(command))
        except ValueError as error:
            raise errors.InvalidRequest(f"{error} in: {command}", hint="Close it, or pass a list.") from None
        if found := _SHELL.intersection(argv):
            raise errors.InvalidRequest(
                f"{found.pop()} needs a shell, and gpu.run starts the program itself",
                hint=f"Write gpu.run(['sh', '-c', {command!r}]).",
            )
    if not argv:
        raise errors.InvalidRequest("there is no command", hint="Like gpu.run('python train.py', gpus=1).")
    return argv


def attach(job_id: str) -> Job[Any]:
    """Find a job again, from anywhere; ``.attach()`` then shows its output, ``.result()`` waits for its value.

    :param job_id: as lists show it, and as the job's own output holds it.
    :raises NotFound: there is no such job, or it is not for you to see.
    """
    connection = current()
    try:
        return Job(connection.client, connection.client().job(job_id))
    except errors.GpuPlatformError as error:
        raise failures.readable(error) from None


def jobs(
    *,
    limit: int = 50,
    phases: Iterable[Phase | str] = (),
    name: str = "",
    project: str = "",
    owner: str = "",
    cluster: str = "",
    labels: Mapping[str, str] | None = None,
) -> JobList:
    """Return jobs, newest first; shows as a table.

    :param limit: at most so many.
    :param phases: only these, such as ``["queued", "running"]``; any when absent. So with the others.
    :raises InvalidRequest: there is no such phase.
    """
    connection = current()
    client, after, phases = connection.client(), "", tuple(phases)
    found: list[Job[Any]] = []
    try:
        while len(found) < limit:
            page = client.jobs(
                limit=min(limit - len(found), 1000),
                after=after,
                phases=phases,
                project=project,
                owner=owner,
                cluster=cluster,
                name=name,
                labels=labels,
            )
            found += [Job(connection.client, job) for job in page.items]
            if not page.next:
                break
            after = page.next
    except errors.GpuPlatformError as error:
        raise failures.readable(error) from None
    return JobList(found)
