"""Two control services on one PostgreSQL: any of them answers, and either may die."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_gpu_platform.client import Client, Endpoint
from jupyter_gpu_platform.model.jobs import Phase

from .conftest import Place, eventually
from .test_kills import output_digest, submit_writer

TOKEN = "an-admin-token-for-two-replicas-of-one-test"


class Replica:
    """One control service, started as an admin would."""

    def __init__(self, place: Place, name: str, database_url: str) -> None:
        self.log = place.root / f"{name}.log"
        state = place.root / name
        token_file = place.root / "admin.token"
        token_file.write_text(TOKEN)
        token_file.chmod(0o600)
        command = [sys.executable, "-m", "jupyter_gpu_platform.control", f"--state-dir={state}"]
        command += [f"--database-url={database_url}", f"--token-file={token_file}"]
        command += [f"--segments-url={(place.root / 'segments').as_uri()}"]
        command += [f"--objects-url={(place.root / 'objects').as_uri()}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.url = eventually(self._listening, f"{name} to listen: {self.log}")

    def _listening(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()
        found = re.search(r"http://127\.0\.0\.1:\d+", self.log.read_text())
        return found[0] if found else None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def replicas(postgres_url: str, place: Place) -> Iterator[tuple[Replica, Replica]]:
    pair = (Replica(place, "first", postgres_url), Replica(place, "second", postgres_url))
    yield pair
    for replica in pair:
        replica.kill()


@contextlib.contextmanager
def joined(place: Place, pair: tuple[Replica, Replica], client: Client, cluster: str) -> Iterator[None]:
    """Join a cluster whose agent knows both replicas, for as long as this lasts."""
    token = client.cluster_add(cluster)["join_token"]
    folder = place.state / cluster
    folder.mkdir(parents=True)
    (folder / "join").write_text(str(token))
    command = [sys.executable, "-m", "jupyter_gpu_agent", f"--state-dir={folder}", f"--join-token-file={folder}/join"]
    with (folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            [*command, *(f"--url={replica.url}" for replica in pair)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        agent.kill()
        agent.wait()


def holder(client: Client, cluster: str) -> str | None:
    """Ask the agent itself, through whichever replica holds it."""
    from jupyter_gpu_platform import errors

    try:
        return json.dumps(client.cluster_inspect(cluster), default=str)
    except errors.Unavailable:
        return None


@pytest.mark.parametrize("victim", [0, 1])
def test_one_replica_is_killed_and_calls_go_on_through_the_other(
    victim: int, replicas: tuple[Replica, Replica], place: Place
) -> None:
    dying, staying = replicas[victim], replicas[1 - victim]
    with (
        Client(dying.url, TOKEN, resolve=lambda: Endpoint(staying.url, TOKEN)) as client,
        Client(staying.url, TOKEN) as other,
        joined(place, replicas, client, "here"),
    ):
        eventually(lambda: holder(client, "here") and holder(other, "here"), "both replicas to reach the agent")
        job = submit_writer(client, place.root)
        assert other.job(job.id).id == job.id
        eventually((place.root / "half").exists, "the job to be half-way")
        dying.kill()
        (place.root / "go").touch()
        assert output_digest(client, job) == (place.root / "digest").read_text()
        assert other.job(job.id).phase is Phase.SUCCEEDED
        again = submit_writer(client, place.root)
        assert client.wait(again.id).phase is Phase.SUCCEEDED


def test_what_one_replica_accepted_the_other_shows_at_once(replicas: tuple[Replica, Replica], place: Place) -> None:
    with Client(replicas[0].url, TOKEN) as one, Client(replicas[1].url, TOKEN) as two:
        for _ in range(20):
            job = submit_writer(one, Path(os.devnull).parent)
            assert two.job(job.id).id == job.id
            assert one.cancel(job.id).phase is two.job(job.id).phase
        assert len(list(two.iter_jobs())) == 20
        assert TOKEN not in replicas[0].log.read_text() + replicas[1].log.read_text()
