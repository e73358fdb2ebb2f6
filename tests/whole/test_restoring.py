"""A store that is put back from an older copy knows nothing of newer jobs: those are kept, never killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from jupyter_gpu_platform.cli import completing
from jupyter_gpu_platform.client import Client, connect, local
from jupyter_gpu_platform.model.jobs import Command, JobSpec
from jupyter_gpu_platform.model.resources import Resources

from .conftest import AGENT, Place, eventually

#: Runs until told, and leaves a mark when it comes to its own end.
UNTIL_TOLD = 'while [ ! -e "$0/go" ]; do sleep 0.05; done; touch "$0/done-$1"'


def test_ten_running_jobs_outlive_the_restore_of_a_copy_taken_before_them(client: Client, place: Place) -> None:
    before = client.submit(JobSpec(source=Command(argv=("true",))))
    client.wait(before.id)
    local.stop()
    copy = place.root / "copy"
    copy.mkdir()
    for path in place.state.glob("*.db*"):
        shutil.copy2(path, copy)

    with connect() as running:
        specs = [
            JobSpec(source=Command(argv=("sh", "-c", UNTIL_TOLD, str(place.root), str(number)))) for number in range(10)
        ]
        jobs = running.submit_many(specs)
        eventually(lambda: all(running.job(job.id).phase == "running" for job in jobs), "all ten to run")
    local.stop()
    place.kill(*AGENT)
    for path in place.state.glob("*.db*"):
        path.unlink()
    for path in copy.iterdir():
        shutil.copy2(path, place.state)

    with connect() as restored:
        assert restored.job(before.id).phase == "succeeded"
        unknown = eventually(
            lambda: found if len(found := restored.unknown_attempts("local")) == 10 else None, "the ten to be listed"
        )
        assert {entry["job"] for entry in unknown} == {job.id for job in jobs}
        assert len(place.processes("sh -c")) >= 10
        (place.root / "go").touch()
        eventually(lambda: len(list(place.root.glob("done-*"))) == 10, "all ten to come to their own ends")


def test_a_job_that_was_queued_in_the_copy_is_not_started_beside_its_lost_attempt(place: Place) -> None:
    """The copy says *queued*; meanwhile its first attempt was placed, runs, and is known to the agent alone."""
    script = 'echo ran >> "$0/runs"; while [ ! -e "$0/go" ]; do sleep 0.05; done'
    with connect() as before:
        # Two such jobs don't fit beside each other, so the second waits while the copy is taken.
        cpus = eventually(lambda: before.clusters()[0]["capacity"]["cpus"], "the agent to say what there is")
        need = Resources(cpus=cpus)
        first = before.submit(JobSpec(source=Command(argv=("sh", "-c", script, str(place.root))), resources=need))
        eventually((place.root / "runs").exists, "the first job to run")
        second_root = place.root / "second"
        second_root.mkdir()
        second = before.submit(JobSpec(source=Command(argv=("sh", "-c", script, str(second_root))), resources=need))
    local.stop()
    copy = place.root / "copy"
    copy.mkdir()
    for path in place.state.glob("*.db*"):
        shutil.copy2(path, copy)

    with connect() as running:
        assert running.job(second.id).phase == "queued"
        running.cancel(first.id)
        eventually((second_root / "runs").exists, "the second job to run")
    local.stop()
    place.kill(*AGENT)
    for path in place.state.glob("*.db*"):
        path.unlink()
    for path in copy.iterdir():
        shutil.copy2(path, place.state)

    with connect() as restored:
        eventually(lambda: restored.unknown_attempts("local"), "the lost attempt to be listed")
        eventually(lambda: _code(restored, second.id) == "unknown_attempt", "the job to be held back, and to say so")
        assert (second_root / "runs").read_text() == "ran\n"

        named = f"{second.id}.1"
        assert gpu("unknown").splitlines()[1].split()[:2] == ["local", named]
        assert json.loads(gpu("unknown", "local", "--json"))["items"][0]["job"] == second.id
        assert [one.text for one in completing.candidates(["unknown", "--end", ""])] == [named]
        assert "Give --yes" in gpu("unknown", "--end", named, code=1)
        assert "Did you mean" in gpu("unknown", "--yes", "--end", f"{second.id}.2", code=1)
        assert gpu("unknown", "--yes", "--end", named) == f"{named}  is being ended\n"
        eventually(lambda: (second_root / "runs").read_text() == "ran\nran\n", "the job to be placed again")
        assert gpu("unknown") == "None.\n"
        restored.cancel(second.id)


def gpu(*line: str, code: int = 0) -> str:
    """Run a command; return what it says."""
    command = [sys.executable, "-m", "jupyter_gpu_platform.cli.main", *line]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    return ended.stderr if code else ended.stdout


def _code(client: Client, job_id: str) -> str:
    reason = client.job(job_id).reason
    return reason.code if reason else ""
