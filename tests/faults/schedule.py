"""Which faults a seed holds and when: decided before anything starts, so that a seed can be played again."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

KILLS = ("kill-control", "kill-agent", "kill-supervisor", "kill-worker")
#: what a proxy does to connections
BETWEEN = ("cut", "delay", "stall", "half-open")
OTHERS = ("stop-control", "stop-agent", "stop-supervisor", "stop-worker", "slow-reader")
DISKS = ("full-spool", "full-database")
#: what people do to jobs meanwhile, some of it more often
WISHES = ("cancel", "cancel", "cancel", "interrupt", "interrupt", "retry", "retry", "retry")


class Fault(NamedTuple):
    #: it comes once so many jobs have started
    after: int
    name: str
    #: chooses the victim and its measures
    seed: int
    #: seconds that it lasts
    lasts: float


class Room(NamedTuple):
    """What a platform has that can be hurt."""

    #: it has an agent behind a proxy, which the local platform has not
    joined: bool
    #: its database is a program of its own, which replicas share
    shared: bool
    disks: bool
    clock: bool


def plan(seed: int, room: Room, *, jobs: int, kills: int) -> list[Fault]:
    """Draw a seed's faults: *kills* kills and half as many others, spread over the jobs; and what people do meanwhile.

    Each disk is filled once, a clock jumps twice and a job is abandoned once in a long seed: they hold up all else.
    """
    chance = Random(f"faults {seed}")
    ends = ["client", *["agent"] * room.joined, *["peer", "database"] * room.shared]
    deadly = KILLS + ("kill-database",) * room.shared
    others = [*OTHERS, *["stop-database"] * room.shared, *(f"{how}-{end}" for how in BETWEEN for end in ends)]
    names = [chance.choice(deadly) for _ in range(kills)]
    names += [chance.choice(others) for _ in range((kills + 1) // 2)]
    names += [f"person-{chance.choice(WISHES)}" for _ in range(jobs // 10)]
    names += [*DISKS] * room.disks + ["clock"] * (2 * room.clock)
    chance.shuffle(names)
    if jobs >= 300 and seed % 4 == 0:
        names.append("person-abandon")
    faults = []
    for name in names:
        lasts = chance.choice([0.2, 0.5, 1.0, 2.0, 4.0])
        if name.startswith(("stop", "stall")) and jobs >= 300 and chance.random() < 0.1:
            lasts = 20.0  # longer than any lease
        faults.append(Fault(chance.randrange(jobs), name, chance.randrange(2**32), lasts))
    return sorted(faults)
