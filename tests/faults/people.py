"""What people do to jobs while all else goes on: cancel, interrupt, retry, and give up those that can't be reached."""

from __future__ import annotations

import asyncio
from random import Random

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.client import AsyncClient

from .ledger import Ledger
from .load import Told
from .platforms import Platform

#: tries of one wish, and seconds between two
TRIES, PAUSE = 10, 0.5


class People:
    """Chooses jobs and asks for things; each wish is noted before it is made, and what it was answered."""

    def __init__(self, platform: Platform, book: Ledger, told: Told) -> None:
        self.platform = platform
        self.book = book
        self.told = told

    def choose(self, what: str, chance: Random) -> int | None:
        """Choose a job for that wish; None where there is none."""
        running = {number for number, _ in self.book.running()}
        if what == "retry":
            # What was given up may still run: whoever retries that knows better than this test.
            seen = {number for number, _ in self.book.started}
            candidates = [n for n in seen - running if not self.told.wishes[n]["abandon"] and n in self.told.ids]
        elif what == "cancel" and chance.random() < 0.4:
            candidates = list(self.told.ids)[-20:]  # most of them wait
        else:
            candidates = [number for number in running if number in self.told.ids]
        return chance.choice(sorted(candidates)) if candidates else None

    async def find_unreachable(self, patience: float) -> int | None:
        """Wait for a running job whose agent can't be heard."""
        async with self.platform.client() as client:
            for _ in range(int(patience / PAUSE)):
                if (found := await _unreachable(client)) is not None:
                    return found
                await asyncio.sleep(PAUSE)
        return None

    async def ask(self, what: str, number: int, chance: Random) -> None:
        """Make the wish; one that can't be doubled is made once, whatever becomes of the answer."""
        self.told.wishes[number][what] += 1
        async with self.platform.client(chance.randrange(2)) as client:
            for _ in range(TRIES if what in ("cancel", "abandon") else 1):
                try:
                    self.told.granted[number, what] = await getattr(client, what)(self.told.ids[number])
                except (errors.Conflict, errors.NotFound):
                    return
                except errors.GpuPlatformError as error:
                    self.told.refused[error.code] += 1
                    await asyncio.sleep(PAUSE)
                else:
                    return


async def _unreachable(client: AsyncClient) -> int | None:
    try:
        jobs = (await client.jobs(phases=("running",))).items
    except errors.GpuPlatformError:
        return None
    numbers = [int(job.spec.labels["number"]) for job in jobs if job.unreachable_since is not None]
    return numbers[0] if numbers else None
