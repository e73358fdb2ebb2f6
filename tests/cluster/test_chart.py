"""A cluster joins as an admin has it join: the command that is printed, real Helm, and the agent as a pod."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jupyter_gpu_platform.charts import CHART, MANIFEST, RELEASE
from jupyter_gpu_platform.client import Client
from jupyter_gpu_platform.model.jobs import Command, JobSpec, Phase, Target
from jupyter_gpu_platform.model.resources import Resources

from . import images
from .cluster import Cluster
from .daemons import until
from .manifest import rendered_manifest
from .platforms import TOKEN, Platform
from .services import ServiceProxy
from .test_jobs import ended, text

pytestmark = pytest.mark.timeout(300)

NAMESPACE = "gpu-jobs"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
#: what the test's images, which no registry has, need beside the command as it is printed
NOT_PULLED = [
    *("--set", "imagePullPolicy=Never"),
    *("--set", f"jobs.image={images.PYTHON}"),
    *("--set", "jobs.pullPolicy=Never"),
]


def gpu(platform: Platform, *line: str) -> str:
    """What ``jupyter gpu`` prints."""
    env = os.environ | {"JUPYTER_GPU_URL": platform.url, "JUPYTER_GPU_TOKEN": TOKEN}
    argv = [sys.executable, "-m", "jupyter_gpu_platform.cli.main", *line]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=True).stdout


def helm(cluster: Cluster, *words: str) -> str:
    env = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "HELM_CACHE_HOME": str(cluster.folder / "helm")}
    done = subprocess.run([cluster.programs / "helm", *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def join(cluster: Cluster, platform: Platform, proxy: ServiceProxy, name: str, namespace: str) -> None:
    """Do what `jupyter gpu cluster add` says."""
    printed = gpu(platform, "cluster", "add", name, f"--namespace={namespace}", f"--agent-image={images.AGENT}")
    command = shlex.split(printed.partition("\n\n")[2].replace("\\\n", ""))
    assert command[:2] == ["helm", "install"]
    cluster.kubectl("create", "namespace", namespace)
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    helm(cluster, *command[1:], *NOT_PULLED)
    proxy.serve(namespace, RELEASE)
    with platform.client() as client:
        until(lambda: client.cluster(name)["state"] == "connected", "the agent's pod")


@pytest.fixture(scope="module")
def proxy(cluster: Cluster) -> Iterator[ServiceProxy]:
    made = ServiceProxy(cluster)
    try:
        made.serve_api()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def joined(cluster: Cluster, proxy: ServiceProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform on the cluster's bridge, joined as `lab`."""
    made = Platform(tmp_path_factory.mktemp("chart"), address=cluster.address)
    try:
        made.start()
        join(cluster, made, proxy, "lab", NAMESPACE)
        yield made
    finally:
        print(cluster.kubectl("logs", "-n", NAMESPACE, f"deployment/{RELEASE}", check=False))
        made.stop()


@pytest.fixture
def client(joined: Platform) -> Iterator[Client]:
    with joined.client() as connected:
        yield connected


def test_a_job_runs_by_an_agent_that_is_a_pod(client: Client) -> None:
    spec = JobSpec(
        source=Command(argv=("sh", "-c", "echo here")), target=Target(cluster="lab"), resources=Resources(gpus=1)
    )
    job, records = ended(client, client.submit(spec))
    assert job.phase is Phase.SUCCEEDED, job.reason
    assert text(records) == "here\n"


def test_a_new_pod_of_the_agent_goes_on(client: Client, cluster: Cluster) -> None:
    line = "for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 1; done"
    job = client.submit(JobSpec(source=Command(argv=("sh", "-c", line)), target=Target(cluster="lab")))
    next(client.follow(job.id))
    cluster.kubectl("delete", "pod", "-n", NAMESPACE, "-l", f"app.kubernetes.io/instance={RELEASE}", "--wait=false")
    end, records = ended(client, job)
    assert end.phase is Phase.SUCCEEDED, end.reason
    assert text(records).split() == list("12345678")


def test_the_agent_may_do_what_it_needs_and_nothing_else(client: Client, cluster: Cluster) -> None:
    """What the API server says of its service account, beside what everybody may."""

    def allowed(namespace: str, account: str) -> set[tuple[str, ...]]:
        asked = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        said = cluster.kubectl(
            "create", "--validate=false", "--as", account, "-o", "json", "-f", "-", given=json.dumps(asked)
        )
        return {
            (verb, resource, *rule.get("resourceNames", ()))
            for rule in json.loads(said)["status"]["resourceRules"]
            for verb in rule["verbs"]
            for resource in rule["resources"]
        }

    nodes = {(verb, resource) for verb in ("list", "watch") for resource in ("nodes", "pods")}
    nobody = f"system:serviceaccount:{NAMESPACE}:default"
    assert allowed("kube-system", ACCOUNT) - allowed("kube-system", nobody) == nodes
    here = {
        *(("jobs", verb) for verb in ("list", "watch", "create", "patch", "delete")),
        *(("pods", verb) for verb in ("list", "watch", "delete")),
        ("pods/log", "get"),
        ("events", "list"),
        *(("secrets", verb) for verb in ("create", "patch", "delete")),
        *(("configmaps", verb) for verb in ("create", "patch")),
    }
    own = {(verb, "secrets", f"{RELEASE}-state") for verb in ("get", "patch")}
    expected = {(verb, resource) for resource, verb in here} | own | nodes
    assert allowed(NAMESPACE, ACCOUNT) - allowed(NAMESPACE, nobody) == expected


def test_helm_finds_no_fault_with_it(cluster: Cluster) -> None:
    given = ["--strict", "--set", "controlUrls={https://gpu.example.org}"]
    assert "0 chart(s) failed" in helm(cluster, "lint", str(CHART), *given)


def test_the_plain_manifest_is_the_chart(cluster: Cluster) -> None:
    assert MANIFEST.read_text() == rendered_manifest(cluster.programs), "python -m tests.cluster manifest writes it"


def test_a_cluster_that_is_removed_is_refused(
    client: Client, cluster: Cluster, joined: Platform, proxy: ServiceProxy
) -> None:
    join(cluster, joined, proxy, "leaving", "leaving-jobs")
    assert "helm uninstall" in gpu(joined, "cluster", "rm", "leaving", "--yes")
    assert "leaving" not in [known["name"] for known in client.clusters()]
    log = ["logs", "-n", "leaving-jobs", f"deployment/{RELEASE}", "--tail=5"]
    until(lambda: "revoked" in cluster.kubectl(*log, check=False), "it is told")
    helm(cluster, "uninstall", RELEASE, "--namespace", "leaving-jobs", "--wait")
    left = ["get", "all,secrets,networkpolicies", "-n", "leaving-jobs", "-o", "name"]
    until(lambda: cluster.kubectl(*left) == "", "everything of it to be gone")
