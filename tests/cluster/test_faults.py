"""What goes wrong in clusters: nothing is lost, nothing runs twice, and the cause is named."""

from __future__ import annotations

import time

import pytest

from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Command, Job, JobSpec, Limits, Phase, Target
from jupyter_gpu_platform.model.resources import Resources

from .cluster import Cluster
from .conftest import NAME
from .platforms import Platform
from .test_jobs import command, ended, text

pytestmark = pytest.mark.timeout(600)

#: counts aloud, a line each 50 ms
COUNT = "import time\nfor n in range({}): print(n, flush=True); time.sleep(0.05)"


def counting(lines: int, **fields: object) -> JobSpec:
    return command("python3", "-c", COUNT.format(lines), **fields)


def counted(lines: int) -> str:
    return "".join(f"{n}\n" for n in range(lines))


def pod_of(cluster: Cluster, job: Job) -> str:
    return cluster.kubectl("get", "pods", "-o", "name", "--selector", f"jupyter-gpu-platform/job={job.id}").strip()


def started(client: Client, job: Job) -> None:
    """Wait until a job has shown something."""
    next(client.follow(job.id))


def test_an_agent_that_is_killed_loses_nothing(client: Client, platform: Platform) -> None:
    jobs = [client.submit(counting(60, resources=Resources(cpus=0.05))) for _ in range(10)]
    agent = platform.agents[NAME]
    for _ in range(4):
        agent.stop()
        agent.run(client)
        time.sleep(1)
    for job in jobs:
        end, records = ended(client, job)
        assert end.phase is Phase.SUCCEEDED, end.reason
        assert text(records) == counted(60)
        assert len(client.attempts(job.id)) == 1


def test_a_control_service_that_is_killed_loses_nothing(client: Client, platform: Platform) -> None:
    jobs = [client.submit(counting(60, resources=Resources(cpus=0.05))) for _ in range(5)]
    for _ in range(2):
        platform.control.stop()
        platform.start_control()
        time.sleep(1)
    for job in jobs:
        end, records = ended(client, job)
        assert end.phase is Phase.SUCCEEDED, end.reason
        assert text(records) == counted(60)


def test_an_api_server_that_is_restarted_disturbs_nobody(client: Client, cluster: Cluster) -> None:
    job = client.submit(counting(100))
    started(client, job)
    cluster.plane.api.stop()
    cluster.plane.start_api()
    end, records = ended(client, job)
    assert end.phase is Phase.SUCCEEDED, end.reason
    assert text(records) == counted(100)
    assert ended(client, client.submit(command("true")))[0].phase is Phase.SUCCEEDED


def test_a_pod_that_is_deleted_by_hand_says_so(client: Client, cluster: Cluster) -> None:
    job = client.submit(counting(2000, limits=Limits(grace_seconds=1)))
    started(client, job)
    cluster.kubectl("delete", pod_of(cluster, job), "--wait=false")
    end, records = ended(client, job)
    assert end.reason is not None
    assert (end.phase, end.reason.code) == (Phase.FAILED, "pod_deleted")
    lines = text(records).splitlines()
    assert lines == [str(n) for n in range(len(lines))]


def test_code_that_takes_too_much_memory_is_told_so(client: Client) -> None:
    greedy = "print('before', flush=True)\nb''.join(bytes(2**20) for _ in range(1000))"
    job = client.submit(command("python3", "-c", greedy, resources=Resources(memory=100 * 2**20)))
    end, records = ended(client, job)
    assert end.reason is not None
    assert (end.phase, end.reason.code) == (Phase.FAILED, "oom_killed")
    assert text(records) == "before\n"


def test_a_container_that_is_killed_as_a_whole_still_shows_its_text(client: Client, cluster: Cluster) -> None:
    """As cgroup v2 does when memory runs out: the runner dies with the code."""
    job = client.submit(command("sh", "-c", "echo said; sleep 300"))
    started(client, job)
    uid = cluster.kubectl("get", pod_of(cluster, job), "-o", "jsonpath={.metadata.uid}")
    (runner,) = (p for p in cluster.nodes[0].processes("/jgp/runner", "pod") if p.environ().get("JGP_POD_UID") == uid)
    runner.kill()
    end, records = ended(client, job)
    assert end.reason is not None
    assert (end.phase, end.reason.code) == (Phase.FAILED, "container_ended")
    assert text(records) == "said\n"


def test_an_image_that_is_not_there_is_named(client: Client) -> None:
    from jupyter_gpu_platform.model.jobs import Environment

    spec = JobSpec(
        source=Command(argv=("true",)),
        environment=Environment(image="localhost/nowhere:1"),
        target=Target(cluster=NAME),
    )
    end, _ = ended(client, client.submit(spec))
    assert end.reason is not None
    assert (end.phase, end.reason.code) == (Phase.FAILED, "start_failed")
    assert "localhost/nowhere:1" in end.reason.message


def test_a_job_that_waits_for_a_node_is_cancelled_at_once(client: Client) -> None:
    job = client.submit(command("true", resources=Resources(gpus=8)))
    other = client.submit(command("sleep", "60", resources=Resources(gpus=1)))
    client.cancel(other.id)
    client.cancel(job.id)
    assert ended(client, other)[0].phase is Phase.CANCELLED
    assert ended(client, job)[0].phase in (Phase.CANCELLED, Phase.SUCCEEDED)
