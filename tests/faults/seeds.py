"""One seed from start to verdict: a platform, its load and its faults; then peace, and everything is compared."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.client import AsyncClient
from jupyter_gpu_platform.client.protocol import Record
from jupyter_gpu_platform.model.jobs import Job

from .checks import Shown, Wrong, judge
from .hurting import Hits, Hurting
from .ledger import Ledger
from .load import Load, Told
from .platforms import Joined, Local, Platform
from .schedule import Fault, plan


@dataclass(frozen=True, kw_only=True)
class Options:
    database: str = "sqlite"
    jobs: int = 1000
    kills: int = 50
    #: records of a job, at most
    records: int = 200
    disks: bool = True
    clock: bool = True
    bug: str = ""
    #: seconds without any progress after which the jobs that are left are taken to be stuck
    patience: float = 120.0
    #: keep the directory of a seed that failed
    keep: bool = False

    def command(self, seed: int) -> str:
        """What replays a seed."""
        words = f"python -m tests.faults --database {self.database} --first {seed} --seeds 1 --jobs {self.jobs}"
        words += f" --kills {self.kills} --records {self.records}"
        words += "" if self.disks else " --no-disks"
        words += "" if self.clock else " --no-clock"
        return words + (f" --bug {self.bug}" if self.bug else "")


@dataclass
class Outcome:
    seed: int
    wrong: list[Wrong]
    hits: Hits = field(default_factory=Hits)
    told: Told = field(default_factory=Told)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0
    records: int = 0
    changes: int = 0


async def play(seed: int, options: Options) -> Outcome:
    """Run one seed."""
    began = time.monotonic()
    root = new_root(f"jgp-faults-{seed}-")
    platform = _platform(seed, root, options)
    outcome = Outcome(seed, [Wrong("progress", "it did not come to an end")], skipped=platform.skipped)
    book = Ledger(root / "ledger")
    load = Load(platform, book, seed, options.jobs, options.records)
    hurting = Hurting(platform, book, load.told)
    outcome.hits, outcome.told = hurting.hits, load.told
    faults = plan(seed, platform.room, jobs=options.jobs, kills=options.kills)
    try:
        wrong = []
        try:
            await platform.start()
            await _through(load, hurting, faults, options.patience)
        except (Stuck, errors.GpuPlatformError) as error:
            wrong.append(Wrong("progress", str(error)))
        # What is stuck is compared, too: it may be so because something is lost.
        try:
            shown = await _shown(platform, load)
            if not wrong:
                await _within(load.watched(shown.changes[-1]), options.patience, "followers of the change log")
        except (Stuck, errors.GpuPlatformError) as error:
            wrong.append(Wrong("progress", str(error)))
        else:
            wrong += judge(book, load.told, hurting.hits, shown)
            outcome.records = sum(map(len, shown.output.values()))
            outcome.changes = len(shown.changes)
        outcome.wrong = wrong
    finally:
        await load.close()
        await platform.stop()
        if not (outcome.wrong and options.keep):
            shutil.rmtree(root, ignore_errors=True)
    outcome.seconds = time.monotonic() - began
    return outcome


def new_root(prefix: str) -> Path:
    """Make a seed's directory. Below /tmp itself: another user runs PostgreSQL, and its socket's path must be short."""
    root = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    root.chmod(0o755)
    (root / "ledger").mkdir()
    return root


class Stuck(Exception):
    """Nothing moves any more."""


def _platform(seed: int, root: Path, options: Options) -> Platform:
    """Choose what is hurt. Disks and clocks are held up for every third seed: they slow all else down."""
    given = {"disks": options.disks, "clock": options.clock and seed % 3 == 0, "bug": options.bug}
    if options.database == "sqlite" and seed % 2:
        return Local(root, **given)  # type: ignore[arg-type]  # they are what they are
    return Joined(root, shared=options.database == "postgresql", **given)  # type: ignore[arg-type]


async def _through(load: Load, hurting: Hurting, faults: list[Fault], patience: float) -> None:
    """Run the load and its faults, until every job has ended."""
    loading = asyncio.create_task(load.run())
    hurts: list[asyncio.Task[None]] = []
    left = list(faults)
    mark, since = None, time.monotonic()
    async with load.platform.client() as client:
        while True:
            load.book.read()
            started = len({number for number, _ in load.book.started})
            while left and (left[0].after <= started or loading.done()):
                hurts.append(asyncio.create_task(hurting.hurt(left.pop(0)), name="fault"))
                if loading.done():
                    break  # one at a time: those that are left share what still runs
            if loading.done() and not left and all(hurt.done() for hurt in hurts):
                loading.result()
                if await _all_ended(client):
                    break
            now = (started, len(load.book.ended), len(left), sum(hurt.done() for hurt in hurts))
            if now != mark:
                mark, since = now, time.monotonic()
            if time.monotonic() - since > patience:
                loading.cancel()
                raise Stuck(await _stuck(client, load, patience))
            await asyncio.sleep(0.1)
    for hurt in hurts:
        hurt.result()
    await _within(load.followed(), patience, "followers of jobs")


async def _all_ended(client: AsyncClient) -> bool:
    try:
        return (await client.jobs(phases=_OPEN, limit=1)).items == ()
    except errors.GpuPlatformError:
        return False


_OPEN = ("queued", "starting", "running")


async def _stuck(client: AsyncClient, load: Load, patience: float) -> str:
    try:
        jobs = [job async for job in client.iter_jobs()]
    except errors.GpuPlatformError as error:
        return f"the platform is gone: {error}"
    there = {job.id for job in jobs}
    said = [
        f"job {number} ({one}) was accepted and is gone" for number, one in load.told.ids.items() if one not in there
    ]
    said += [
        f"job {job.spec.labels['number']} ({job.id}): {job.phase}, {job.reason.message if job.reason else 'no reason'}"
        for job in jobs
        if not job.phase.ended
    ]
    return f"nothing happened for {patience:g} s; {len(load.told.ids)} accepted; open:\n  " + "\n  ".join(said[:12])


async def _within(waiting: Awaitable[None], patience: float, what: str) -> None:
    try:
        await asyncio.wait_for(waiting, patience)
    except TimeoutError:
        raise Stuck(f"{what} did not come to the end within {patience:g} s") from None


async def _shown(platform: Platform, load: Load) -> Shown:
    """Read everything, half of it through each replica."""
    async with platform.client(0) as one, platform.client(1) as two:
        jobs: list[Job] = [job async for job in one.iter_jobs()]
        by_id = {job.id: job for job in jobs}
        output = {
            number: await _output((one, two)[number % 2], by_id[job_id]) if job_id in by_id else []
            for number, job_id in load.told.ids.items()
        }
        changes = [row.id async for row in two.changes(0)]
    return Shown(jobs, output, changes)


async def _output(client: AsyncClient, job: Job) -> list[Record]:
    if job.phase.ended:
        return [record async for record in client.follow(job.id)]
    records: list[Record] = []
    while True:  # it is stuck, and nobody waits for its end
        page = await client.output(job.id, records[-1]["cursor"] if records else "")
        if not page.records:
            return records
        records += page.records
