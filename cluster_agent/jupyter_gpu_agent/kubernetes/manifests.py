"""The objects that an attempt is made of in Kubernetes. Pure: nothing here speaks to a cluster."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from jupyter_gpu_platform.model.jobs import JobSpec
from jupyter_gpu_platform.wire.messages import Desired

from ..executors import AttemptKey
from .settings import KubernetesSettings

Object = dict[str, Any]

DOMAIN = "jupyter-gpu-platform"
MANAGED = {"app.kubernetes.io/managed-by": DOMAIN}
JOB, ATTEMPT, AGENT = f"{DOMAIN}/job", f"{DOMAIN}/attempt", f"{DOMAIN}/agent"
CONTAINER = "job"
#: where the pod finds what it needs, and works
RUNNER, GIVEN, WORK = "/jgp/runner", "/jgp/given", "/jgp/work"
GPU = "nvidia.com/gpu"
GPU_MODEL = "nvidia.com/gpu.product"
#: seconds that a pod which is deleted has beyond its job's own grace, to bring its last output home
LAST_OUTPUT = 30


def name(key: AttemptKey) -> str:
    """Name what belongs to an attempt."""
    return f"{key.job}-{key.attempt}"


def key_of(item: Object, agent: str) -> AttemptKey | None:
    """Say which of an agent's attempts an object belongs to; None for one that is somebody else's."""
    labels = item["metadata"].get("labels") or {}
    try:
        return AttemptKey(labels[JOB], int(labels[ATTEMPT])) if labels.get(AGENT) == agent else None
    except (KeyError, ValueError):
        return None


def selector(agent: str) -> str:
    """Select what an agent has made."""
    return f"{AGENT}={agent}"


def _labels(key: AttemptKey, agent: str) -> dict[str, str]:
    return {**MANAGED, AGENT: agent, JOB: key.job, ATTEMPT: str(key.attempt)}


def job(desired: Desired, spec: JobSpec, settings: KubernetesSettings, agent: str) -> Object:
    """Make the Kubernetes Job of an attempt: one pod, never started again by Kubernetes itself.

    :param agent: whose it is: several agents may share a namespace.
    """
    key = AttemptKey(desired.job, desired.attempt)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name(key),
            "labels": _labels(key, agent) | _people(spec),
            "annotations": {f"{DOMAIN}/name": spec.name} if spec.name else {},
        },
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"labels": _labels(key, agent) | _people(spec)},
                "spec": _pod(key, spec, settings),
            },
        },
    }


def _people(spec: JobSpec) -> dict[str, str]:
    """Labels by which people look for a job; what can't be one is left out."""
    given = {f"{DOMAIN}/project": spec.project, **{f"{DOMAIN}.label/{k}": v for k, v in spec.labels.items()}}
    return {key: value for key, value in given.items() if _LABEL_KEY.match(key) and _LABEL.match(value)}


_LABEL = re.compile(r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")
_LABEL_KEY = re.compile(r"^[a-z.-]+/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")


def _pod(key: AttemptKey, spec: JobSpec, settings: KubernetesSettings) -> Object:
    python = spec.environment.python or "python3"
    container: Object = {
        "name": CONTAINER,
        "image": spec.environment.image or settings.image,
        "command": [python, "-I", "-S", RUNNER, "pod", WORK, GIVEN],
        "env": [
            {"name": "JGP_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "HOME", "value": f"{WORK}/home"},
        ],
        "resources": _resources(spec),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "runner", "mountPath": RUNNER, "readOnly": True},
            {"name": "given", "mountPath": GIVEN, "readOnly": True},
            {"name": "work", "mountPath": WORK},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 -- in the container
        ],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if settings.pull_policy:
        container["imagePullPolicy"] = settings.pull_policy
    pod: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": int(spec.limits.grace_seconds) + LAST_OUTPUT,
        "securityContext": _user(settings),
        "containers": [container],
        "volumes": [
            {"name": "runner", "configMap": {"name": runner_name()}},
            {"name": "given", "secret": {"secretName": name(key), "defaultMode": 0o440}},
            {"name": "work", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    if settings.pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret.strip()} for secret in settings.pull_secrets.split(",")]
    return pod


def _user(settings: KubernetesSettings) -> Object:
    context: Object = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if settings.user != "image":
        number = int(settings.user)
        context |= {"runAsUser": number, "runAsGroup": number, "fsGroup": number}
    return context


def _resources(spec: JobSpec) -> Object:
    asked = spec.resources
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    if asked.cpus is not None:
        requests["cpu"] = f"{max(1, round(asked.cpus * 1000))}m"
    if asked.memory is not None:
        requests["memory"] = limits["memory"] = str(asked.memory)
    if asked.gpus:
        requests[GPU] = limits[GPU] = str(asked.gpus)
    return {"requests": requests, "limits": limits}


def secret(desired: Desired, spec: JobSpec, owner: Object, link: Object) -> Object:
    """Make the Secret that tells a pod what to run and how to reach its agent.

    :param owner: the Job, with which it goes.
    :param link: ``host``, ``port``, ``ca`` and ``token``.
    """
    key = AttemptKey(desired.job, desired.attempt)
    given = {
        "protocol": 1,
        "job": key.job,
        "attempt": key.attempt,
        "replica": 0,
        **link,
        "spec": msgspec.to_builtins(spec),
        "python": spec.environment.python,
        "workdir": spec.environment.workdir or f"{WORK}/home",
        "generation": desired.generation,
    }
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": owner["metadata"]["name"]}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name(key),
            "labels": owner["metadata"]["labels"],
            "ownerReferences": [{**reference, "uid": owner["metadata"]["uid"]}],
        },
        "stringData": {"spec.json": json.dumps(given)},
    }


def runner() -> Object:
    """Make the ConfigMap with the program that runs inside each pod."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": runner_name(), "labels": MANAGED},
        "immutable": True,
        "data": _runner_files(),
    }


@cache
def runner_name() -> str:
    files = json.dumps(_runner_files(), sort_keys=True).encode()
    return f"jgp-runner-{hashlib.sha256(files).hexdigest()[:12]}"


@cache
def _runner_files() -> dict[str, str]:
    folder = resources.files("jupyter_gpu_platform.runner")
    return {path.name: path.read_text() for path in folder.iterdir() if path.name.endswith(".py")}
