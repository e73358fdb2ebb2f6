"""The magics: ``%%gpu_run`` runs a cell as a job, ``%gpu`` comes back to one."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .. import errors
from ..model.jobs import Cell, Environment, Frontend, Job, JobSpec, Limits, Target
from ..model.resources import Resources
from . import failures
from .following import Feed, submitted, watch
from .handle import JobHandle
from .waiting import describe

if TYPE_CHECKING:
    from ..client import Client

_HELP = """Run this cell as a job, on a GPU, and show its output here as if the cell had run here.

    %%gpu_run [--gpus N] [--gpu-model M] [--cluster C] [--name NAME] [--detach]
              [--max-run-time T] [--on-interrupt cancel|detach] [--env NAME=VALUE]...

With nothing set up the job runs on this machine, with this kernel's own Python and working directory; the platform
for that starts by itself.

Options
  --gpus N            whole GPUs (default: 0)
  --gpu-model M       only GPUs of this model: A100, "H100 SXM", ...
  --cluster C         run on this cluster (default: wherever it fits)
  --name NAME         a name by which you find the job again
  --detach            don't wait: return a handle (.status() .wait() .output() .logs() .attach() .cancel())
  --max-run-time T    end the job after this long: 90, 90s, 15m, 2h, 1h30m
  --on-interrupt W    what the stop button does. cancel (default): the first press raises KeyboardInterrupt in the
                      job's code, the second cancels the job. detach: stop waiting, the job goes on
  --env NAME=VALUE    an environment variable for the job; may be given several times

Examples
    %%gpu_run --gpus 1
    import torch
    torch.cuda.get_device_name()

    %%gpu_run --gpus 2 --gpu-model A100 --max-run-time 2h --name training
    !python train.py

    %%gpu_run --gpus 1 --detach
    train()                      # close the laptop; later:  %gpu attach ID
"""

_DURATION = re.compile(r"^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?$")


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises where argparse would end the program."""

    def error(self, message: str) -> NoReturn:
        raise errors.InvalidRequest(f"%%gpu_run: {message}", hint="%%gpu_run? shows the options, with examples.")


