"""No-op jobs a second, from submission to committed end: simulated agents, and real processes beside a shell loop."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import subprocess
import sys
import time

from measuring import Figure, database, private_platform, report
from scale import Swarm, add_agents, service, submit

from jupyter_gpu_platform.model.jobs import Command, JobSpec

#: agents that share the simulated jobs
AGENTS = 10


async def simulated(options: tuple[str, ...], count: int, runs: int) -> list[float]:
    """Return jobs a second of each run."""
    rates = []
    async with service(options) as (served, api):
        agents = await add_agents(api, AGENTS)
        async with Swarm.of(served.url, agents, start_delay=0, run_time=0, records=0, failures=0) as swarm:
            await swarm.until(lambda state: state["live"] == AGENTS)
            names = [agent["cluster"] for agent in agents]
            for run in range(runs):
                began = time.perf_counter()
                await submit(api, names, count)
                await swarm.until(lambda state, goal=(run + 1) * count: state["ended"] == goal)  # type: ignore[misc]  # mypy can't type a lambda's default
                rates.append(count / (time.perf_counter() - began))
    return rates


def processes(options: tuple[str, ...], argv: list[str], count: int, runs: int) -> list[float]:
    from jupyter_gpu_platform.client import connect

    rates = []
    with private_platform(options), connect() as client:
        for _ in range(runs):
            began = time.perf_counter()
            jobs = client.submit_many([JobSpec(source=Command(argv=tuple(argv)))] * count)
            for job in jobs:
                client.wait(job.id)
            rates.append(count / (time.perf_counter() - began))
    return rates


def shell_loop(argv: list[str], count: int, runs: int, parallel: int) -> list[float]:
    rates = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(["sh", "-c", f"seq {count} | xargs -P {parallel} -I _ {shlex.join(argv)}"], check=True)
        rates.append(count / (time.perf_counter() - began))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="500 simulated and 20 real jobs, 2 runs; else 5000, 100, 5"
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--only", choices=("simulated", "process"))
    arguments = parser.parse_args()
    many, few, runs = (500, 20, 2) if arguments.quick else (5000, 100, 5)
    cores = os.cpu_count() or 1
    argv = [sys.executable, "-c", "pass"]
    figures = []
    with database(arguments.database) as options:
        if arguments.only != "process":
            rates = asyncio.run(simulated(options, many, runs))
            figures.append(Figure(name=f"{AGENTS} agents, simulated", unit="jobs/s", runs=rates))
        if arguments.only != "simulated":
            rates = processes(options, argv, few, runs)
            figures.append(Figure(name="process executor: python -c pass", unit="jobs/s", runs=rates))
            rates = shell_loop(argv, few, runs, 1)
            figures.append(Figure(name="shell loop: python -c pass", unit="jobs/s", runs=rates))
            rates = shell_loop(argv, few, runs, cores)
            figures.append(Figure(name=f"shell loop, {cores} at a time", unit="jobs/s", runs=rates))
    report(
        f"jobs-{arguments.database}: no-op jobs, submitted in batches, until every end is committed",
        figures,
        note=f"{arguments.database}; agents and service share {cores} cores; load {os.getloadavg()[0]:.1f}",
    )


if __name__ == "__main__":
    main()
