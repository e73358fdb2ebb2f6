"""Writes what a store of the running release holds, every table of it, into ``samples/store-SCHEMA.json``.

Run it for each release, with its own code, before its schema or its payloads change; samples are never written anew:

    python -m tests.upgrades.make_samples
"""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import text

from jupyter_gpu_platform._version import __version__
from jupyter_gpu_platform.control.store import ApiToken, Database, JoinToken, OutputLane, Transaction, Writer, tables
from jupyter_gpu_platform.control.store.rows import Agent, Cluster
from jupyter_gpu_platform.model import lifecycle
from jupyter_gpu_platform.model.jobs import Cell, Command, Job, JobSpec, Script
from jupyter_gpu_platform.model.records import StreamKey
from jupyter_gpu_platform.model.resources import Capacity, Gpu, Resources

SAMPLES = Path(__file__).with_name("samples")
GPU = Gpu(index=0, uuid="GPU-1", model="H100", memory=80 * 2**30)
LINES = [f'{{"seq":{n},"time":1.5,"type":"stream","name":"stdout","text":"line {n}\\n"}}\n'.encode() for n in (1, 2, 3)]
#: job → how far it has come
JOBS = {"queued": 0, "starting": 1, "running": 2, "succeeded": 3, "sealed": 3, "cancelled": 0}


def spec(name: str) -> JobSpec:
    sources = {"running": Cell(code="1 + 1", execution_count=3), "succeeded": Script(path="/a.py", args=("x",))}
    source = sources.get(name, Command(argv=("echo", name)))
    return JobSpec(source=source, name=name, resources=Resources(gpus=1), labels={"k": name}, env={"A": "b"}, retries=1)


def fill(tx: Transaction) -> None:
    """Make one of everything."""
    tx.put_cluster(Cluster(name="lab", created=1.0, state="connected", capacity=Capacity(gpus=(GPU,), cpus=8.0)))
    tx.put_agent(Agent(id="a1", cluster="lab", credential_hash="hash", created=1.0, version="0.1.0", seen=2.0))
    tx.put_join_token(JoinToken(hash="h", cluster="lab", expires=5e9))
    tx.put_token(ApiToken(id="t1", hash="th", user="ada", created=1.0))
    tx.acquire_lease("planner", "http://r", "r1", 15.0, 1.0)
    tx.put_unknown("lab", "junknown", 1, "boot-1-1", 3.0)
    tx.remember("ada", "key", "digest", b"[]")
    for number, (name, far) in enumerate(JOBS.items()):
        job = Job(
            id=f"j{number:018d}", spec=spec(name), owner="ada", project="default", organisation="default", created=1.0
        )
        tx.insert_job(job)
        tx.event(job.id, "created", "submitted by ada")
        if name == "cancelled":
            tx.put_job(lifecycle.cancel(job, None, now=4.0)[0])
        if far >= 1:
            rows = lifecycle.place(job, cluster="lab", now=2.0, gpus=("GPU-1",))
            job, attempt = rows
        if far >= 2:
            job, attempt, *_ = lifecycle.claim(job, attempt, cluster="lab", incarnation="boot-1-1", now=3.0)
        if far >= 3:
            report = lifecycle.Report(job=job.id, attempt=1, incarnation="boot-1-1", exit_code=0)
            job, attempt = lifecycle.end(job, attempt, report, cluster="lab", now=4.0)
        if far:
            tx.put_job(job)
            tx.put_attempt(attempt)


async def write_output(lane: OutputLane) -> None:
    for number, (name, far) in enumerate(JOBS.items()):
        if far >= 2:
            key = StreamKey(f"j{number:018d}", 1)
            await lane.open_stream(key, "boot-1-1", "lab", 2**20)
            await lane.append(key, "boot-1-1", "lab", 1, 3, b"".join(LINES))
            if name == "sealed":
                assert await lane.seal(key.job)


def dumped(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        database = Database.open(f"sqlite:///{name}/control.db")
        writer, lane = Writer(database, clock=lambda: 2.5), OutputLane(database, f"{name}/segments")
        await writer.run(fill)
        await write_output(lane)
        await writer.close()
        await lane.close()
        content: dict[str, Any] = {"version": __version__, "segments": {}}
        for part, metadata, read in (
            ("control", tables.control, database.read),
            ("output", tables.output, database.read_output),
        ):
            with read() as connection:
                schema = connection.execute(text(f"SELECT version_num FROM schema_version_{part}")).scalar_one()
                content[part] = {
                    table.name: [
                        {key: dumped(value) for key, value in row.items()}
                        for row in connection.execute(table.select()).mappings()
                    ]
                    for table in metadata.sorted_tables
                }
        for path in Path(name, "segments").iterdir():  # noqa: ASYNC240 -- nothing else runs in this loop
            content["segments"][path.name] = dumped(path.read_bytes())
        database.close()
    target = SAMPLES / f"store-{schema}.json"
    assert not target.exists(), f"{target} is kept as it is"
    target.write_text(json.dumps({"schema": schema, **content}, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
