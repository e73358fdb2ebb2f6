"""The people of a seed: they submit jobs, follow some of them and the change log, and note what they were told."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.client import AsyncClient
from jupyter_gpu_platform.model.jobs import Job

from . import ledger
from .ledger import Ledger
from .platforms import Platform

#: accepted jobs that have not ended, at most
OPEN_AT_MOST = 40
#: jobs in a batch, at most
BATCH = 12


@dataclass
class Told:
    """What the platform told its users; none of it may turn out to be untrue."""

    #: number → id of each accepted job
    ids: dict[int, str] = field(default_factory=dict)
    #: number → records that a follower saw, each with its cursor
    followed: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    #: of each follower of the change log: the ids of the rows that it saw
    changes: list[list[int]] = field(default_factory=list)
    #: ids of accepted jobs that a follower was told not to exist
    unknown: set[str] = field(default_factory=set)
    #: number → what people asked of the job, and how often they tried
    wishes: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    #: (number, what) → the job as the last such wish was answered
    granted: dict[tuple[int, str], Job] = field(default_factory=dict)
    #: calls that had to be made again by hand, by the error's code
    refused: Counter[str] = field(default_factory=Counter)


class Load:
    """Submits *jobs* jobs, of which every third is followed."""

    def __init__(self, platform: Platform, book: Ledger, seed: int, jobs: int, most_records: int) -> None:
        self.platform = platform
        self.book = book
        self.jobs = jobs
        self.most_records = most_records
        self.told = Told()
        self.submitted = asyncio.Event()
        self._chance = Random(f"load {seed}")
        self._seed = seed
        self._following: set[asyncio.Task[None]] = set()
        self._watching: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Submit everything; returns once all is accepted."""
        self._watching = [asyncio.create_task(self._watch(n)) for n in range(len(self.platform.client_proxies) + 1)]
        async with self.platform.client() as client:
            number = 0
            while number < self.jobs:
                count = min(self._chance.choice([1, 1, 1, BATCH]), self.jobs - number)
                await self._room()
                await self._submit(client, range(number, number + count))
                number += count

    async def _room(self) -> None:
        """Wait until few enough jobs are open, by the ledger: the platform may be away."""
        while True:
            self.book.read()
            died = [run for run in self.book.started if run not in self.book.ended]
            alive = set(self.book.running())
            over = {run[0] for run in self.book.ended} | {run[0] for run in died if run not in alive}
            over |= {number for number, wishes in self.told.wishes.items() if wishes["cancel"]}  # it may never start
            if len(self.told.ids) - len(over) < OPEN_AT_MOST:
                return
            await asyncio.sleep(0.1)

    async def _submit(self, client: AsyncClient, numbers: range) -> None:
        specs = [ledger.spec(self.book.folder, number, self._chance, self.most_records) for number in numbers]
        key = f"faults-{self._seed}-{numbers[0]}"
        while True:
            try:
                if len(specs) == 1:
                    jobs: tuple[Job, ...] = (await client.submit(specs[0], key),)
                else:
                    jobs = await client.submit_many(specs, key)
                break
            except errors.GpuPlatformError as error:
                self.told.refused[error.code] += 1
                await asyncio.sleep(0.5)
        for number, job in zip(numbers, jobs, strict=True):
            self.told.ids[number] = job.id
            if number % 3 == 0:
                task = asyncio.create_task(self._follow(number, job.id))
                self._following.add(task)
                task.add_done_callback(self._following.discard)

    async def _follow(self, number: int, job: str) -> None:
        """Follow one job to its end, through one replica after the other."""
        seen = self.told.followed[number] = []
        async with self.platform.client(number // 3) as client:
            while True:
                try:
                    async for record in client.follow(job, seen[-1]["cursor"] if seen else ""):
                        seen.append(record)  # noqa: PERF401 -- one by one: the stream may break
                    return
                except errors.NotFound:
                    self.told.unknown.add(job)
                    return
                except errors.GpuPlatformError as error:
                    self.told.refused[error.code] += 1
                    await asyncio.sleep(0.5)

    async def _watch(self, first: int) -> None:
        """Follow the change log for ever."""
        seen: list[int] = []
        self.told.changes.append(seen)
        async with self.platform.client(first) as client:
            while True:
                try:
                    async for row in client.changes(seen[-1] if seen else 0, follow=True):
                        seen.append(row.id)  # noqa: PERF401 -- one by one: the stream may break
                except errors.GpuPlatformError as error:
                    self.told.refused[error.code] += 1
                    await asyncio.sleep(0.5)

    async def followed(self) -> None:
        """Wait until the followers have seen the ends of their jobs."""
        if self._following:
            await asyncio.wait(self._following)

    async def watched(self, last: int) -> None:
        """Wait until the followers of the change log have come so far, then end them."""
        while not all(seen and seen[-1] >= last for seen in self.told.changes):  # noqa: ASYNC110 -- looks at several lists
            await asyncio.sleep(0.05)
        await self.close()

    async def close(self) -> None:
        tasks = [*self._watching, *self._following]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
