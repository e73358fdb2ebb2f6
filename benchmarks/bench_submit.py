"""Submissions a second, each committed before its answer, beside a bare Tornado handler that stores nothing."""

from __future__ import annotations

import argparse
import subprocess
import sys
import textwrap

import msgspec
from measuring import Figure, percentile, post_load, private_platform, report

from jupyter_gpu_platform.model.jobs import Command, JobSpec, Target

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 s a run in place of 10")
    seconds = 2.0 if parser.parse_args().quick else 10.0
    # held: no such cluster, so that only the submission is measured
    body = msgspec.json.encode(JobSpec(source=Command(argv=("true",)), target=Target(cluster="nowhere")))
    figures: dict[str, list[float]] = {"ours": [], "ours_p99": [], "bare": []}
    bare = subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE, text=True)
    try:
        assert bare.stdout is not None
        bare_url = f"http://127.0.0.1:{int(bare.stdout.readline())}"
        with private_platform() as (url, token):
            for _ in range(5):
                ours = post_load(url, "/api/v1/jobs", token, body, connections=32, seconds=seconds)
                figures["ours"].append(len(ours) / seconds)
                figures["ours_p99"].append(percentile(ours, 0.99) * 1000)
                figures["bare"].append(
                    len(post_load(bare_url, "/", "", body, connections=32, seconds=seconds)) / seconds
                )
    finally:
        bare.kill()
        bare.communicate()
    report(
        "submissions: 32 connections, one job each request, beside a bare Tornado handler",
        [
            Figure(name="submissions, committed (SQLite, FULL)", unit="1/s", runs=figures["ours"]),
            Figure(name="submissions, p99 latency", unit="ms", runs=figures["ours_p99"]),
            Figure(name="bare Tornado handler, nothing stored", unit="1/s", runs=figures["bare"]),
        ],
        note="load generator on the same cores; the bare handler keeps nothing",
    )


if __name__ == "__main__":
    main()
