"""The output of ended jobs leaves the database for a segment, and reads as before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jupyter_gpu_platform.control.sealing import Sealer
from jupyter_gpu_platform.control.server import Server, Settings
from jupyter_gpu_platform.model import lifecycle
from jupyter_gpu_platform.model.jobs import Command, Job, JobSpec, new_job_id
from jupyter_gpu_platform.model.records import StreamKey

LINE = b'{"seq":1,"time":1.0,"type":"stream","name":"stdout","text":"kept"}\n'


async def ended_job(server: Server, *, now: float, lines: int = 1) -> str:
    """Store a job that has written so many records and ended at *now*."""
    services = server.services
    spec = JobSpec(source=Command(argv=("true",)))
    job = Job(id=new_job_id(), spec=spec, owner="ada", project="default", organisation="default", created=now)
    await services.writer.run(lambda tx: tx.insert_job(job))
    key = StreamKey(job.id, 1)
    await services.output.open_stream(key, "boot-1", "here", 10_000)
    await services.output.append(key, "boot-1", "here", 1, lines, LINE * lines)
    ended, _ = lifecycle.cancel(job, None, now=now)
    await services.writer.run(lambda tx: tx.put_job(ended))
    return job.id


async def until_sealed(server: Server, job_id: str) -> None:
    async with asyncio.timeout(20):
        while job_id in await server.services.output.unsealed():  # noqa: ASYNC110 -- nothing announces a sealing
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("begins", ["before the job ends", "after it"])
def test_an_ended_jobs_output_is_sealed_and_reads_as_before(begins: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = Settings(
            database_url=f"sqlite:///{tmp_path / 'control.db'}",
            segments_url=(tmp_path / "segments").as_uri(),
            objects_url=(tmp_path / "objects").as_uri(),
        )
        server = await Server.open(settings)
        sealer = Sealer(server.services, lambda: True, hot_seconds=0.0, least=1)
        try:
            if begins == "before the job ends":
                sealer.start()
            job_id = await ended_job(server, now=server.services.now())
            before = await server.services.output.read(job_id)
            if begins == "after it":
                sealer.start()
            await until_sealed(server, job_id)
            assert await server.services.output.read(job_id) == before
            assert [path.is_file() for path in (tmp_path / "segments").rglob("*") if path.is_file()] == [True]
        finally:
            await sealer.stop()
            await server.close()

    asyncio.run(scenario())


def test_small_outputs_stay_in_the_database(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = Settings(
            database_url=f"sqlite:///{tmp_path / 'control.db'}",
            segments_url=(tmp_path / "segments").as_uri(),
            objects_url=(tmp_path / "objects").as_uri(),
        )
        server = await Server.open(settings)
        sealer = Sealer(server.services, lambda: True, hot_seconds=0.0, least=2 * len(LINE))
        sealer.start()
        try:
            small = await ended_job(server, now=server.services.now())
            large = await ended_job(server, now=server.services.now(), lines=2)
            await until_sealed(server, large)
            assert await server.services.output.unsealed() == [small]
        finally:
            await sealer.stop()
            await server.close()

    asyncio.run(scenario())
