"""Half of the measured peak for half an hour: what grows, of memory, handles, threads and the database?

    python benchmarks/soak.py                                 SQLite, 30 minutes
    python benchmarks/soak.py --database postgresql --minutes 3

Jobs go through the real control service and the real agent; only what would run them is simulated, with 20 records of
output each. Meanwhile some follow the change log, and some read outputs. What has ended ages out after a fifteenth of
the run, so that the database must stop growing, too. Judged is the last half of the run: its end against its middle,
line by line; the exit code is 1 where something rises.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import psutil
from measuring import Figure, database, report

from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Command, JobSpec, Target

TOKEN = "an-admin-token-of-the-soak-test"
CLUSTER = "simulated"
#: seconds between looks
EVERY = 2.0
#: jobs by which the peak is measured, and how often
PEAK_JOBS, PEAK_ROUNDS = 500, 2
FOLLOWERS = 4
MIB = 2**20
#: what may rise over the last half, per cent: of the database so much, for it holds a pass of retention more or less
RISE, DATABASE_RISE = 1.0, 5.0


def retention(minutes: float) -> tuple[str, ...]:
    """Let all go soon that has ended, in steps as many times a run as a service of a month has them a day."""
    kept = minutes / 15
    return (
        "--Retention.jobs=1",
        f"--Retention.settled_minutes={kept}",
        f"--Retention.pass_minutes={kept / 4}",
        f"--Retention.change_hours={kept / 60}",
        f"--Retention.key_hours={kept / 60}",
    )


@contextlib.contextmanager
def program(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of the platform, and end it as an admin would."""
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        code = process.wait(60)
    if code:
        raise RuntimeError(f"{command[0]} ended with code {code}:\n{log.read_text()[-3000:]}")


def waited_for(look: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not look():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.05)


