"""Which faults a seed holds and when: decided before anything starts, so that a seed can be played again."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

KILLS = ("kill-control", "kill-agent", "kill-supervisor", "kill-worker")
OTHERS = (
    "stop-control",
    "stop-agent",
    "stop-supervisor",
    "stop-worker",
    "cut-client",
    "cut-agent",
    "delay-client",
    "delay-agent",
    "stall-client",
    "stall-agent",
    "half-open-client",
    "half-open-agent",
    "slow-reader",
)
#: with PostgreSQL and two replicas
SHARED = (("kill-database", "kill-database"), ("stop-database", "cut-peer"))
DISKS = ("full-spool", "full-database")


class Fault(NamedTuple):
    #: it comes once so many jobs have started
    after: int
    name: str
    #: chooses the victim and its measures
    seed: int
    #: seconds that it lasts
    lasts: float


def plan(seed: int, *, jobs: int, kills: int, shared: bool, disks: bool, clock: bool) -> list[Fault]:
    """Draw a seed's faults: *kills* kills and half as many others, spread over the jobs.

    :param shared: the database is a program of its own, which replicas share.
    """
    chance = Random(f"faults {seed}")
    deadly, others = KILLS + (SHARED[0] if shared else ()), OTHERS + (SHARED[1] if shared else ())
    names = [chance.choice(deadly) for _ in range(kills)]
    names += [chance.choice(others) for _ in range((kills + 1) // 2)]
    names += list(DISKS) * disks + ["clock"] * (2 * clock)
    # Each disk is filled once, and a clock's jump comes rarely: both hold up everything that runs.
    chance.shuffle(names)
    faults = []
    for name in names:
        lasts = chance.choice([0.2, 0.5, 1.0, 2.0, 4.0])
        if name.startswith(("stop", "stall")) and jobs >= 300 and chance.random() < 0.1:
            lasts = 20.0  # longer than any lease
        faults.append(Fault(chance.randrange(jobs), name, chance.randrange(2**32), lasts))
    return sorted(faults)
