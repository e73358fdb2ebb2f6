"""What jobs really did, noted by the jobs themselves in files that no part of the platform touches.

A job takes an exclusive lock, notes its start, and notes each record durably before it shows it. Its records carry
tokens ``number.attempt.n``, so that whatever comes out anywhere can be laid beside what was meant.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from jupyter_gpu_platform.model.jobs import Cell, Command, JobSpec
from jupyter_gpu_platform.model.resources import Resources

#: What every job runs. In a cell it may display as well as print.
PROGRAM = """
import fcntl, os, random, sys, time
folder, number, records, pause, quiet, width, code, shows = ARGUMENTS
attempt = os.environ["JGP_ATTEMPT"]
def opened(name):
    return os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
def note(file, text):
    os.write(file, (text + "\\n").encode())
    os.fsync(file)
events, intents, lock = opened("events"), opened("%d.records" % number), opened("%d.lock" % number)
try:
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    note(events, "twice %d %s %d" % (number, attempt, os.getpid()))
    os._exit(9)
with open("/proc/self/stat") as own:
    born = own.read().rpartition(")")[2].split()[19]
note(events, "start %d %s %d %s" % (number, attempt, os.getpid(), born))
chance = random.Random(number)
time.sleep(quiet)
for n in range(records):
    token = "%d.%s.%d:%s;" % (number, attempt, n, "x" * chance.randrange(width))
    note(intents, token)
    if shows and chance.random() < 0.3:
        display({"text/plain": token}, raw=True)
    else:
        print(token, flush=True)
    time.sleep(pause * chance.random())
note(events, "end %d %s %d" % (number, attempt, code))
if code and shows:
    raise RuntimeError("meant to fail")
if code:
    sys.exit(code)
"""

TOKEN = re.compile(r"(\d+)\.(\d+)\.(\d+):x*;")

#: (number of the job, attempt)
Run = tuple[int, int]


def spec(folder: Path, number: int, chance: Random, most_records: int) -> JobSpec:
    """Make the job with this number: a program or a cell, of few or many records, that ends well or doesn't."""
    shows = chance.random() < 0.06  # few: a kernel's shell takes as long to start as ten programs
    records = int((most_records + 1) * chance.random() ** 2)
    width = 5000 if chance.random() < 0.05 else 120
    code = chance.choice([0, 0, 0, 0, 0, 0, 0, 1 if shows else 3])
    pause, quiet = chance.choice([0.0, 0.01, 0.04]), chance.choice([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.5])
    arguments = (str(folder), number, records, pause, quiet, width, code, shows)
    program = f"ARGUMENTS = {arguments!r}{PROGRAM}"
    source = Cell(code=program) if shows else Command(argv=(sys.executable, "-I", "-S", "-c", program))
    return JobSpec(
        source=source,
        name=f"faults {number}",
        labels={"number": str(number)},
        resources=Resources(cpus=0.15),
        retries=chance.choice([0, 0, 0, 2]),
    )


def tokens(records: Iterable[dict[str, Any]]) -> list[str]:
    """Return the whole tokens that records show, in their order."""
    text = []
    for record in records:
        if record["type"] == "stream" and record["name"] == "stdout":
            text.append(record["text"])
        elif record["type"] == "display":
            text.append(record["data"]["text/plain"])
    return [match[0] for match in TOKEN.finditer("".join(text))]


@dataclass
class Ledger:
    """The files, as far as they have been read."""

    folder: Path
    #: run → process id of the job's own code
    started: dict[Run, int] = field(default_factory=dict)
    #: run → when that process was made, in the kernel's ticks: ids are given again
    born: dict[Run, str] = field(default_factory=dict)
    #: run → exit code that it was about to end with
    ended: dict[Run, int] = field(default_factory=dict)
    #: what must never happen, in words
    broken: list[str] = field(default_factory=list)
    _position: int = 0

    def read(self) -> None:
        """Take in what was noted since the last look."""
        path = self.folder / "events"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._position += len(line)
                self._take(*line.decode().split())

    def _take(self, what: str, number: str, attempt: str, value: str, born: str = "") -> None:
        run = (int(number), int(attempt))
        if what == "twice":
            self.broken.append(f"job {number}: attempt {attempt} ran while the lock was held")
        elif what == "end":
            self.ended[run] = int(value)
        else:
            if run in self.started:
                self.broken.append(f"job {number}: attempt {attempt} was started twice")
            self.started[run], self.born[run] = int(value), born

    def running(self) -> list[Run]:
        """The runs that began and have neither ended nor died."""
        self.read()
        return [run for run in self.started if run not in self.ended and self._alive(run)]

    def _alive(self, run: Run) -> bool:
        try:
            words = Path(f"/proc/{self.started[run]}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        return words[0] != "Z" and words[19] == self.born[run]

    def intents(self, number: int) -> dict[int, list[str]]:
        """What each attempt of a job meant to show."""
        found: dict[int, list[str]] = defaultdict(list)
        path = self.folder / f"{number}.records"
        if path.exists():
            for match in TOKEN.finditer(path.read_text()):
                found[int(match[2])].append(match[0])
        return found
