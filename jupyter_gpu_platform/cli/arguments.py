"""Reading the command line: a parser that suggests what was meant, and the kinds of values that options take."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Callable, Iterable
from typing import Never, TypeVar

from .. import errors
from ..model import units

T = TypeVar("T")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a sentence that names what *word* may have been meant for; empty where nothing is near."""
    found = difflib.get_close_matches(word, list(known), n=3, cutoff=0.55)
    return f"Did you mean {' or '.join(found)}?" if found else ""


class Parser(argparse.ArgumentParser):
    """A command's parser. Options are never abbreviated, so that a new one can't change what an old line means."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"jupyter gpu {command}", description=description, allow_abbrev=False)

    def json_option(self, what: str) -> None:
        self.add_argument("--json", action="store_true", help=f"print {what} as JSON")

    def error(self, message: str) -> Never:
        head, _, unknown = message.partition("unrecognized arguments: ")
        if not head and unknown:
            flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
            words = [word.split("=")[0] for word in unknown.split() if word.startswith("-")]
            hints = [hint for word in words if (hint := nearest(word, flags))]
            message = " ".join([f"unknown: {unknown}.", *hints])
        self.exit(2, f"{self.prog}: {message}\nSee {self.prog} --help\n")


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
