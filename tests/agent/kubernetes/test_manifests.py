"""The objects of an attempt, as Kubernetes gets them."""

from __future__ import annotations

import json
from typing import Any

from jupyter_gpu_agent.executors import AttemptKey
from jupyter_gpu_agent.kubernetes import manifests
from jupyter_gpu_agent.kubernetes.settings import KubernetesSettings

from jupyter_gpu_platform.model.jobs import Command, Environment, JobSpec
from jupyter_gpu_platform.model.resources import Resources
from jupyter_gpu_platform.wire.messages import Desired

SETTINGS = KubernetesSettings(link="10.0.0.1:8443")
TOKEN = "the token of this attempt"


def made(settings: KubernetesSettings = SETTINGS, **fields: Any) -> dict[str, Any]:
    spec = JobSpec(source=Command(argv=("true",)), **fields)
    return manifests.job(Desired(job="j1", attempt=2, generation=1, action="run"), spec, settings, "a1")


def pod(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["spec"]["template"]["spec"]
    return found


def test_kubernetes_itself_starts_nothing_again() -> None:
    job = made()
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    assert pod(job)["restartPolicy"] == "Never"


def test_an_object_tells_whose_it_is() -> None:
    assert manifests.key_of(made(), "a1") == AttemptKey("j1", 2)
    assert manifests.key_of(made(), "a2") is None
    assert manifests.key_of({"metadata": {"name": "another"}}, "a1") is None
    odd = {manifests.AGENT: "a1", manifests.JOB: "j1", manifests.ATTEMPT: "x"}
    assert manifests.key_of({"metadata": {"labels": odd}}, "a1") is None


def test_labels_of_people_are_those_that_kubernetes_takes() -> None:
    labels = made(labels={"team": "vision", "note": "two words", "a/b": "c"}, project="paper")["metadata"]["labels"]
    assert labels["jupyter-gpu-platform.label/team"] == "vision"
    assert labels["jupyter-gpu-platform/project"] == "paper"
    assert not [key for key in labels if "note" in key or "a/b" in key]


def test_resources_are_asked_for_and_limited() -> None:
    asked = pod(made(resources=Resources(gpus=2, cpus=0.5, memory=2**30)))["containers"][0]["resources"]
    assert asked["requests"] == {"cpu": "500m", "memory": str(2**30), "nvidia.com/gpu": "2"}
    assert asked["limits"] == {"memory": str(2**30), "nvidia.com/gpu": "2"}


def test_pods_pass_the_restricted_level() -> None:
    spec = pod(made())
    container = spec["containers"][0]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 1000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert spec["automountServiceAccountToken"] is False


def test_the_users_image_and_python_are_used() -> None:
    container = pod(made(environment=Environment(image="lab/x:1", python="/opt/conda/bin/python")))["containers"][0]
    assert container["image"] == "lab/x:1"
    assert container["command"][0] == "/opt/conda/bin/python"
    assert "runAsUser" not in pod(made(KubernetesSettings(link="a:1", user="image")))["securityContext"]


def test_the_token_is_in_the_secret_and_nowhere_else() -> None:
    spec = JobSpec(source=Command(argv=("true",)))
    desired = Desired(job="j1", attempt=2, generation=1, action="run")
    job = manifests.job(desired, spec, SETTINGS, "a1")
    job["metadata"]["uid"] = "u1"
    secret = manifests.secret(desired, spec, job, {"host": "h", "port": 1, "ca": "", "token": TOKEN})
    assert json.loads(secret["stringData"]["spec.json"])["token"] == TOKEN
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "u1"
    assert TOKEN not in json.dumps(job)


def test_the_runner_fits_into_a_config_map() -> None:
    runner = manifests.runner()
    assert "__main__.py" in runner["data"]
    assert len(json.dumps(runner)) < 900_000