class Platform:
    """The control service, one agent, and a client."""

    def __init__(self, folder: Path, client: Client, processes: dict[str, psutil.Process]) -> None:
        self.folder = folder
        #: each with its children
        self.processes = processes
        self.client = client
        self.submitted = 0

    def submit(self, count: int) -> None:
        spec = JobSpec(source=Command(argv=("true",)), target=Target(cluster=CLUSTER))
        while count > 0:
            self.client.submit_many([spec] * min(count, 200))
            self.submitted += min(count, 200)
            count -= 200

    def figures(self) -> str:
        answer = self.client._http.get(f"{self.client.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        return answer.text

    def open(self) -> int:
        """How many jobs have not ended."""
        counts = dict(re.findall(r'^jgp_jobs\{phase="(\w+)"\} (\S+)', self.figures(), re.MULTILINE))
        return int(sum(float(counts[phase]) for phase in ("queued", "starting", "running")))

    def removed(self) -> int:
        """How many jobs have aged out."""
        found = re.search(r'^jgp_retention_removed_total\{what="jobs"\} (\S+)', self.figures(), re.MULTILINE)
        return int(float(found[1])) if found else 0

    def peak(self) -> float:
        """Jobs a second, from the first submission to the last end."""
        rates = []
        for _ in range(PEAK_ROUNDS):
            began = time.monotonic()
            self.submit(PEAK_JOBS)
            waited_for(lambda: not self.open(), "the jobs of the peak to end", 600.0)
            rates.append(PEAK_JOBS / (time.monotonic() - began))
        return max(rates)

    def store_bytes(self) -> float:
        in_database = sum(map(float, re.findall(r"^jgp_store_bytes\{[^}]*\} (\S+)", self.figures(), re.MULTILINE)))
        files = sum(_size(path) for path in self.folder.rglob("*") if path.suffix != ".log")
        return max(in_database, float(files))


class Samples:
    """What was seen, by what it is of."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], list[float]] = {}

    def take(self, platform: Platform) -> None:
        for name, process in platform.processes.items():
            seen = [_use(one) for one in (process, *process.children(recursive=True))]
            for what, number in zip(
                ("memory, MiB", "handles", "threads"), map(sum, zip(*seen, strict=True)), strict=True
            ):
                self._add(name, what, number)
        self._add("database", "size, MiB", platform.store_bytes() / MIB)
        self._add("jobs", "not ended", platform.open())

    def _add(self, name: str, unit: str, value: float) -> None:
        self.series.setdefault((name, unit), []).append(value)


def _size(path: Path) -> int:
    """Bytes of a file; nothing of one that has just aged out."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def _use(process: psutil.Process) -> tuple[float, int, int]:
    """Memory that no other process shares, handles and threads; nothing of a child that has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.memory_full_info().uss / MIB, process.num_fds(), process.num_threads()
    return 0.0, 0, 0


def postmaster(url: str) -> psutil.Process:
    """Find the server of a database that listens in a directory."""
    folder = Path(unquote(url.partition("host=")[2]))
    return psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))


def rise(values: list[float]) -> tuple[float, float]:
    """The level at the middle of the run and at its end: medians of the last half's first and last quarter."""
    half = values[len(values) // 2 :]
    quarter = max(len(half) // 4, 1)
    return statistics.median(half[:quarter]), statistics.median(half[-quarter:])


@contextlib.contextmanager
def started(options: tuple[str, ...], minutes: float) -> Iterator[Platform]:
    with tempfile.TemporaryDirectory(prefix="jgp-soak-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "token").write_text(TOKEN)
        log = folder / "control.log"
        line = ["jupyter_gpu_platform.control", f"--state-dir={folder / 'state'}", f"--token-file={folder / 'token'}"]
        control = stack.enter_context(program(log, *line, *retention(minutes), *options))
        waited_for(lambda: "listening at" in log.read_text(), f"the control service: {log}")
        url = re.search(r"listening at (http://[\d.:]+)", log.read_text())
        assert url is not None
        client = stack.enter_context(Client(url[1], TOKEN))
        (folder / "join").write_text(client.cluster_add(CLUSTER)["join_token"])
        line = ["jupyter_gpu_agent", f"--url={url[1]}", f"--join-token-file={folder / 'join'}", "--executor=simulated"]
        line += [f"--state-dir={folder / 'agent'}", "--executor-option=run_time=0.2:1", "--executor-option=records=20"]
        agent = stack.enter_context(program(folder / "agent.log", *line))
        processes = {"control service": psutil.Process(control.pid), "agent": psutil.Process(agent.pid)}
        if options:
            processes["database server"] = postmaster(options[-1])
        platform = Platform(folder / "state", client, processes)
        waited_for(lambda: client.cluster(CLUSTER)["state"] == "connected", f"the agent: {folder / 'agent.log'}")
        yield platform


def follow(platform: Platform, over: threading.Event, *, output: bool) -> None:
    """Follow the change log until the end; with *output*, read what each job that ends has put out."""
    position = platform.client.jobs(limit=1).log_position
    with Client(platform.client.url, TOKEN) as client:
        for change in client.changes(position, follow=True, stopped=over.is_set):
            if over.is_set():
                return
            ended = change.kind == "job" and change.payload["phase"] == "succeeded"
            if output and ended and change.id % 20 == 0:
                client.output(change.object_id)


def soak(platform: Platform, rate: float, seconds: float) -> Samples:
    """Submit *rate* jobs a second for so long, and look at everything meanwhile."""
    samples, over = Samples(), threading.Event()
    followers = [
        threading.Thread(target=follow, args=(platform, over), kwargs={"output": number == 0}, daemon=True)
        for number in range(FOLLOWERS)
    ]
    for follower in followers:
        follower.start()
    began, looked, due = time.monotonic(), 0.0, 0.0
    while (now := time.monotonic() - began) < seconds:
        due += rate * (now - looked)
        looked = now
        platform.submit(int(due))
        due -= int(due)
        samples.take(platform)
        time.sleep(max(0.0, EVERY - (time.monotonic() - began - now)))
    over.set()
    for follower in followers:
        follower.join(15)
    return samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended also then
    with database(args.database) as options, started(options, args.minutes) as platform:
        peak = platform.peak()
        print(f"peak: {peak:.0f} jobs/s; soaking at {peak / 2:.0f} jobs/s for {args.minutes:g} min", flush=True)
        samples = soak(platform, peak / 2, args.minutes * 60)
        submitted, removed = platform.submitted, platform.removed()
    figures, failed = judged(samples)
    middle, end = rise(samples.series["jobs", "not ended"])
    if end > middle + peak * EVERY:
        failed = True
        print("  This load was not carried: jobs pile up, and what grows with them says nothing. Is the machine quiet?")
    if not removed:
        failed = True
        print("  Nothing has aged out, so that the database says nothing.")
    note = f"{args.minutes:g} min, {submitted} jobs, {removed} aged out, peak {peak:.0f}/s, {FOLLOWERS} followers"
    rate = Figure(name="jobs a second", unit="1/s", runs=[peak / 2])
    report(f"soak on {args.database}: half of the peak", [rate, *figures], note=note)
    return int(failed)


def judged(samples: Samples) -> tuple[list[Figure], bool]:
    """Say of each line whether it rises; returns the figures, and whether one does."""
    print(f"\n  {'over the last half':34}{'middle':>12}{'end':>12}{'rise':>9}{'allowed':>11}")
    figures, failed = [], False
    for (name, unit), values in samples.series.items():
        middle, end = rise(values)
        share = 100 * (end - middle) / middle if middle else 0.0
        allowed = {"jobs": None, "database": DATABASE_RISE}.get(name, RISE)
        line = f"  {f'{name}: {unit}':34}{middle:12.2f}{end:12.2f}{share:+8.2f} %"
        if allowed is not None:
            line += f"{allowed:8.0f} %  {'RISES' if share > allowed else 'ok'}"
            failed |= share > allowed
        print(line)
        figures.append(Figure(name=f"{name}: {unit}, rise over the last half", unit="%", runs=[share]))
    return figures, failed


if __name__ == "__main__":
    sys.exit(main())