def _parser() -> _Parser:
    parser = _Parser(prog="%%gpu_run", add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--gpu-model")
    parser.add_argument("--cluster")
    parser.add_argument("--name", default="")
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--max-run-time", type=_duration)
    parser.add_argument("--on-interrupt", choices=("cancel", "detach"), default="cancel")
    parser.add_argument("--env", action="append", default=[], type=_variable)
    return parser


def _duration(text: str) -> float:
    match = _DURATION.match(text.strip())
    if not match or not any(match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: write 90s, 15m, 2h or 1h30m")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total <= 0:
        raise argparse.ArgumentTypeError("it must be more than nothing")
    return total


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def parse(line: str) -> argparse.Namespace:
    """Read the options of ``%%gpu_run``.

    :raises InvalidRequest: with the nearest option where one is unknown.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise errors.InvalidRequest(f"%%gpu_run: {error} in: {line}", hint="Close the quotation.") from None
    parser = _parser()
    options, unknown = parser.parse_known_args(words)
    if unknown:
        raise _unknown(unknown[0], [name for action in parser._actions for name in action.option_strings])
    if options.gpus < 0:
        parser.error("argument --gpus: it can't be negative")
    return options


def _unknown(word: str, known: list[str]) -> errors.InvalidRequest:
    flag = word.partition("=")[0]
    near = difflib.get_close_matches(flag, known, n=1, cutoff=0.5)
    if not flag.startswith("-"):
        hint = "The code goes below the line that says %%gpu_run; options begin with two dashes."
    elif near:
        hint = f"Did you mean {near[0]}? %%gpu_run? shows all options."
    else:
        hint = "%%gpu_run? shows all options."
    return errors.InvalidRequest(f"%%gpu_run has no option {word}", hint=hint)


def _about_this_kernel(shell: Any) -> Frontend:
    """Say what the far shell needs to stand in for this kernel."""
    if getattr(shell, "kernel", None) is None:
        return Frontend()
    header = (shell.get_parent() or {}).get("header") or {}
    known = {name: header[name] for name in ("msg_id", "session", "username") if name in header}
    return Frontend(parent_header=known, kernel_pid=os.getpid())


def specify(
    options: argparse.Namespace, code: str, *, execution_count: int, local: bool, frontend: Frontend
) -> JobSpec:
    """Make the job's spec of the options and the cell's code.

    :param local: the job runs on this machine: with this interpreter, in this directory.
    """
    environment = Environment(python=sys.executable, workdir=str(Path.cwd())) if local else Environment()
    return JobSpec(
        source=Cell(code=code, execution_count=execution_count, frontend=frontend),
        name=options.name,
        resources=Resources(gpus=options.gpus, gpu_model=options.gpu_model),
        environment=environment,
        env=dict(options.env),
        target=Target(cluster=options.cluster),
        limits=Limits(max_run_seconds=options.max_run_time),
    )


class Magic:
    """The magics of one shell, over one connection that lives as long as the kernel."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._pid = os.getpid()

    def _connect(self) -> Client:
        # Imported here: loading the extension stays quick.
        from ..client import connect

        with self._lock:
            if self._client is None or self._pid != os.getpid():
                self._client, self._pid = connect(), os.getpid()
            return self._client

    def gpu_run(self, line: str, cell: str) -> JobHandle | None:
        try:
            return self._gpu_run(line, cell)
        except errors.GpuPlatformError as error:
            raise failures.readable(error) from None

    gpu_run.__doc__ = _HELP

    def _gpu_run(self, line: str, cell: str) -> JobHandle | None:
        options = parse(line)
        # IPython ends a magic's body with a newline of its own; line numbers and semicolons are the raw cell's.
        code = cell.removesuffix("\n")
        if not code.strip():
            raise errors.InvalidRequest("%%gpu_run: the cell is empty", hint="Put the code below the %%gpu_run line.")
        # The number of this cell: the shell's own counter may be at the next one already (IPython 9.18).
        count = self._shell.displayhook.prompt_count

        frontend = _about_this_kernel(self._shell)

        def submit(client: Client) -> Job:
            local = client.status().local
            return client.submit(specify(options, code, execution_count=count, local=local, frontend=frontend))

        if options.detach:
            return JobHandle(self._connect, submitted(Feed(self._connect, submit, output=False)))
        watch(self._shell, Feed(self._connect, submit), on_interrupt=options.on_interrupt)
        return None

    def gpu(self, line: str) -> None:
        """Come back to a job, also from a new kernel.

        %gpu attach ID   show its output from the beginning, and go on until it ends
        %gpu output ID   show its output so far
        %gpu logs ID     print its output so far as text
        %gpu status ID   say how it is, and why it waits
        %gpu cancel ID   end it
        """
        try:
            self._gpu(line.split())
        except errors.GpuPlatformError as error:
            raise failures.readable(error) from None

    def _gpu(self, words: list[str]) -> None:
        verbs = ("attach", "output", "logs", "status", "cancel")
        if len(words) != 2 or words[0] not in verbs:
            near = difflib.get_close_matches(words[0], verbs, n=1) if words else []
            hint = f"Did you mean: %gpu {near[0]} ID" if near else f"Write %gpu {'|'.join(verbs)} ID."
            raise errors.InvalidRequest(f"%gpu does not understand {' '.join(words) or 'an empty line'!r}", hint=hint)
        verb, job_id = words
        handle = JobHandle(self._connect, self._connect().job(job_id))
        match verb:
            case "attach":
                handle.attach()
            case "output":
                handle.output()
            case "logs":
                sys.stdout.write(handle.logs())
            case "status":
                sys.stdout.write(describe(handle.status(), time.time()) + "\n")
            case _:
                handle.cancel()
                sys.stdout.write(describe(handle.status(), time.time()) + "\n")
