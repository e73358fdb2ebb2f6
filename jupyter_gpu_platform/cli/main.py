"""The program ``jupyter-gpu``, which ``jupyter gpu …`` runs: picks the command and turns errors into readable lines."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Protocol

from .. import errors
from .._version import __version__

if TYPE_CHECKING:
    from .arguments import Parser

#: command → module, and what it does
COMMANDS = {
    "run": ("run", "run a command as a job and show its output"),
    "ls": ("ls", "list jobs, and why those that wait do"),
    "show": ("show", "show all about one job"),
    "logs": ("logs", "show a job's output, from the beginning or as it comes"),
    "attach": ("attach", "come back to a job and watch it as if it had been started here"),
    "cancel": ("cancel", "end jobs"),
    "retry": ("retry", "run jobs that have ended again"),
    "rm": ("rm", "delete jobs that have ended, and their output"),
    "events": ("events", "show what happened, and what happens"),
    "clusters": ("clusters", "list clusters and their GPUs"),
    "cluster": ("cluster", "join a cluster, close it for new jobs, or remove it"),
    "unknown": ("unknown", "list what clusters run without the platform's knowledge, or end it"),
    "status": ("status", "show the platform, its clusters and the open jobs; starts nothing"),
    "up": ("up", "start this machine's own platform"),
    "down": ("down", "stop this machine's own platform; jobs go on"),
    "control": ("control", "run the control service in the foreground"),
    "completion": ("completion", "print the script by which bash, zsh or fish completes these commands"),
}


class Command(Protocol):
    """What a command's module offers."""

    def parser(self) -> Parser:
        """Return what reads its arguments."""
        ...

    def main(self, argv: list[str]) -> int:
        """Do it; return the exit code."""
        ...


def command(name: str) -> Command:
    """Import a command's module."""
    module: Command = importlib.import_module(f".{COMMANDS[name][0]}", __package__)
    return module


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
        # Imported here, like the commands: the program begins quickly.
        from .each import complain

        complain(error, as_json="--json" in _own(arguments))
        return 1
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _own(argv: list[str]) -> list[str]:
    """Return the words of a line that are ours, not those of the command that a job is to run."""
    return argv[: argv.index("--")] if "--" in argv else argv


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        if argv[1:2] and argv[1] in COMMANDS:
            return command(argv[1]).main(["--help"])
        print(_usage())
        return 0
    if argv[0] in ("-V", "--version"):
        print(__version__)
        return 0
    name = argv[0]
    if name not in COMMANDS:
        from ..client.options import nearest

        hint = nearest(name, COMMANDS) or "See jupyter gpu --help"
        print(f"jupyter gpu: there is no command {name!r}. {hint}", file=sys.stderr)
        return 2
    return command(name).main(argv[1:])


def _usage() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items())
    return f"""usage: jupyter gpu COMMAND …

Run work on GPUs: on this machine, or on the platform that JUPYTER_GPU_URL and JUPYTER_GPU_TOKEN name.

{commands}

jupyter gpu COMMAND --help tells more about each, with examples.

exit codes: 0 done, 1 an error, 2 a wrong line, 130 interrupted; with run, attach and retry --follow the job's own"""


if __name__ == "__main__":
    sys.exit(main())
