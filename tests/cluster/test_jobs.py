"""Jobs on a real cluster, from the spec to the last line."""

from __future__ import annotations

import pytest

from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.client.protocol import Record
from jupyter_gpu_platform.model.jobs import Cell, Command, Job, JobSpec, Phase, Target
from jupyter_gpu_platform.model.resources import Resources

from .cluster import Cluster
from .conftest import NAME

pytestmark = pytest.mark.timeout(300)


def command(*argv: str, **fields: object) -> JobSpec:
    return JobSpec(source=Command(argv=argv), target=Target(cluster=NAME), **fields)  # type: ignore[arg-type]  # as given


def ended(client: Client, job: Job) -> tuple[Job, list[Record]]:
    """Follow a job to its end."""
    records = list(client.follow(job.id))
    return client.job(job.id), records


def text(records: list[Record]) -> str:
    return "".join(record["text"] for record in records if record["type"] == "stream")


def test_a_command_runs_in_a_pod(client: Client) -> None:
    job, records = ended(client, client.submit(command("python3", "-c", "import os; print('in', os.getcwd())")))
    assert job.phase is Phase.SUCCEEDED, job.reason
    assert text(records) == "in /jgp/work/home\n"


def test_a_cell_runs_in_a_pod(client: Client) -> None:
    spec = JobSpec(source=Cell(code="import sys\nprint(sys.version_info[:2])\n1 + 1"), target=Target(cluster=NAME))
    job, records = ended(client, client.submit(spec))
    assert job.phase is Phase.SUCCEEDED, job.reason
    assert text(records) == "(3, 11)\n"
    assert [record["data"]["text/plain"] for record in records if record["type"] == "result"] == ["2"]


def test_kubectl_shows_the_text_of_what_runs(client: Client, cluster: Cluster) -> None:
    job = client.submit(command("sh", "-c", "echo seen twice; sleep 60"))
    next(client.follow(job.id))
    selector = f"jupyter-gpu-platform/job={job.id}"
    assert cluster.kubectl("logs", "--selector", selector) == "seen twice\n"
    client.cancel(job.id)
    assert ended(client, job)[0].phase is Phase.CANCELLED


def test_an_exit_code_comes_home(client: Client) -> None:
    job, _ = ended(client, client.submit(command("sh", "-c", "exit 7")))
    assert (job.phase, job.exit_code) == (Phase.FAILED, 7)


def test_the_ninth_gpu_job_waits_and_says_why(client: Client) -> None:
    one = Resources(gpus=1)
    jobs = [client.submit(command("sleep", "60", resources=one)) for _ in range(8)]
    ninth = client.submit(command("true", resources=one))
    while (waiting := client.job(ninth.id)).reason is None:
        pass
    assert waiting.reason.code == "gpus_busy"
    client.cancel(jobs[0].id)
    assert ended(client, ninth)[0].phase is Phase.SUCCEEDED
    for job in jobs[1:]:
        client.cancel(job.id)
    assert {ended(client, job)[0].phase for job in jobs} == {Phase.CANCELLED}
