"""The options of a job as text: one definition of each for the magics, their configuration and the command line."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

from .. import errors
from ..model import units
from .specifying import Options

T = TypeVar("T")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a sentence that names what *word* may have been meant for; empty where nothing is near."""
    names = {name.lower(): name for name in known}
    found = [names[name] for name in difflib.get_close_matches(word.lower(), names, n=3, cutoff=0.55)]
    return f"Did you mean {' or '.join(found)}?" if found else ""


def value(read: Callable[[str], T]) -> Callable[[str], T]:
    """Make an option's type of a function that raises our errors."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except errors.InvalidRequest as error:
            raise argparse.ArgumentTypeError(f"{error.message}. {error.hint}") from error

    return convert


size = value(units.parse_size)
duration = value(units.parse_duration)


def at_least(least: int) -> Callable[[str], int]:
    """Make an option's type: whole numbers from *least* on."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is less than {least}")
        return number

    return convert


def cores(text: str) -> float:
    """Read a number of CPU cores; half ones are fine."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of cores") from None
    if not 0 <= number <= 65536:
        raise argparse.ArgumentTypeError(f"{text} is not a number of cores")
    return number


def variable(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``; a bare ``NAME`` takes its value from the environment here."""
    name, sign, content = text.partition("=")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    if sign:
        return name, content
    if name not in os.environ:
        raise argparse.ArgumentTypeError(f"{name} is not set here; write {name}=VALUE")
    return name, os.environ[name]


def pair(text: str) -> tuple[str, str]:
    """Read ``key=value``."""
    key, sign, content = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value")
    return key, content


class Option(NamedTuple):
    """One option of a job."""

    #: its key in `Options`
    name: str
    flag: str
    #: reads its text; raises `argparse.ArgumentTypeError`
    read: Callable[[str], Any]
    metavar: str
    #: with its unit and its default
    help: str
    #: may be given several times; each is a pair, and together they are a mapping
    repeated: bool = False


JOB_OPTIONS = (
    Option("gpus", "--gpus", at_least(0), "N", "whole GPUs (default: 0)"),
    Option("gpu_model", "--gpu-model", str, "MODEL", "only GPUs of this model: A100, 'H100 SXM', …; any by default"),
    Option("gpu_memory", "--gpu-memory", size, "SIZE", "least memory of each GPU, such as 40GiB"),
    Option("cpus", "--cpus", cores, "N", "cores to reserve (default: none are reserved)"),
    Option("memory", "--memory", size, "SIZE", "main memory to reserve, such as 16GiB (default: none is reserved)"),
    Option("cluster", "--cluster", str, "NAME", "where to run it; wherever it fits by default"),
    Option("image", "--image", str, "IMAGE", "container image; clusters only"),
    Option("python", "--python", str, "PATH", "interpreter; on this machine this one by default"),
    Option("workdir", "--workdir", str, "DIR", "working directory; on this machine this one by default"),
    Option("name", "--name", str, "NAME", "what the job is called in lists"),
    Option("project", "--project", str, "NAME", "whom it counts for (default: default)"),
    Option("labels", "--label", pair, "K=V", "label; repeatable", repeated=True),
    Option(
        "env", "--env", variable, "K[=V]", "environment variable, without =V as it is here; repeatable", repeated=True
    ),
    Option("max_run_time", "--max-run-time", duration, "TIME", "end it after so long, such as 90s, 15m, 2h30m"),
    Option("max_queue_time", "--max-queue-time", duration, "TIME", "give up waiting after so long, such as 1d"),
    Option("max_output", "--max-output", size, "SIZE", "keep so much of its output (default: 256MiB)"),
    Option("retries", "--retries", at_least(0), "N", "try again so often when it fails (default: 0)"),
    Option("priority", "--priority", int, "N", "the higher goes first (default: 0)"),
)


def add_job_options(parser: argparse._ActionsContainer) -> None:
    """Give *parser* the options of a job. What is not given is absent from its result: see `job_options`."""
    for option in JOB_OPTIONS:
        parser.add_argument(
            option.flag,
            dest=option.name,
            type=option.read,
            metavar=option.metavar,
            help=option.help.replace("%", "%%"),
            action="append" if option.repeated else "store",
            default=argparse.SUPPRESS,
        )


def job_options(given: argparse.Namespace | Mapping[str, Any]) -> Options:
    """Return the job's options among *given*, those that were named only."""
    named = vars(given) if isinstance(given, argparse.Namespace) else given
    found = {
        option.name: dict(named[option.name]) if option.repeated else named[option.name]
        for option in JOB_OPTIONS
        if option.name in named
    }
    return cast(Options, found)
