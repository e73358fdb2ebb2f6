"""Many agents with many active jobs in one replica: its memory, and how soon all are in step after it was killed.

The jobs are silent: what output costs has figures of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from dataclasses import dataclass, field

from measuring import Figure, database, percentile, report
from scale import Api, Service, Swarm, add_agents, cpu_seconds, service, submit

#: seconds between two of a person's calls, so that one waits for no other
CALL_EVERY = 0.05
#: seconds that the agents are observed once they are in step
CALM = 10.0


@dataclass
class Seen:
    """What one course of the benchmark came to."""

    rss: list[float] = field(default_factory=list)
    in_step: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)
    #: processor time while all came back, seconds: the service's since its start, and the agents'
    service_cpu: list[float] = field(default_factory=list)
    agents_cpu: list[float] = field(default_factory=list)
    calm_cpu: list[float] = field(default_factory=list)


async def _call(api: Api, method: str, path: str, body: object, found: list[float]) -> None:
    began = time.perf_counter()
    await api(method, path, body)
    found.append((time.perf_counter() - began) * 1000)


async def _people(api: Api, found: tuple[list[float], list[float], list[float]]) -> None:
    """Call as people do, at their own pace, until cancelled: lists, submissions, and what touches no store."""
    waiting_job = {"source": {"type": "command", "argv": ["true"]}, "target": {"cluster": "nowhere"}}
    calls = (
        ("GET", "/api/v1/jobs?limit=20", None, found[0]),
        ("POST", "/api/v1/jobs", waiting_job, found[1]),
        ("GET", "/healthz", None, found[2]),
    )
    async with asyncio.TaskGroup() as group:
        number = 0
        while True:
            group.create_task(_call(api, *calls[number % len(calls)]))
            number += 1
            await asyncio.sleep(CALL_EVERY)


async def _reconnect(served: Service, swarm: Swarm, agents: int, seen: Seen) -> None:
    """Kill the service, start it again at its place, and see all agents come back while people call."""
    served.stop(signal.SIGKILL)
    await swarm.until(lambda state: state["live"] == 0)
    await served.start()
    began, agents_began = time.perf_counter(), cpu_seconds(swarm.process)
    api = Api(served.url, served.token)
    calling = asyncio.create_task(_people(api, (seen.reads, seen.writes, seen.pings)))
    try:
        await swarm.until(lambda state: state["live"] == agents)
        seen.in_step.append(time.perf_counter() - began)
        seen.service_cpu.append(cpu_seconds(served.process))
        seen.agents_cpu.append(cpu_seconds(swarm.process) - agents_began)
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        await api.close()


async def course(options: tuple[str, ...], agents: int, jobs: int, runs: int) -> Seen:
    seen = Seen()
    async with service(options) as (served, api):
        joined = await add_agents(api, agents)
        timings = {"start_delay": "0:2", "run_time": 10**6, "records": 0, "failures": 0}
        async with Swarm.of(served.url, joined, **timings) as swarm:
            print(f"  all {agents} agents connected after {await swarm.until(lambda s: s['live'] == agents):.1f} s")
            began = time.perf_counter()
            await submit(api, [agent["cluster"] for agent in joined], agents * jobs)
            await swarm.until(lambda state: state["claimed"] == agents * jobs)
            print(f"  all {agents * jobs} jobs run after {time.perf_counter() - began:.1f} s")
            for _ in range(runs):
                await _reconnect(served, swarm, agents, seen)
                print(f"  all back after {seen.in_step[-1]:.1f} s, {served.rss:.0f} MiB")
                before = cpu_seconds(served.process)
                await asyncio.sleep(CALM)
                seen.calm_cpu.append((cpu_seconds(served.process) - before) / CALM * 100)
                seen.rss.append(served.rss)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 agents with 10 jobs each, twice; else 1000 with 100")
    parser.add_argument("--agents", type=int)
    parser.add_argument("--jobs", type=int, help="active jobs of each agent")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    arguments = parser.parse_args()
    agents, jobs, runs = (100, 10, 2) if arguments.quick else (1000, 100, 3)
    agents, jobs = arguments.agents or agents, arguments.jobs or jobs
    with database(arguments.database) as options:
        seen = asyncio.run(course(options, agents, jobs, runs))
    report(
        f"agents-{arguments.database}: {agents} agents, {agents * jobs} active jobs, one replica killed and started",
        [
            Figure(name="all agents in step after it listens", unit="s", runs=seen.in_step),
            Figure(name="a page of the jobs meanwhile, p99", unit="ms", runs=[percentile(seen.reads, 0.99)]),
            Figure(name="a submission meanwhile, p99", unit="ms", runs=[percentile(seen.writes, 0.99)]),
            Figure(name="/healthz meanwhile (the event loop), p99", unit="ms", runs=[percentile(seen.pings, 0.99)]),
            Figure(name="the service's processor time since its start", unit="s", runs=seen.service_cpu),
            Figure(name="the agents' processor time meanwhile", unit="s", runs=seen.agents_cpu),
            Figure(name="resident memory of the service", unit="MiB", runs=seen.rss),
            Figure(name="its processor time when all is calm", unit="%", runs=seen.calm_cpu),
        ],
        note=f"{arguments.database}; the agents' process shares {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}",
    )


if __name__ == "__main__":
    main()
