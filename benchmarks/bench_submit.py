"""Submissions a second with 64 clients, each committed before its answer: one by one and in batches of 1,000.

Each request has a token and an Idempotency-Key of its own. Beside them, in the same run, a bare Tornado handler that
decodes and encodes the same struct and stores nothing; and jupyter-scheduler, where ``--peer`` names an environment
that has it (``python -m venv DIR && DIR/bin/pip install jupyter-scheduler jupyter-server``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
from load import Load, load, requests
from measuring import Figure, database, percentile, private_platform, report

from jupyter_gpu_platform.model.jobs import Command, JobSpec, Target

CLIENTS = 64
BATCH = 1000
#: Held: there is no such cluster, so that only the submission is measured.
SPEC = JobSpec(source=Command(argv=("true",)), target=Target(cluster="nowhere"))

#: Decodes and encodes the same struct as the real handler, and does nothing else: Tornado's own limit.
BARE = textwrap.dedent("""
    import asyncio, msgspec, tornado.web
    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets
    from jupyter_gpu_platform.model.jobs import JobSpec

    class Handler(tornado.web.RequestHandler):
        def post(self):
            spec = msgspec.json.decode(self.request.body, type=JobSpec)
            self.set_status(201)
            self.finish(msgspec.json.encode(spec))

    async def main():
        server = HTTPServer(tornado.web.Application([("/", Handler)]))
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        print(sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
""")
NOTEBOOK = {"cells": [], "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}


@contextlib.contextmanager
def bare_handler() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def scheduler(environment: Path) -> Iterator[str]:
    """Start a Jupyter server with jupyter-scheduler; its jobs wait, so that only the submission is measured."""
    with tempfile.TemporaryDirectory(prefix="jgp-bench-peer-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        Path(folder, "n.ipynb").write_text(json.dumps(NOTEBOOK))
        options = ["--no-browser", "--allow-root", f"--port={port}", f"--ServerApp.root_dir={folder}"]
        options += ["--IdentityProvider.token=t", "--ServerApp.disable_check_xsrf=True"]
        options.append(f"--SchedulerApp.db_url=sqlite:///{folder}/jobs.db")
        with Path(folder, "log").open("w") as log:
            process = subprocess.Popen(
                [environment / "bin" / "jupyter", "server", *options],
                env=os.environ | {"JUPYTER_DATA_DIR": folder, "JUPYTER_RUNTIME_DIR": folder},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                _await_answer(f"http://127.0.0.1:{port}/api?token=t")
                yield f"http://127.0.0.1:{port}"
            finally:
                # It starts a process for each job that it took: all of them go with it.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _await_answer(url: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _peer_load(url: str, seconds: float) -> Load:
    body = {"name": "n", "input_uri": "n.ipynb", "runtime_environment_name": "python3", "output_formats": ["ipynb"]}
    # It starts a process for each job it accepts; few are sent, so that this bounds its figure as little as can be.
    return load(url, requests(url, "/scheduler/jobs?token=t", "t", json.dumps(body).encode(), idempotent=False),
                connections=4, seconds=min(seconds, 3.0))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 s a run in place of 10, three runs in place of five")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--batch-clients", type=int, default=4, help="clients that send batches at once (default: 4)")
    parser.add_argument("--peer", type=Path, help="environment with jupyter-scheduler")
    options = parser.parse_args()
    seconds, runs = (2.0, 3) if options.quick else (10.0, 5)
    kinds = ("sqlite", "postgresql") if options.database == "both" else (options.database,)
    one, many = msgspec.json.encode(SPEC), msgspec.json.encode({"jobs": [SPEC] * BATCH})
    figures: dict[str, tuple[str, list[float]]] = {}

    def note(name: str, unit: str, value: float) -> None:
        figures.setdefault(name, (unit, []))[1].append(value)

    with bare_handler() as bare:
        for kind in kinds:
            with database(kind) as where, private_platform(where) as (url, token):
                for _ in range(runs):
                    single = load(
                        url,
                        requests(url, "/api/v1/jobs", token, one, idempotent=True),
                        connections=CLIENTS,
                        seconds=seconds,
                    )
                    note(f"singles, {kind}", "1/s", single.rate)
                    note(f"singles, {kind}, p50", "ms", percentile(single.latencies, 0.5) * 1000)
                    note(f"singles, {kind}, p99", "ms", percentile(single.latencies, 0.99) * 1000)
                    batch = load(
                        url,
                        requests(url, "/api/v1/job-batches", token, many, idempotent=True),
                        connections=options.batch_clients,
                        seconds=seconds,
                    )
                    note(f"jobs in batches of {BATCH}, {kind}", "1/s", batch.rate * BATCH)
                    plain = load(
                        bare, requests(bare, "/", "", one, idempotent=False), connections=CLIENTS, seconds=seconds
                    )
                    note("bare Tornado handler, nothing stored", "1/s", plain.rate)
    if options.peer:
        with scheduler(options.peer) as url:
            for _ in range(runs):
                note("jupyter-scheduler, job definitions' own store", "1/s", _peer_load(url, seconds).rate)
    report(
        f"submissions: {CLIENTS} clients, tokens and idempotency keys",
        [Figure(name=name, unit=unit, runs=values) for name, (unit, values) in figures.items()],
        note="SQLite: WAL, synchronous=FULL; PostgreSQL: fsync and synchronous_commit on; the store grows from run to "
        f"run; batches from {options.batch_clients} clients; load generator on the same cores; load average "
        f"{os.getloadavg()[0]:.1f}",
    )


if __name__ == "__main__":
    main()
