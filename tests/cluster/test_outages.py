"""Parts of a cluster, and ways between them, that are away for a while: no job lost, none run twice, no line lost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Command, JobSpec, Phase, Target
from jupyter_gpu_platform.model.resources import Resources
from tests.faults.proxy import Proxy

from .cluster import Cluster
from .conftest import NAME
from .daemons import until
from .faulty_api import FaultyApi
from .ledger import Ledger
from .platforms import Platform
from .test_faults import counted, counting, pod_of, started
from .test_jobs import command, ended, text

pytestmark = pytest.mark.timeout(600)

SMALL = Resources(cpus=0.02)


@pytest.fixture
def ledger(cluster: Cluster) -> Iterator[Ledger]:
    with Ledger(cluster.address).listening() as made:
        yield made


def test_an_agent_that_is_killed_ten_times_under_a_hundred_jobs(
    client: Client, platform: Platform, ledger: Ledger
) -> None:
    jobs = [client.submit(command(*ledger.program(n, 30, 0.3), resources=SMALL)) for n in range(100)]
    agent = platform.agents[NAME]
    for _ in range(10):
        until(lambda: client.jobs(phases=[Phase.RUNNING], cluster=NAME).items, "jobs that run")
        agent.stop()
        time.sleep(0.5)
        agent.run(client)
        time.sleep(2)
    for number, job in enumerate(jobs):
        end, records = ended(client, job)
        assert end.phase is Phase.SUCCEEDED, end.reason
        assert text(records).split() == ledger.records[number]
        assert (ledger.starts[number], ledger.ends[number], len(client.attempts(job.id))) == (1, 1, 1)
    assert ledger.twice == []


def test_a_watch_whose_place_is_no_more_kept_begins_anew(client: Client, cluster: Cluster, platform: Platform) -> None:
    """etcd is compacted while the API server is away: what happened since can't be told, only listed."""
    log = platform.agents[NAME].log
    job = client.submit(counting(400))
    started(client, job)
    told = log.read_text().count("listing it again")
    cluster.plane.api.stop()
    _compact(cluster)
    cluster.plane.start_api()
    until(lambda: log.read_text().count("listing it again") > told, "a new list")
    assert ended(client, client.submit(command("true")))[0].phase is Phase.SUCCEEDED
    end, records = ended(client, job)
    assert end.phase is Phase.SUCCEEDED, end.reason
    assert text(records) == counted(400)


