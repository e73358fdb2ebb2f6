"""A trivial cell under ``%%gpu_run``: first output and idle, beside the same cell here, and its shell by hand.

Once with a runner that is started for it, and once with one on standby, which is waited for before each cell: a person
takes longer to write the next one. ``by hand`` is the very worker that a job's cell runs in, without any platform.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time

import psutil
from kernels import Timing, kernel
from measuring import Figure, percentile, private_platform, report

import jupyter_gpu_platform.runner
from jupyter_gpu_platform.runner import framing

LINE = "print('hello')"
CELL = f"%%gpu_run\n{LINE}"
#: processes that used no processor for so many seconds wait for something
SETTLED = 0.1


def by_hand() -> tuple[float, float]:
    """Start the worker that a job's cell runs in without any platform; seconds to first output and to its end."""
    folder = os.path.dirname(jupyter_gpu_platform.runner.__file__)  # noqa: PTH120 - as an argument
    began = time.perf_counter()
    given, control = os.pipe()
    read, frames = os.pipe()
    argv = [sys.executable, folder, "worker", "cell", str(given), str(frames), str(os.getpid())]
    worker = subprocess.Popen(argv, pass_fds=(given, frames), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    os.close(given)
    os.close(frames)
    source = {"type": "cell", "code": LINE, "execution_count": 1}
    os.write(control, json.dumps({"source": source, "objects": {}, "results": os.devnull}).encode() + b"\n")
    reader, first = framing.Reader(), 0.0
    while data := os.read(read, 65536):
        for kind, payload in reader.feed(data):
            if kind == framing.OUT_TEXT and b"hello" in payload:
                first = time.perf_counter() - began
    worker.wait()
    os.close(read)
    os.close(control)
    assert first, "the worker printed nothing"
    return first, time.perf_counter() - began


def standing_by(folder: str) -> list[psutil.Process]:
    """List the supervisor and the worker that wait for a cell, once they have imported all."""
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or ()
        if "supervise" in line and "--standby" in line and folder in line:
            both = [process, *process.children()]
            used = [sum(one.cpu_times()[:2]) for one in both]
            time.sleep(SETTLED)
            if len(both) == 2 and used == [sum(one.cpu_times()[:2]) for one in both]:
                return both
    return []


def until_standing_by() -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):  # the one that the last cell took ends meanwhile
            if found := standing_by(os.environ["JUPYTER_GPU_STATE_DIR"]):
                return found
        time.sleep(SETTLED)
    raise RuntimeError("no runner stood by within a minute")


def cold(runs: int) -> list[tuple[Timing, Timing, tuple[float, float]]]:
    with private_platform(("--standby", "0")), kernel() as started:
        started.run(CELL)  # the first one also imports
        by_hand()
        return [(started.run(CELL), started.run(LINE), by_hand()) for _ in range(runs)]


def warm(runs: int) -> tuple[list[Timing], float]:
    """Run cells with a runner on standby; their times, and what both its processes hold for themselves (bytes)."""
    with private_platform(("--standby", "1")), kernel() as started:
        started.run(CELL)
        timings, held = [], 0.0
        for _ in range(runs):
            held = sum(process.memory_full_info().uss for process in until_standing_by())
            timings.append(started.run(CELL))
        return timings, held


def cold_figures(rounds: list[tuple[Timing, Timing, tuple[float, float]]]) -> list[Figure]:
    over = [far.idle - hand[1] for far, _, hand in rounds]
    return [
        Figure(name="cold: first output", unit="s", runs=[far.first for far, _, _ in rounds]),
        Figure(name="cold: idle", unit="s", runs=[far.idle for far, _, _ in rounds]),
        Figure(name="cold: idle, over by hand", unit="s", runs=over),
        Figure(name="shell by hand: first output", unit="s", runs=[hand[0] for _, _, hand in rounds]),
        Figure(name="shell by hand: end", unit="s", runs=[hand[1] for _, _, hand in rounds]),
        Figure(name="here: first output", unit="s", runs=[here.first for _, here, _ in rounds]),
        Figure(name="here: idle", unit="s", runs=[here.idle for _, here, _ in rounds]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 runs in place of 100")
    parser.add_argument("--only", choices=("cold", "standby"))
    options = parser.parse_args()
    runs = 10 if options.quick else 100
    figures = []
    if options.only != "standby":
        figures += cold_figures(cold(runs))
    if options.only != "cold":
        timings, held = warm(runs)
        idle = [timing.idle for timing in timings]
        figures += [
            Figure(name="standby: first output", unit="s", runs=[timing.first for timing in timings]),
            Figure(name="standby: idle", unit="s", runs=idle),
            Figure(name="standby: idle, p99", unit="s", runs=[percentile(idle, 0.99)]),
            Figure(name="standby: memory of its own (USS)", unit="MiB", runs=[held / 2**20]),
        ]
    report(
        "trivial cell: %%gpu_run on the local platform beside the same cell here and its shell by hand",
        figures,
        note=f"SQLite, synchronous=FULL; idle comes after all output is committed; load {os.getloadavg()[0]:.1f}",
    )


if __name__ == "__main__":
    main()
