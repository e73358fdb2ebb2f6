"""The program ``jupyter-gpu``, which ``jupyter gpu …`` runs: picks the command and turns errors into readable lines."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Protocol

from .. import errors
from .._version import __version__
from ..client.options import nearest

#: command → module, and what it does
COMMANDS = {
    "run": ("run", "run a command as a job and show its output"),
    "ls": ("ls", "list jobs"),
    "show": ("show", "show all about one job"),
    "logs": ("logs", "show a job's output, from the beginning or as it comes"),
    "cancel": ("cancel", "end jobs"),
    "status": ("status", "show the platform, its clusters and their GPUs"),
    "up": ("up", "start this machine's own platform"),
    "down": ("down", "stop this machine's own platform; jobs go on"),
    "control": ("control", "run the control service in the foreground"),
}


class Command(Protocol):
    """What a command's module offers."""

    def main(self, argv: list[str]) -> int:
        """Do it; return the exit code."""
        ...


def main(argv: list[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 an error, 2 a wrong line, 130 interrupted; with `run` the job's own."""
    arguments = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        # A job may print what this terminal can't show: that must not end the command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        return _dispatch(arguments)
    except errors.GpuPlatformError as error:
        complain(error)
        return 1
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def complain(error: errors.GpuPlatformError) -> None:
    """Show an error as a person reads it."""
    print(f"jupyter gpu: {error.message}", file=sys.stderr)
    if error.hint:
        print(error.hint, file=sys.stderr)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if argv[0] in ("-V", "--version"):
        print(__version__)
        return 0
    name = argv[0]
    if name not in COMMANDS:
        hint = nearest(name, COMMANDS) or "See jupyter gpu --help"
        print(f"jupyter gpu: there is no command {name!r}. {hint}", file=sys.stderr)
        return 2
    module: Command = importlib.import_module(f".{COMMANDS[name][0]}", __package__)
    return module.main(argv[1:])


def _usage() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items())
    return f"""usage: jupyter gpu COMMAND …

Run work on GPUs: on this machine, or on the platform that JUPYTER_GPU_URL and JUPYTER_GPU_TOKEN name.

{commands}

jupyter gpu COMMAND --help tells more about each."""


if __name__ == "__main__":
    sys.exit(main())