def _compact(cluster: Cluster) -> None:
    """Have etcd forget all that was before now."""
    at = f"{cluster.plane.etcd_url}/v3/kv"

    def ask(verb: str, body: dict[str, object]) -> dict[str, dict[str, str]]:
        request = urllib.request.Request(f"{at}/{verb}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, dict[str, str]] = json.load(answer)
            return found

    revision = ask("range", {"key": "AA=="})["header"]["revision"]
    ask("compaction", {"revision": revision, "physical": True})


def test_an_api_server_that_turns_requests_away(client: Client, cluster: Cluster, platform: Platform) -> None:
    with FaultyApi(cluster.plane, share=0.0).listening() as api:
        config = api.kubeconfig(platform.folder / "faulty.kubeconfig")
        agent = platform.join(cluster, "breathless", kubeconfig=str(config))
        api.share = 0.4
        spec = counting(20, resources=SMALL)
        jobs = [
            client.submit(JobSpec(source=spec.source, resources=SMALL, target=Target(cluster="breathless")))
            for _ in range(10)
        ]
        for job in jobs:
            end, records = ended(client, job)
            assert end.phase is Phase.SUCCEEDED, end.reason
            assert text(records) == counted(20)
        assert api.refused > 10
        leave(client, agent.cluster_name, platform)


def leave(client: Client, name: str, platform: Platform) -> None:
    """Have a cluster that one test alone used out of the others' way."""
    platform.agents.pop(name).stop()
    client.cluster_remove(name)


@contextmanager
def between(url: str) -> Iterator[Proxy]:
    """Put a proxy between an agent and the service."""
    host, _, port = url.rpartition("/")[2].rpartition(":")
    proxy = Proxy("agent to service", lambda: (host, int(port)))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def do(work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(10)  # type: ignore[arg-type]  # a coroutine

    do(proxy.open())
    try:
        yield proxy
    finally:
        do(proxy.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_an_agent_that_is_cut_off_for_a_minute(client: Client, cluster: Cluster, platform: Platform) -> None:
    with between(client.url) as proxy:
        agent = platform.join(cluster, "remote", url=proxy.url)
        spec = counting(1600)
        job = client.submit(JobSpec(source=spec.source, target=Target(cluster="remote")))
        started(client, job)
        proxy.stall(True)
        time.sleep(60)
        assert client.job(job.id).phase in (Phase.RUNNING, Phase.STARTING)
        proxy.stall(False)
        end, records = ended(client, job)
        assert end.phase is Phase.SUCCEEDED, end.reason
        assert text(records) == counted(1600)
        assert len(client.attempts(job.id)) == 1
        leave(client, agent.cluster_name, platform)


def test_much_output_while_the_agent_is_down(client: Client, platform: Platform) -> None:
    size = 100_000_000
    code = f"import time\ntime.sleep(4)\nfor n in range({size} // 100): print('x' * 99)"
    job = client.submit(command("python3", "-c", code))
    until(lambda: client.job(job.id).phase is Phase.RUNNING, "the job")
    agent = platform.agents[NAME]
    agent.stop()
    time.sleep(15)
    agent.run(client)
    end, records = ended(client, job)
    assert end.phase is Phase.SUCCEEDED, end.reason
    expected = hashlib.sha256((b"x" * 99 + b"\n") * (size // 100)).hexdigest()
    assert hashlib.sha256(text(records).encode()).hexdigest() == expected


def test_a_kubelet_that_is_restarted_disturbs_nobody(client: Client, cluster: Cluster) -> None:
    node = cluster.nodes[0]
    job = client.submit(counting(200))
    started(client, job)
    node.kill_kubelet()
    time.sleep(2)
    node.start_kubelet(cluster.programs)
    cluster.offers_gpus(node)
    end, records = ended(client, job)
    assert end.phase is Phase.SUCCEEDED, end.reason
    assert text(records) == counted(200)


def test_a_node_that_is_cut_off_while_its_job_goes_on(
    client: Client, cluster: Cluster, platform: Platform, ledger: Ledger
) -> None:
    """Kubernetes gives its pod up, which goes on, and nothing runs in its place until its end is known.

    A taint stands for the one that Kubernetes sets itself: it never does where all nodes of a cluster are away.
    """
    node = cluster.nodes[0]
    job = client.submit(command(*ledger.program(1, 2000, 0.05), resources=SMALL, retries=1))
    started(client, job)
    node.kill_kubelet()
    cluster.kubectl("taint", "node", node.name, "cut-off=:NoExecute")
    try:
        at = "jsonpath={.items[0].metadata.deletionTimestamp}"
        chosen = ["get", "pods", "--selector", f"jupyter-gpu-platform/job={job.id}", "-o", at]
        until(lambda: cluster.kubectl(*chosen), "the pod to be given up")
        before = len(ledger.records[1])
        time.sleep(3)
        assert len(ledger.records[1]) > before, "it goes on"
        assert ledger.starts[1] == 1
    finally:
        cluster.kubectl("taint", "node", node.name, "cut-off-")
        node.start_kubelet(cluster.programs)
        cluster.offers_gpus(node)
    until(lambda: len(client.attempts(job.id)) == 2, "the attempt's end")
    first = client.attempts(job.id)[0]
    assert first.reason is not None
    assert first.reason.code == "node_lost"
    client.cancel(job.id)
    ended(client, job)
    assert ledger.twice == []


def test_a_node_that_is_deleted(client: Client, cluster: Cluster) -> None:
    node = cluster.nodes[0]
    job = client.submit(counting(4000))
    started(client, job)
    cluster.kubectl("delete", "node", node.name, "--wait=false")
    end, _ = ended(client, job)
    assert end.reason is not None
    assert (end.phase, end.reason.code) == (Phase.FAILED, "node_lost")
    node.kill_kubelet()
    node.start_kubelet(cluster.programs)
    cluster.offers_gpus(node)
    assert ended(client, client.submit(command("true", resources=Resources(gpus=1))))[0].phase is Phase.SUCCEEDED


def test_a_pod_that_its_controller_starts_twice_runs_its_code_once(
    client: Client, cluster: Cluster, ledger: Ledger
) -> None:
    job = client.submit(command(*ledger.program(1, 100, 0.05)))
    started(client, job)
    first = json.loads(cluster.kubectl("get", "-o", "json", pod_of(cluster, job)))
    second = {"apiVersion": "v1", "kind": "Pod", "spec": first["spec"]}
    del second["spec"]["nodeName"]
    second["metadata"] = {"name": f"{first['metadata']['name']}-again", "labels": first["metadata"]["labels"]}
    second["metadata"]["ownerReferences"] = first["metadata"]["ownerReferences"]
    cluster.kubectl("create", "-f", "-", given=json.dumps(second))
    end, records = ended(client, job)
    assert end.phase is Phase.SUCCEEDED, end.reason
    assert (ledger.starts[1], ledger.twice) == (1, [])
    assert text(records).split() == ledger.records[1]


def test_a_container_that_is_killed_in_the_middle_of_a_line(client: Client, cluster: Cluster) -> None:
    line = "printf 'whole\\nhalf a li'; sleep 300"
    job = client.submit(JobSpec(source=Command(argv=("sh", "-c", line)), target=Target(cluster=NAME)))
    started(client, job)
    time.sleep(1)
    uid = cluster.kubectl("get", pod_of(cluster, job), "-o", "jsonpath={.metadata.uid}")
    (runner,) = (p for p in cluster.nodes[0].processes("/jgp/runner", "pod") if p.environ().get("JGP_POD_UID") == uid)
    runner.kill()
    end, records = ended(client, job)
    assert end.reason is not None
    assert end.reason.code == "container_ended"
    assert text(records) == "whole\nhalf a li"
