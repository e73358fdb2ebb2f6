"""A trivial cell under ``%%gpu_run``: first output and idle, beside the same cell here, and its shell by hand."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

from kernels import Timing, kernel
from measuring import Figure, private_platform, report

import jupyter_gpu_platform.runner
from jupyter_gpu_platform.runner import framing

LINE = "print('hello')"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 runs in place of 20")
    runs = 5 if parser.parse_args().quick else 20
    with private_platform(), kernel() as started:
        started.run(f"%%gpu_run\n{LINE}")  # the first one also imports
        by_hand()
        rounds: list[tuple[Timing, Timing, tuple[float, float]]] = [
            (started.run(f"%%gpu_run\n{LINE}"), started.run(LINE), by_hand()) for _ in range(runs)
        ]
    report(
        "trivial cell: %%gpu_run on the local platform beside the same cell here and its shell by hand",
        [
            Figure(name="%%gpu_run: first output", unit="s", runs=[far.first for far, _, _ in rounds]),
            Figure(name="%%gpu_run: idle", unit="s", runs=[far.idle for far, _, _ in rounds]),
            Figure(name="shell by hand: first output", unit="s", runs=[hand[0] for _, _, hand in rounds]),
            Figure(name="shell by hand: end", unit="s", runs=[hand[1] for _, _, hand in rounds]),
            Figure(name="here: first output", unit="s", runs=[here.first for _, here, _ in rounds]),
            Figure(name="here: idle", unit="s", runs=[here.idle for _, here, _ in rounds]),
        ],
        note="SQLite, synchronous=FULL; new worker process for each job; idle comes after all output is committed",
    )


if __name__ == "__main__":
    main()
