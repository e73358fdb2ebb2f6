"""What may stand at the end of a half-written line: commands, options, ids of jobs, names of clusters, GPU models.

The parsers of the commands say what they take. Only for names that a platform knows is it asked, if it runs; nothing
is started, and after `PATIENCE` there is nothing to offer: a person waits with a finger on the tab key.
"""

from __future__ import annotations

import argparse
import re
import shlex
import signal
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from .. import errors
from ..client.describing import printable
from ..model.jobs import ENDED, Phase
from .arguments import Parser
from .connecting import connect
from .main import COMMANDS, command

if TYPE_CHECKING:
    from ..client.sync import Client

#: seconds that a platform has for its answer
PATIENCE = 1.0
#: newest jobs that are offered
JOBS = 100

OPEN = tuple(phase for phase in Phase if phase not in ENDED)
#: commands that make sense for some jobs only
PHASES = {"cancel": OPEN, "attach": OPEN, "retry": tuple(ENDED), "rm": tuple(ENDED)}


class Candidate(NamedTuple):
    text: str
    about: str = ""


#: what the shell itself completes; `completion` has each shell's way to do it
FILES, DIRECTORIES, PROGRAM = Candidate(":files"), Candidate(":dirs"), Candidate(":command")


def words_of(line: str) -> list[str]:
    """Return the words behind the program's name in a line up to the cursor; the last one is being written."""
    words = _split(line)
    return words[2:] if words and PurePath(words[0]).name == "jupyter" else words[1:]


def _split(line: str) -> list[str]:
    for quote in ("", "'", '"'):  # one may still be open
        try:
            words = shlex.split(line + quote)
        except ValueError:
            continue
        return [*words, ""] if line[-1:].isspace() and not quote else words
    return line.split()


def candidates(words: Sequence[str]) -> list[Candidate]:
    """Return what the last of *words*, the beginning of one, may become."""
    *before, current = words or [""]
    if not before:
        offered = [Candidate(name, what) for name, (_, what) in COMMANDS.items()]
        return _beginning(current, [*offered, Candidate("--help"), Candidate("--version")])
    if before[0] not in COMMANDS:
        return []
    made = command(before[0]).parser()
    place = _Place(made, before[1:])
    if place.value_of is not None:
        return _beginning(current, _values(place.value_of, before))
    if current.startswith("-") and place.takes_options:
        flag, sign, value = current.partition("=")
        if not sign:
            return _beginning(current, place.unused())
        action = made.options.get(flag)
        found = _beginning(value, _values(action, before)) if action else []
        return [one if one.text[0] == ":" else one._replace(text=f"{flag}={one.text}") for one in found]
    return _beginning(current, _values(place.positional, before)) if place.positional else []


def _beginning(current: str, offered: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in offered if one.text.startswith((current, ":"))]


class _Place:
    """Where in a command's line the next word stands."""

    def __init__(self, parser: Parser, words: Sequence[str]) -> None:
        self._parser = parser
        #: the option that the next word is a value of
        self.value_of: argparse.Action | None = None
        #: the argument that it is, where it is no option
        self.positional: argparse.Action | None = None
        self.takes_options = True
        self._used: set[str] = set()
        self._positionals = parser.positionals
        self.positional = next(self._positionals, None)
        for word in words:
            self._pass(word)

    def _pass(self, word: str) -> None:
        if self.value_of is not None:
            self.value_of = None
        elif self.takes_options and word == "--":
            self.takes_options = False
        elif self.takes_options and len(word) > 1 and word.startswith("-"):
            flag, sign, _ = word.partition("=")
            action = self._parser.options.get(flag)
            if action is not None:
                self._used.add(action.dest)
                self.value_of = action if action.nargs != 0 and not sign else None
        elif self.positional is not None:
            if self.positional.nargs == argparse.REMAINDER:
                # The command that a job runs: its first word, then its own arguments.
                self.takes_options = False
                self.positional = argparse.Action((), "arguments", nargs=argparse.REMAINDER)
            elif self.positional.nargs not in ("*", "+"):
                self.positional = next(self._positionals, None)

    def unused(self) -> list[Candidate]:
        """Return the options that may still be given, their long forms."""
        return [
            Candidate(flag, (action.help or "").replace("%%", "%"))
            for flag, action in self._parser.options.items()
            if flag.startswith("--") and (action.dest not in self._used or isinstance(action, argparse._AppendAction))
        ]


def _values(action: argparse.Action, before: Sequence[str]) -> list[Candidate]:
    if action.choices:
        return [Candidate(str(choice)) for choice in action.choices]
    match action.dest:
        case "job" | "jobs":
            phases = PHASES.get(before[0], ())
            return [one for one in _asked(lambda client: _jobs(client, phases)) if one.text not in before]
        case "cluster" | "clusters":
            return [one for one in _asked(_clusters) if one.text not in before]
        case "end":
            return _asked(_unknown)
        case "gpu_model":
            return _asked(_models)
        case "workdir":
            return [DIRECTORIES]
        case "command":
            return [PROGRAM]
        case "python" | "arguments":
            return [FILES]
        case _:
            return []


# --- what a platform knows -------------------------------------------------------------------------------------


def _jobs(client: Client, phases: Sequence[Phase]) -> list[Candidate]:
    page = client.jobs(limit=JOBS, phases=phases)
    return [Candidate(job.id, printable(f"{job.phase} {job.spec.name}".rstrip())) for job in page.items]


def _clusters(client: Client) -> list[Candidate]:
    return [Candidate(cluster["name"], str(cluster.get("state", ""))) for cluster in client.clusters()]


def _unknown(client: Client) -> list[Candidate]:
    found = [entry for cluster in client.clusters() for entry in client.unknown_attempts(cluster["name"])]
    return [Candidate(f"{entry['job']}.{entry['attempt']}", entry["cluster"]) for entry in found]


def _models(client: Client) -> list[Candidate]:
    """Return the GPU models there are, with their words joined: so a shell needs no quotes, and all words still fit."""
    models = {gpu["model"] for cluster in client.clusters() for gpu in cluster["capacity"].get("gpus", ())}
    return [Candidate("-".join(re.findall(r"[\w.]+", model)), printable(model)) for model in sorted(models)]


def _asked(ask: Callable[[Client], list[Candidate]]) -> list[Candidate]:
    """Ask the platform, if it runs; where it doesn't, or isn't quick, there is nothing to offer."""
    handler = signal.signal(signal.SIGALRM, _give_up)
    timer = signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        with connect(start=False) as client:
            return ask(client)
    except (errors.GpuPlatformError, _TooLong):
        return []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


class _TooLong(BaseException):
    """The platform took too long; not an Exception, so that nothing in between tries again."""


def _give_up(*_: object) -> None:
    raise _TooLong
