"""The idle local platform, all its processes, beside an idle JupyterLab server: memory, processor time and start."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from measuring import Figure, report
from scale import MIB, free_port

from jupyter_gpu_platform.client import local

PATIENCE = 60.0


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _until_answers(url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not _answers(url):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url} doesn't answer")
        time.sleep(0.005)


@contextmanager
def platform(standby: bool) -> Iterator[tuple[float, psutil.Process]]:
    """Start a local platform in directories of its own; give the seconds that it took and its process."""
    with tempfile.TemporaryDirectory(prefix="jgp-bench-") as folder:
        os.environ["JUPYTER_RUNTIME_DIR"] = f"{folder}/runtime"
        os.environ["JUPYTER_GPU_STATE_DIR"] = f"{folder}/state"
        began = time.perf_counter()
        found = local.ensure(options=() if standby else OFF)
        seconds = time.perf_counter() - began
        try:
            yield seconds, psutil.Process(found.pid)
        finally:
            local.stop()


@contextmanager
def jupyterlab() -> Iterator[tuple[float, psutil.Process]]:
    """Start a JupyterLab server without a browser; give the seconds until it answers and its process."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="jgp-bench-") as folder:
        began = time.perf_counter()
        options = (f"--ServerApp.port={port}", "--ServerApp.token=", "--no-browser", f"--notebook-dir={folder}")
        root = ("--allow-root",) if os.getuid() == 0 else ()
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options, *root],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "JUPYTER_RUNTIME_DIR": folder},
        )
        try:
            _until_answers(f"http://127.0.0.1:{port}/api")
            yield time.perf_counter() - began, psutil.Process(server.pid)
        finally:
            server.terminate()
            server.wait()


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _idle(process: psutil.Process, seconds: float) -> tuple[float, float]:
    """Return MiB that are its own and its children's alone, and the share of a processor that they use, in %."""
    time.sleep(SETTLED)
    family = _family(process)
    before = sum(sum(one.cpu_times()[:2]) for one in family)
    time.sleep(seconds)
    after = sum(sum(one.cpu_times()[:2]) for one in family)
    return sum(one.memory_full_info().uss for one in family) / MIB, (after - before) / seconds * 100


#: seconds after which what follows a start has passed
SETTLED = 5.0
OFF = ("--standby", "0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 runs of 5 s in place of 5 of 60")
    runs, seconds = (2, 5.0) if parser.parse_args().quick else (5, 60.0)
    sides = {
        "platform, no standby": lambda: platform(False),
        "platform with standby": lambda: platform(True),
        "JupyterLab server": jupyterlab,
    }
    memory: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    start: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            with side() as (took, process):
                held, used = _idle(process, seconds)
            start[name].append(took)
            memory[name].append(held)
            cpu[name].append(used)
    report(
        "idle: a local platform with all its processes, beside a JupyterLab server that nobody uses",
        [
            *(Figure(name=f"{name}: memory of its own (USS)", unit="MiB", runs=memory[name]) for name in sides),
            *(Figure(name=f"{name}: processor time", unit="%", runs=cpu[name]) for name in sides),
            *(Figure(name=f"{name}: start until it answers", unit="s", runs=start[name]) for name in sides),
        ],
        note=f"{seconds:g} s each, after {SETTLED:g} s; load {os.getloadavg()[0]:.1f}",
    )


if __name__ == "__main__":
    main()
