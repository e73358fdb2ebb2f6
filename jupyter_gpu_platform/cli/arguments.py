"""Reading the command line: a parser that teaches by example and suggests what was meant."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from typing import Never

from ..client.options import nearest

#: columns of help texts
WIDTH = 100


class Parser(argparse.ArgumentParser):
    """A command's parser. Options are never abbreviated, so that a new one can't change what an old line means.

    :param examples: lines that are shown below the options.
    :param codes: what its exit codes mean, where that is not the usual.
    """

    def __init__(self, command: str, description: str, *, examples: str, codes: str = "") -> None:
        lines = textwrap.indent(textwrap.dedent(examples).strip(), "  ")
        meant = textwrap.fill(f"exit codes: {codes or '0 done, 1 an error, 2 a wrong line'}", WIDTH)
        super().__init__(
            prog=f"jupyter gpu {command}",
            description=textwrap.fill(description, WIDTH),
            epilog=f"examples:\n{lines}\n\n{meant}",
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=WIDTH),
        )

    def job(self, *, several: bool = False) -> None:
        """Add the argument that names a job, ``job``, or some of them, ``jobs``."""
        if several:
            self.add_argument("jobs", metavar="ID", nargs="+", help="the jobs' ids, or their beginnings")
        else:
            self.add_argument("job", metavar="ID", help="the job's id, or its beginning")

    def json_option(self, what: str) -> None:
        self.add_argument("--json", action="store_true", help=f"print {what} as JSON; errors as JSON on stderr")

    @property
    def options(self) -> dict[str, argparse.Action]:
        """Flags, as they are written, and what they set."""
        return {flag: action for action in self._actions for flag in action.option_strings}

    @property
    def positionals(self) -> Iterator[argparse.Action]:
        return (action for action in self._actions if not action.option_strings)

    def error(self, message: str) -> Never:
        head, _, unknown = message.partition("unrecognized arguments: ")
        if not head and unknown:
            flags = [flag for flag in self.options if flag.startswith("--")]
            words = [word.split("=")[0] for word in unknown.split() if word.startswith("-")]
            hints = [hint for word in words if (hint := nearest(word, flags))]
            message = " ".join([f"unknown: {unknown}.", *hints])
        self.exit(2, f"{self.prog}: {message}\nSee {self.prog} --help\n")
