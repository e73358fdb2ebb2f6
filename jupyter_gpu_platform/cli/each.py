"""Doing the same to several jobs: one that can't be done is told, and the others are done. Asking before it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from .. import errors
from ..client.describing import printable
from ..client.naming import job_named
from ..model.jobs import Job

if TYPE_CHECKING:
    from ..client.sync import Client


def do(
    client: Client, names: Sequence[str], act: Callable[[Client, Job], tuple[Job, str]], *, as_json: bool
) -> tuple[list[Job], int]:
    """Do *act* to each of the jobs and say what it says of them; return those that were done, and the exit code."""
    done, code = [], 0
    for name in names:
        try:
            job, said = act(client, job_named(client, name))
        except (errors.NotFound, errors.InvalidRequest, errors.Conflict) as error:
            code = 1
            complain(error, as_json=as_json)
            continue
        done.append(job)
        if not as_json:
            print(f"{job.id}  {printable(said)}")
    return done, code


def agreed(lines: Iterable[str], question: str) -> bool:
    """Show what it is about and ask.

    :raises InvalidRequest: there is nobody to ask.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise errors.InvalidRequest("there is nobody here to ask whether that is meant", hint="Give --yes.")
    for line in lines:
        print(printable(line).rstrip(), file=sys.stderr)
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def complain(error: errors.GpuPlatformError, *, as_json: bool = False) -> None:
    """Show an error on stderr, as a person or a program reads it."""
    if as_json:
        import msgspec

        about = {"code": error.code, "message": error.message, "hint": error.hint}
        print(msgspec.json.encode({"error": about}).decode(), file=sys.stderr)
        return
    text = f"jupyter gpu: {error.message}" + (f"\n{error.hint}" if error.hint else "")
    print("\n".join(map(printable, text.splitlines())), file=sys.stderr)
