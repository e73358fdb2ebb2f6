"""Each test here runs twice: on SQLite, and on a real PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from jupyter_gpu_platform.control.store import Database, OutputLane, Reader, Writer
from jupyter_gpu_platform.model.jobs import Command, Job, JobSpec, new_job_id


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/control.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Whatever a test opened and closed must leave no thread behind."""
    before = set(threading.enumerate())
    yield
    new = [thread.name for thread in threading.enumerate() if thread not in before]
    assert [name for name in new if name.startswith(("store-", "output-"))] == []


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url)
    yield opened
    opened.close()


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    made = Writer(database, clock=lambda: 1000.0)
    yield made
    await made.close()


@pytest.fixture
async def reader(database: Database) -> AsyncIterator[Reader]:
    made = Reader(database)
    yield made
    await made.close()


@pytest.fixture
async def lane(database: Database, tmp_path: Path) -> AsyncIterator[OutputLane]:
    made = OutputLane(database, str(tmp_path / "segments"))
    yield made
    await made.close()


@pytest.fixture
def make_job() -> Callable[..., Job]:
    """Makes jobs whose ids grow."""
    times = iter(range(1_000_000, 2_000_000))

    def make(*, owner: str = "ada", project: str = "default", cluster: str | None = None, **spec: object) -> Job:
        made = JobSpec(source=Command(argv=("true",)), project=project, **spec)
        now = float(next(times))
        return Job(
            id=new_job_id(now),
            spec=made,
            owner=owner,
            project=project,
            organisation="default",
            cluster=cluster,
            created=now,
        )

    return make
