"""A control service of its own, many simulated agents in another process, and a light client for both."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

MIB = 2**20
#: seconds for a service to listen, and for what it was asked for to happen
PATIENCE = 60.0
LONG = 1800.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Service:
    """``jupyter gpu control`` as a process, which can be killed and started again at the same place."""

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = secrets.token_urlsafe(32)
        (folder / "admin.token").write_text(self.token)
        (folder / "admin.token").chmod(0o600)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it; returns as soon as it answers."""
        process = self._process = self._spawn()
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "service.log").read_text()[-2000:])
            await asyncio.sleep(0.01)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "jupyter_gpu_platform.control", "--state-dir", str(self.folder)]
        with (self.folder / "service.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--port", str(self.port), "--log-level", "WARNING", *self._options],
                stdout=log,
                stderr=log,
                env={**os.environ, "JUPYTER_GPU_STATE_DIR": str(self.folder)},
            )

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    @property
    def rss(self) -> float:
        """Resident memory, MiB."""
        return float(self.process.memory_info().rss) / MIB

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it.

        :raises RuntimeError: it did not end in good order.
        """
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            code = process.wait(PATIENCE / 2)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if number == signal.SIGTERM and code:
            log = (self.folder / "service.log").read_text()
            raise RuntimeError(f"the service ended with code {code} when it was asked to end:\n{log[-5000:]}")


class Api:
    """JSON over a few kept-alive connections."""

    def __init__(self, url: str, token: str, connections: int = 16) -> None:
        self._netloc = urlsplit(url).netloc
        self._token = token
        self._free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.Queue()
        for _ in range(connections):
            self._free.put_nowait(None)

    async def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer, decoded.

        :raises RuntimeError: it was no success.
        """
        content = b"" if body is None else json.dumps(body).encode()
        request = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._netloc}\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        ).encode() + content
        held = await self._free.get()
        kept = None
        try:
            if held is None:
                host, _, port = self._netloc.partition(":")
                held = await asyncio.open_connection(host, int(port), limit=2**24)
            reader, writer = held
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = [line.lower() for line in head.split(b"\r\n")]
            length = next((int(field[15:]) for field in fields if field.startswith(b"content-length:")), 0)
            answer = await reader.readexactly(length)
            kept = held
        finally:
            self._free.put_nowait(kept)
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{method} {path}: {head[:40]!r} {answer[:300]!r}")
        return json.loads(answer) if answer[:1] in (b"{", b"[") else answer

    async def close(self) -> None:
        while not self._free.empty():
            held = self._free.get_nowait()
            if held is not None:
                held[1].close()


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def add_agents(api: Api, count: int) -> list[dict[str, str]]:
    """Add clusters c0, c1 … and let one agent join each."""

    async def add(number: int) -> dict[str, str]:
        await api("POST", "/api/v1/clusters", {"name": f"c{number}"})
        token = await api("POST", f"/api/v1/clusters/c{number}/join-tokens")
        joined: dict[str, str] = await api("POST", "/api/v1/agents/join", {"token": token["join_token"]})
        return joined

    return list(await asyncio.gather(*(add(number) for number in range(count))))


async def submit(api: Api, clusters: Sequence[str], count: int) -> None:
    """Submit no-op jobs in batches, dealt out to the clusters in turn."""
    jobs = [{"source": {"type": "command", "argv": ["true"]}, "target": {"cluster": name}} for name in clusters]
    for first in range(0, count, 1000):
        batch = [jobs[number % len(jobs)] for number in range(first, min(first + 1000, count))]
        await api("POST", "/api/v1/job-batches", {"jobs": batch})


class Swarm:
    """The agents' process, and what it last said."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)
        self.state: dict[str, Any] = {}
        #: the longest time by which its own loop was late, seconds, since somebody set it to 0
        self.lag = 0.0
        self._said = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, url: str, agents: Sequence[dict[str, str]], **options: object) -> AsyncIterator[Swarm]:
        """Start agents at *url*; stop them at the end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(Path(__file__).with_name("swarm.py")), "--url", url),
            *(part for name, value in options.items() for part in ("--option", f"{name}={value}")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(json.dumps(agent) + "\n" for agent in agents).encode())
        process.stdin.close()
        swarm = cls(process.pid)
        listening = asyncio.create_task(swarm._listen(process.stdout))
        try:
            yield swarm
        finally:
            process.kill()
            await process.wait()
            await listening

    async def _listen(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            self.state = json.loads(line)
            self.lag = max(self.lag, self.state["lag"])
            self._said.set()

    async def until(self, reached: Callable[[dict[str, Any]], bool], patience: float = LONG) -> float:
        """Wait for a state; return the seconds that it took."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(patience):
                while not (self.state and reached(self.state)):
                    self._said.clear()
                    await self._said.wait()
        except TimeoutError:
            raise RuntimeError(f"after {patience:g} s the agents are at {self.state}") from None
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def service(options: Sequence[str] = ()) -> AsyncIterator[tuple[Service, Api]]:
    """Run a control service in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="jgp-bench-") as folder:
        made = Service(Path(folder), options)
        try:
            await made.start()
            api = Api(made.url, made.token)
            yield made, api
            await api.close()
        finally:
            made.stop()
