"""The local platform is there when it is needed, exactly once."""

from __future__ import annotations

import subprocess
import sys

from jupyter_gpu_platform.client import Client

from .conftest import AGENT, CONTROL, Place, eventually

ASK = "from jupyter_gpu_platform.client import connect\nwith connect() as c: print(c.status().incarnation, c.url)"


def test_twenty_processes_that_need_it_at_once_start_exactly_one(place: Place) -> None:
    starters = [subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True) for _ in range(20)]
    answers = {starter.communicate(timeout=100)[0] for starter in starters}
    assert all(starter.returncode == 0 for starter in starters)
    assert len(answers) == 1
    assert len(place.processes(*CONTROL)) == 1
    eventually(lambda: len(place.processes(*AGENT)) == 1, "its one agent")


def test_it_is_gone_and_comes_back_with_its_jobs(client: Client, place: Place) -> None:
    from jupyter_gpu_platform.client import local
    from jupyter_gpu_platform.model.jobs import Command, JobSpec

    job = client.submit(JobSpec(source=Command(argv=("echo", "kept"))))
    client.wait(job.id)
    assert local.stop()
    eventually(lambda: not place.processes(), "all of it to be gone")
    assert client.job(job.id).id == job.id
    assert [record["text"] for record in client.follow(job.id) if record["type"] == "stream"] == ["kept\n"]
