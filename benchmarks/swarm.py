"""Many agents in one process: real cores and connections, simulated executors. Says how they are, a JSON line a time.

Started by `scale.Swarm`; standard input holds the agents, one JSON object a line: agent_id, credential, cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import resource
import sys
from pathlib import Path
from typing import Any

from jupyter_gpu_agent.connection import Connection, Endpoint
from jupyter_gpu_agent.core import Core
from jupyter_gpu_agent.executors import ExecutorSettings
from jupyter_gpu_agent.simulated.executor import SimulatedExecutor

#: seconds between two lines, and between two looks at the loop's own lag
EVERY = 0.1


async def run(url: str, options: dict[str, str], found: list[dict[str, str]]) -> None:
    loop = asyncio.get_running_loop()
    agents: list[tuple[Core, SimulatedExecutor]] = []
    connections = []
    for agent in found:
        core = Core()
        executor = SimulatedExecutor(core, ExecutorSettings(state_dir=Path(), options=options))
        await core.start(executor)
        endpoint = Endpoint(url, agent["agent_id"], agent["credential"])
        connections.append(asyncio.create_task(Connection(core, lambda endpoint=endpoint: endpoint).run()))  # type: ignore[misc]  # mypy can't type a lambda's default
        agents.append((core, executor))
    while True:
        before = loop.time()
        await asyncio.sleep(EVERY)
        state: dict[str, Any] = {
            "live": sum(core.session.live for core, _ in agents),
            "claimed": sum(executor.claimed for _, executor in agents),
            "ended": sum(executor.ended for _, executor in agents),
            "unacknowledged": sum(core.session.unacknowledged for core, _ in agents),
            "lag": loop.time() - before - EVERY,
        }
        print(json.dumps(state), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--option", action="append", default=[], help="name=value of the simulated executor")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two sockets for each agent
    found = [json.loads(line) for line in sys.stdin]
    # The heaps of a thousand agents are one here: collected as often as one agent's, they would stop all for seconds.
    gc.set_threshold(100_000, 50, 100)
    asyncio.run(run(arguments.url, dict(option.split("=", 1) for option in arguments.option), found))


if __name__ == "__main__":
    main()
