"""Whatever is killed while a job runs, the job ends right and its output is what it wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Cell, Job, JobSpec, Phase

from .conftest import AGENT, CONTROL, Place, eventually

LINES = 400

#: Writes lines of many lengths until told to go on, keeps a hash of them, and then writes the rest.
WRITER = """
import hashlib, pathlib, random, time
folder, rng, digest = pathlib.Path({folder!r}), random.Random(7), hashlib.sha256()
for number in range({lines}):
    line = f"{{number}} " + "x" * rng.randrange(200) + "\\n"
    digest.update(line.encode())
    print(line, end="")
    if number == {lines} // 2:
        (folder / "half").touch()
        while not (folder / "go").exists():
            time.sleep(0.02)
(folder / "digest").write_text(digest.hexdigest())
"""


def submit_writer(client: Client, folder: Path) -> Job:
    code = WRITER.format(folder=str(folder), lines=LINES)
    return client.submit(JobSpec(source=Cell(code=code)))


def output_digest(client: Client, job: Job) -> str:
    records = list(client.follow(job.id))
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    text = "".join(record["text"] for record in records if record["type"] == "stream" and record["name"] == "stdout")
    assert text.count("\n") == LINES
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "victims",
    [
        pytest.param([CONTROL], id="control"),
        pytest.param([AGENT], id="agent"),
        pytest.param([CONTROL, AGENT], id="both"),
    ],
)
def test_a_running_job_survives_the_kill_of(victims: list[tuple[str, ...]], client: Client, place: Place) -> None:
    job = submit_writer(client, place.root)
    eventually((place.root / "half").exists, "the job to be half-way")
    for words in victims:
        assert place.kill(*words) == 1
    (place.root / "go").touch()
    assert output_digest(client, job) == (place.root / "digest").read_text()
    ended = client.job(job.id)
    assert (ended.phase, ended.exit_code, ended.attempt) == (Phase.SUCCEEDED, 0, 1)


def test_a_job_that_ends_while_all_are_dead_is_told_afterwards(client: Client, place: Place) -> None:
    job = submit_writer(client, place.root)
    eventually((place.root / "half").exists, "the job to be half-way")
    for words in (CONTROL, AGENT):
        assert place.kill(*words) == 1
    (place.root / "go").touch()
    eventually((place.root / "digest").exists, "the job to end with nobody there")
    assert output_digest(client, job) == (place.root / "digest").read_text()
    assert client.job(job.id).phase is Phase.SUCCEEDED


def test_a_killed_supervisor_ends_its_job_and_says_so(client: Client, place: Place) -> None:
    job = submit_writer(client, place.root)
    eventually((place.root / "half").exists, "the job to be half-way")
    assert place.kill("supervise") >= 1
    ended = client.wait(job.id)
    assert ended.phase is Phase.FAILED
    assert ended.reason is not None
    assert ended.reason.code == "supervisor_killed"
    types = [record["type"] for record in client.follow(job.id)]
    assert types[-2:] == ["gap", "exit"]
    eventually(lambda: not place.processes("jgp", job.id), "the job's processes to be gone")
