"""Reading the command line: a parser that suggests what was meant."""

from __future__ import annotations

import argparse
from typing import Never

from ..client.options import nearest


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
