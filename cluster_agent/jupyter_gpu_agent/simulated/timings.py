"""How long simulated attempts take, what they write and how they end: drawn at random, the same for the same seed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import NamedTuple

from jupyter_gpu_platform.errors import InvalidRequest

from ..executors import AttemptKey


class Range(NamedTuple):
    """Any number between two, each as likely as the other."""

    low: float
    high: float

    @classmethod
    def read(cls, text: str) -> Range:
        """Read ``2`` or ``0.5:2``."""
        low, _, high = text.partition(":")
        found = cls(float(low), float(high or low))
        if not 0 <= found.low <= found.high < math.inf:
            raise ValueError(text)
        return found

    def draw(self, dice: random.Random) -> float:
        return self.low if self.low == self.high else dice.uniform(self.low, self.high)


class Course(NamedTuple):
    """What becomes of one attempt, unless it is stopped."""

    #: seconds before it claims, as a container takes to be made
    start_delay: float
    #: seconds that its code runs
    run_time: float
    records: int
    exit_code: int


class Timings(NamedTuple):
    """The settings of a simulated executor; each can be given as an option of the agent."""

    #: seconds, or a range of them
    start_delay: Range = Range(0.1, 0.5)
    run_time: Range = Range(1.0, 5.0)
    #: output records of an attempt, besides the one that says how it ended
    records: Range = Range(0, 20)
    #: characters of each
    record_length: Range = Range(80, 80)
    #: the share of attempts that fail, from 0 to 1
    failures: Range = Range(0.02, 0.02)
    #: another seed gives other courses
    seed: Range = Range(0, 0)
    #: what the cluster says that it has
    cpus: Range = Range(64, 64)

    @classmethod
    def read(cls, options: Mapping[str, str]) -> Timings:
        """Read an executor's options.

        :raises InvalidRequest: one is unknown or can't be read.
        """
        if unknown := set(options).difference(cls._fields):
            raise InvalidRequest(
                f"the simulated executor has no option {min(unknown)!r}", hint=f"It has: {', '.join(cls._fields)}."
            )
        found = {}
        for name, text in options.items():
            try:
                found[name] = Range.read(text)
            except ValueError:
                raise InvalidRequest(
                    f"{text!r} can't be read as {name}", hint="Give a number, or two as a range: 0.5:2."
                ) from None
        return cls(**found)

    def course(self, key: AttemptKey) -> Course:
        """Draw what becomes of an attempt."""
        dice = random.Random(f"{self.seed.low}/{key.job}/{key.attempt}")  # noqa: S311 -- no secret
        return Course(
            start_delay=self.start_delay.draw(dice),
            run_time=self.run_time.draw(dice),
            records=round(self.records.draw(dice)),
            exit_code=int(dice.random() < self.failures.draw(dice)),
        )
