"""How soon a streaming client sees a change: from before the request that makes it to the line in the client's hands.

The clients are in a process of their own and note when each line comes; the changes are submissions, some a second.
The yardstick is one request alone: the same submission, until its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import time
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
from load import requests
from measuring import Figure, database, percentile, private_platform, report

from jupyter_gpu_platform.model.jobs import Command, JobSpec, Target

T = TypeVar("T")

#: seconds for the last change to reach all clients
PATIENCE = 60.0
SPEC = JobSpec(source=Command(argv=("true",)), target=Target(cluster="nowhere"))


class _Line(msgspec.Struct):
    object_id: str


class _Made(msgspec.Struct):
    id: str


class _Page(msgspec.Struct):
    log_position: int


@functools.lru_cache(maxsize=10_000)
def _job_of(line: bytes) -> str:
    """A thousand clients get the same lines: each is decoded once, so that the clients are not what is measured."""
    return msgspec.json.decode(line, type=_Line).object_id


class _Follower(asyncio.Protocol):
    """Reads the change log's stream; notes when each job is first heard of."""

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._request = request
        self._rest = b""
        self.seen: dict[str, float] = {}
        #: done when the stream has begun, and when it has ended
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self.ready.done() and data.startswith(b"HTTP/1.1 200"):
            self.ready.set_result(None)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                self.seen.setdefault(_job_of(line), now)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


async def _call(address: tuple[str, int], request: bytes, kind: type[T]) -> T:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith((b"http/1.1 200", b"http/1.1 201")):
            raise RuntimeError(head.decode())
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        return msgspec.json.decode(await reader.readexactly(length), type=kind)
    finally:
        writer.close()


def _get(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


async def _follow(address: tuple[str, int], token: str, clients: int) -> list[_Follower]:
    """Open the streams, each from where the log is now, as a client goes on from the list that it shows."""
    loop = asyncio.get_running_loop()
    page = await _call(address, _get("/api/v1/jobs?limit=1", token), _Page)
    request = _get(f"/api/v1/changes?follow=1&after={page.log_position}", token)
    followers: list[_Follower] = []
    for first in range(0, clients, 50):
        several = range(first, min(first + 50, clients))
        made = await asyncio.gather(*(loop.create_connection(lambda: _Follower(request), *address) for _ in several))
        followers += [follower for _, follower in made]
        await asyncio.gather(*(follower.ready for _, follower in made))
    return followers


async def measure(url: str, token: str, clients: int, changes: int, pause: float) -> tuple[list[float], list[float]]:
    """Return seconds until each client had seen each change, and until each submission was answered."""
    parts = urlsplit(url)
    address = (str(parts.hostname), int(parts.port or 0))
    followers = await _follow(address, token, clients)
    make = requests(url, "/api/v1/jobs", token, msgspec.json.encode(SPEC), idempotent=True)
    begun, answered = {}, []
    for _ in range(changes):
        before = time.perf_counter()
        made = await _call(address, make(), _Made)
        begun[made.id] = before
        answered.append(time.perf_counter() - before)
        await asyncio.sleep(pause)
    async with asyncio.timeout(PATIENCE):
        while not all(begun.keys() <= follower.seen.keys() for follower in followers):
            if any(follower.ended.done() for follower in followers):
                raise RuntimeError("a stream broke off")
            await asyncio.sleep(0.05)
    for follower in followers:
        follower.transport.close()
    return [follower.seen[job] - before for follower in followers for job, before in begun.items()], answered


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
