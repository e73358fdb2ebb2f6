"""Output from a job to one live reader, every byte accounted for: 1 GB of a command, and 100 MB printed by a cell.

A command's output goes through `client.follow` into a SHA-256, beside the same command into a pipe and a SHA-256. The
cell prints lines of 80 bytes under ``%%gpu_run`` and, beside it, in a kernel of its own: IPython keeps what a cell run
there prints. What each process holds in memory meanwhile, and its processor time, is reported with both.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time

from footprints import Footprints
from kernels import kernel
from measuring import Figure, database, private_platform, report

from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Command, JobSpec, Limits

LINE = 80
#: what the command writes again and again: lines as a training run logs them
BLOCK = 4 * 10**6
WRITER = """
import os, random, sys
chance, lines, size = random.Random(5), [], 0
while size < {block}:
    step = len(lines)
    line = "%06d INFO loss %.5f lr %.3e grad_norm %.4f tokens/s %.1f memory %.2f GiB\\n" % (
        step, *(chance.random() * scale for scale in (3, 1e-4, 9, 2e4, 40)))
    lines.append(line)
    size += len(line)
block = "".join(lines).encode()[:{block} - 1] + b"\\n"
for _ in range({times}):
    view = memoryview(block)
    while view:
        view = view[os.write(1, view[:65536]):]
"""


def command(size: int) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", WRITER.format(block=BLOCK, times=size // BLOCK))


def through_pipe(size: int) -> tuple[float, str]:
    digest, began = hashlib.sha256(), time.perf_counter()
    with subprocess.Popen(command(size), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), 2**20):
            digest.update(data)
    return time.perf_counter() - began, digest.hexdigest()


def through_job(client: Client, size: int) -> tuple[float, str]:
    digest, began = hashlib.sha256(), time.perf_counter()
    job = client.submit(JobSpec(source=Command(argv=command(size)), limits=Limits(max_output_bytes=4 * size)))
    for record in client.follow(job.id):
        if record["type"] == "stream":
            digest.update(record["text"].encode())
        elif record["type"] != "exit":
            raise RuntimeError(f"unexpected: {record}")
    return time.perf_counter() - began, digest.hexdigest()


def bulk(kind: str, size: int, runs: int) -> None:
    jobs, pipes = [], []
    with database(kind) as options, private_platform(options) as (url, token), Client(url, token) as client:
        through_job(client, BLOCK)
        with Footprints(os.environ["JUPYTER_GPU_STATE_DIR"]) as footprints:
            for _ in range(runs):
                piped, expected = through_pipe(size)
                followed, digest = through_job(client, size)
                assert digest == expected, "the follower's bytes are others than the command wrote"
                jobs.append(size / followed / 1e6)
                pipes.append(size / piped / 1e6)
    report(
        f"bulk output {kind}: {size / 1e6:.0f} MB of a command to one live reader, its SHA-256 equal",
        [
            Figure(name="a job: submit to the last record", unit="MB/s", runs=jobs),
            Figure(name="a pipe: start to the end", unit="MB/s", runs=pipes),
        ],
        note="; ".join([_durability(kind), *footprints.lines()]),
    )


def printing(kind: str, size: int, runs: int) -> None:
    cell = f"for _ in range({size // LINE}):\n    print('x' * {LINE - 1})"
    with database(kind) as options, private_platform(options), kernel() as started, kernel(magics=False) as plain:
        started.run("%%gpu_run\nprint(1)")
        far, here = [], []
        with Footprints(os.environ["JUPYTER_GPU_STATE_DIR"]) as footprints:
            for _ in range(runs):
                for found, where, code in ((far, started, f"%%gpu_run\n{cell}"), (here, plain, cell)):
                    timing = where.run(code, timeout=600)
                    assert timing.printed == size, f"{timing.printed} of {size} characters came"
                    found.append(size / timing.idle / 1e6)
    report(
        f"printing {kind}: {size / 1e6:.0f} MB in lines of {LINE} bytes, all of it shown and counted",
        [
            Figure(name="%%gpu_run: to idle, output committed", unit="MB/s", runs=far),
            Figure(name="here: to idle", unit="MB/s", runs=here),
        ],
        note="; ".join([_durability(kind), *footprints.lines()]),
    )


def _durability(kind: str) -> str:
    return (
        "SQLite, WAL, synchronous=FULL" if kind == "sqlite" else "PostgreSQL, its defaults: fsync, synchronous_commit"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 MB in place of 1 GB, 1 run in place of 5")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append", help="default: both")
    parser.add_argument("--only", choices=["bulk", "printing"], help="default: both")
    options = parser.parse_args()
    runs, size = (1, 10**8) if options.quick else (5, 10**9)
    for kind in options.database or ("sqlite", "postgresql"):
        if options.only != "printing":
            bulk(kind, size, runs)
        if options.only != "bulk":
            printing(kind, 10**8, runs)


if __name__ == "__main__":
    main()
