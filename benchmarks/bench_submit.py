"""Submissions a second with 64 clients, each committed before its answer: one by one and in batches of 1,000.

Each request has a token and an Idempotency-Key of its own. Beside them, in the same run, a bare Tornado handler that
decodes and encodes the same struct and stores nothing; and the systems of ``peers`` that are here (each module says
how to make its environment), each by its own way in.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
from load import load, requests
from measuring import Figure, database, percentile, private_platform, report
from peers import dstack, jupyter_scheduler, slurm

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


@contextlib.contextmanager
def bare_handler() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


Peer = tuple[str, Callable[[], contextlib.AbstractContextManager[Callable[[float], float]]]]


def peers(scheduler: Path | None, dstack_at: Path | None) -> list[Peer]:
    """Say which systems are here, each with what starts it; a line for each that isn't."""
    found: list[Peer] = []
    for module, environment, option in ((jupyter_scheduler, scheduler, "--peer"), (dstack, dstack_at, "--dstack")):
        if environment is None:
            print(f"left out: {module.__name__}; {option} names an environment that has it")
        else:
            found.append((module.name(environment), partial(module.submissions, environment)))
    if why := slurm.missing():
        print(f"left out: {slurm.__name__}; {why}")
    else:
        found.append((slurm.name(), slurm.submissions))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 s a run in place of 10, three runs in place of five")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--batch-clients", type=int, default=4, help="clients that send batches at once (default: 4)")
    parser.add_argument("--peer", type=Path, help="environment with jupyter-scheduler")
    parser.add_argument("--dstack", type=Path, help="environment with dstack's server")
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
    for name, start in peers(options.peer, options.dstack):
        with start() as rate:
            for _ in range(runs):
                note(name, "1/s", rate(seconds))
    report(
        f"submissions: {CLIENTS} clients, tokens and idempotency keys",
        [Figure(name=name, unit=unit, runs=values) for name, (unit, values) in figures.items()],
        note="SQLite: WAL, synchronous=FULL; PostgreSQL: fsync and synchronous_commit on; the store grows from run to "
        f"run; batches from {options.batch_clients} clients; load generator on the same cores; load average "
        f"{os.getloadavg()[0]:.1f}",
    )


if __name__ == "__main__":
    main()
