"""1,000 readers of one running job in one process: how far each is behind the line that the job has just written.

Once all readers are there, the job writes the time, often, on lines of 100 bytes; each reader takes every line, in
order and once, and notes how old it is when it arrives. Beside it: the same lines written by a bare Tornado handler to
as many connections, from memory. The readers share the cores with what they measure: their own processor time is
reported with both.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from footprints import Footprints
from measuring import Figure, database, percentile, private_platform, report

from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Command, JobSpec

#: seconds between two lines
EVERY = 0.1
#: a line: its number, and when it was written
LINE = re.compile(rb"line (\d+) at (\d+\.\d+)")
WRITER = f"""
import os, sys, time
while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
for number in range(int(sys.argv[1])):
    print(f"line {{number}} at {{time.time():.6f}}".ljust(99), flush=True)
    time.sleep({EVERY})
"""
BARE = f"""
import asyncio, sys, time
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
readers, all_here, over = [], asyncio.Event(), asyncio.Event()
class Lines(RequestHandler):
    async def get(self):
        await self.flush()
        readers.append(self)
        if len(readers) == int(sys.argv[2]):
            all_here.set()
        await over.wait()
async def main():
    server = HTTPServer(Application([("/", Lines)]))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await all_here.wait()
    for number in range(int(sys.argv[1])):
        line = f"line {{number}} at {{time.time():.6f}}".ljust(99).encode() + b"\\n"
        for reader in readers:
            reader.write(line)
            reader.flush()
        await asyncio.sleep({EVERY})
    over.set()
    await asyncio.sleep(1)
asyncio.run(main())
"""


class Reader(asyncio.Protocol):
    """One connection: asks, then notes the age of each line."""

    def __init__(self, request: bytes, lines: int) -> None:
        self._request = request
        self._wanted = lines
        self._rest = b""
        self._next = 0
        self.ages: list[float] = []
        #: the answer has begun
        self.here = asyncio.Event()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(self._request)  # type: ignore[attr-defined]  # TCP's has it

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self.here.set()
        data, end = self._rest + data, 0
        for found in LINE.finditer(data):
            if int(found[1]) != self._next:
                self._fail(f"line {int(found[1])} came in the place of {self._next}")
                return
            self._next += 1
            self.ages.append(now - float(found[2]))
            end = found.end()
        self._rest = data[end:]
        if self._next == self._wanted and not self.done.done():
            self.done.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the stream ended after {self._next} of {self._wanted} lines: {self._rest[:300]!r}")

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))
            self.here.set()


class Ages(NamedTuple):
    """How old each line was at each reader, and what it took the readers to note that."""

    ages: list[float]
    #: seconds until all readers were there
    joined: float
    #: the readers' processor time from then on, of each second
    own: float


async def read(url: str, headers: str, readers: int, lines: int, begin: Callable[[], object] = bool) -> Ages:
    """Follow *url* with many connections; *begin()* is called when all of them are there."""
    began = time.perf_counter()
    parts = urlsplit(url)
    request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}\r\n".encode()
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: Reader(request, lines), parts.hostname, parts.port))[1]
        for _ in range(readers)
    ]
    await asyncio.gather(*(reader.here.wait() for reader in made))
    joined, used = time.perf_counter() - began, time.process_time()
    begin()
    await asyncio.gather(*(reader.done for reader in made))
    own = (time.process_time() - used) / (time.perf_counter() - began - joined)
    return Ages([age for reader in made for age in reader.ages], joined, own)


def of_job(client: Client, token: str, readers: int, lines: int) -> Ages:
    with tempfile.TemporaryDirectory(prefix="jgp-bench-") as folder:
        go = Path(folder) / "go"
        argv = (sys.executable, "-I", "-S", "-c", WRITER, str(lines), str(go))
        job = client.submit(JobSpec(source=Command(argv=argv)))
        url = f"{client.url}/api/v1/jobs/{job.id}/output?follow=1"
        return asyncio.run(read(url, f"Authorization: Bearer {token}\r\n", readers, lines, go.touch))


def of_bare(readers: int, lines: int) -> Ages:
    argv = (sys.executable, "-c", BARE, str(lines), str(readers))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        return asyncio.run(read(f"http://127.0.0.1:{port}/", "", readers, lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 run of 10 s in place of 5 of 30 s")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append", help="default: both")
    parser.add_argument("--readers", type=int, default=1000)
    options = parser.parse_args()
    runs, lines = (1, 100) if options.quick else (5, 300)
    for kind in options.database or ("sqlite", "postgresql"):
        measure(kind, options.readers, runs, lines)


def measure(kind: str, readers: int, runs: int, lines: int) -> None:
    kept: dict[tuple[str, str], list[float]] = {}
    with (
        database(kind) as options,
        private_platform(options) as (url, token),
        Client(url, token) as client,
        Footprints(os.environ["JUPYTER_GPU_STATE_DIR"]) as footprints,
    ):
        for _ in range(runs):
            for name, found in (
                ("a job", of_job(client, token, readers, lines)),
                ("from memory", of_bare(readers, lines)),
            ):
                for what, unit, value in (
                    ("age of a line, median", "s", percentile(found.ages, 0.5)),
                    ("age of a line, p99", "s", percentile(found.ages, 0.99)),
                    ("age of a line, worst of all readers", "s", max(found.ages)),
                    ("until all readers were there", "s", found.joined),
                    ("the readers' own processor time", "of a core", found.own),
                ):
                    kept.setdefault((f"{name}: {what}", unit), []).append(value)
    report(
        f"followers {kind}: {readers} readers of one job, {1 / EVERY:g} lines a second each, every line once in order",
        [Figure(name=name, unit=unit, runs=values) for (name, unit), values in kept.items()],
        note="; ".join([f"{kind}, synchronous commits", *footprints.lines()]),
    )


if __name__ == "__main__":
    main()
