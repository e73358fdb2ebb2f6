"""How soon a streaming client sees a change: from before the request that makes it to the line in the client's hands.

The clients are in a process of their own and note when each line comes; the changes are submissions, some a second.
The yardstick is one request alone: the same submission, until its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from urllib.parse import urlsplit

import msgspec
from load import requests
from measuring import Figure, database, percentile, private_platform, report

from jupyter_gpu_platform.model.jobs import Command, JobSpec, Target

SPEC = JobSpec(source=Command(argv=("true",)), target=Target(cluster="nowhere"))


class _Line(msgspec.Struct):
    object_id: str


class _Made(msgspec.Struct):
    id: str


async def _follow(address: tuple[str, int], token: str, seen: list[dict[str, float]], ready: asyncio.Event) -> None:
    """Read the change log's stream; note when each job is first heard of."""
    reader, writer = await asyncio.open_connection(*address, limit=2**22)
    mine: dict[str, float] = {}
    seen.append(mine)
    try:
        head = f"GET /api/v1/changes?follow=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        writer.write(head.encode())
        await reader.readuntil(b"\r\n\r\n")
        ready.set()
        while True:
            size = int(await reader.readline(), 16)
            chunk = (await reader.readexactly(size + 2))[:size]
            now = time.perf_counter()
            for line in chunk.splitlines():
                if line:
                    mine.setdefault(msgspec.json.decode(line, type=_Line).object_id, now)
    except (asyncio.IncompleteReadError, ValueError):
        raise RuntimeError("a stream broke off") from None
    finally:
        writer.close()


async def _submit(address: tuple[str, int], request: bytes) -> str:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 201"):
            raise RuntimeError(head.decode())
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        return msgspec.json.decode(await reader.readexactly(length), type=_Made).id
    finally:
        writer.close()


async def measure(url: str, token: str, clients: int, changes: int, pause: float) -> tuple[list[float], list[float]]:
    """Return seconds until each client had seen each change, and until each submission was answered."""
    parts = urlsplit(url)
    address = (str(parts.hostname), int(parts.port or 0))
    seen: list[dict[str, float]] = []
    ready = [asyncio.Event() for _ in range(clients)]
    following = []
    for some in (ready[first : first + 50] for first in range(0, clients, 50)):
        following += [asyncio.create_task(_follow(address, token, seen, event)) for event in some]
        await asyncio.gather(*(event.wait() for event in some))
    make = requests(url, "/api/v1/jobs", token, msgspec.json.encode(SPEC), idempotent=True)
    begun, answered = {}, []
    for _ in range(changes):
        before = time.perf_counter()
        job = await _submit(address, make())
        begun[job] = before
        answered.append(time.perf_counter() - before)
        await asyncio.sleep(pause)
    while any(job not in mine for mine in seen for job in begun):
        failed = [task for task in following if task.done()]
        if failed:
            await failed[0]
        await asyncio.sleep(0.05)
    for task in following:
        task.cancel()
    return [mine[job] - before for mine in seen for job, before in begun.items()], answered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 changes a run in place of 100, three runs of five")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 1000], help="streams at once (default: 1 1000)")
    options = parser.parse_args()
    changes, runs = (20, 3) if options.quick else (100, 5)
    kinds = ("sqlite", "postgresql") if options.database == "both" else (options.database,)
    figures: dict[str, list[float]] = {}
    for kind in kinds:
        with database(kind) as where, private_platform(where) as (url, token):
            for clients in options.clients:
                for _ in range(runs):
                    pause = 0.02 if clients < 100 else 0.3
                    seen, answered = asyncio.run(measure(url, token, clients, changes, pause))
                    name = f"{kind}, {clients} client{'s' * (clients > 1)}"
                    figures.setdefault(f"{name}, median", []).append(percentile(seen, 0.5) * 1000)
                    figures.setdefault(f"{name}, p99", []).append(percentile(seen, 0.99) * 1000)
                    figures.setdefault(f"{name}: the answer itself", []).append(percentile(answered, 0.5) * 1000)
    report(
        "changes: request until a streaming client has seen it",
        [Figure(name=name, unit="ms", runs=values) for name, values in figures.items()],
        note=f"clients on the same cores; load average {os.getloadavg()[0]:.1f}",
    )


if __name__ == "__main__":
    main()
