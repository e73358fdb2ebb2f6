"""A trivial cell: submitted, run and read back, beside starting Python with IPython by hand for the same line."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from measuring import Figure, private_platform, report

from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Cell, JobSpec

LINE = "print('hello')"


def through_the_platform(client: Client) -> tuple[float, float]:
    """Run the line as a job; seconds to its first output and to its end, both as a caller sees them."""
    began = time.perf_counter()
    job = client.submit(JobSpec(source=Cell(code=LINE)))
    first = 0.0
    for record in client.follow(job.id):
        if not first and record["type"] == "stream":
            first = time.perf_counter() - began
    assert first, "the job printed nothing"
    return first, time.perf_counter() - began


def by_hand() -> float:
    began = time.perf_counter()
    out = subprocess.run([sys.executable, "-m", "IPython", "-c", LINE], check=True, capture_output=True, text=True)
    assert "hello" in out.stdout
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 runs in place of 20")
    runs = 5 if parser.parse_args().quick else 20
    with private_platform() as (url, token), Client(url, token) as client:
        through_the_platform(client)  # the first one also imports
        by_hand()
        pairs = [(through_the_platform(client), by_hand()) for _ in range(runs)]
    report(
        "trivial cell: a job on the local platform beside Python with IPython by hand",
        [
            Figure(name="job: submit to first output", unit="s", runs=[job[0] for job, _ in pairs]),
            Figure(name="job: submit to end, output committed", unit="s", runs=[job[1] for job, _ in pairs]),
            Figure(name="python -m IPython -c, start to end", unit="s", runs=[hand for _, hand in pairs]),
        ],
        note="SQLite, synchronous=FULL; new worker process for each job",
    )


if __name__ == "__main__":
    main()
