"""What a cluster's nodes have, as the planner counts it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jupyter_gpu_platform.model.resources import Capacity, Gpu

from .manifests import GPU, GPU_MODEL, key_of

Object = dict[str, Any]

#: MiB, as GPU feature discovery labels nodes
_GPU_MEMORY = "nvidia.com/gpu.memory"
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def quantity(text: str | int | float) -> float:
    """Read a quantity as Kubernetes writes it: ``500m``, ``16Gi``, ``4``."""
    said = str(text)
    for unit, factor in _UNITS.items():
        if said.endswith(unit):
            return float(said.removesuffix(unit)) * factor
    return float(said[:-1]) / 1000 if said.endswith("m") else float(said)


def capacity(nodes: Iterable[Object], pods: Iterable[Object], agent: str) -> Capacity:
    """Sum up what nodes offer to us: all that is theirs, less what pods of others have taken.

    :param pods: all that are known; those of this agent's own attempts are counted from the store.
    """
    gpus: list[Gpu] = []
    cpus = memory = 0.0
    others = _others(pods, agent)
    for node in sorted(nodes, key=lambda node: str(node["metadata"]["name"])):
        if not _usable(node):
            continue
        has, name = node["status"].get("allocatable") or {}, node["metadata"]["name"]
        taken = others.get(name, {})
        cpus += max(0.0, quantity(has.get("cpu", 0)) - taken.get("cpu", 0.0))
        memory += max(0.0, quantity(has.get("memory", 0)) - taken.get("memory", 0.0))
        gpus += _gpus(node, int(quantity(has.get(GPU, 0))), int(taken.get(GPU, 0)), len(gpus))
    note = "" if gpus else "none of its nodes offers a GPU"
    return Capacity(gpus=tuple(gpus), cpus=round(cpus, 3), memory=int(memory), gpu_note=note)


def _usable(node: Object) -> bool:
    conditions = {c["type"]: c["status"] for c in node["status"].get("conditions") or ()}
    return conditions.get("Ready") == "True" and not node["spec"].get("unschedulable")


def _gpus(node: Object, count: int, taken: int, first: int) -> list[Gpu]:
    """One for each that the node offers; which of them a pod gets, its device plugin decides."""
    labels, name = node["metadata"].get("labels") or {}, node["metadata"]["name"]
    model = labels.get(GPU_MODEL, "NVIDIA GPU")
    size = int(labels.get(_GPU_MEMORY, "0")) * 2**20
    return [
        Gpu(
            index=first + number,
            uuid=f"{name}/{number}",
            model=model,
            memory=size,
            busy_by="pods of others" if number >= count - taken else "",
            node=name,
        )
        for number in range(count)
    ]


def _others(pods: Iterable[Object], agent: str) -> dict[str, dict[str, float]]:
    """Sum up by node what pods have asked for that aren't ours."""
    found: dict[str, dict[str, float]] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node is None or key_of(pod, agent) is not None or pod["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        sums = found.setdefault(node, {})
        for container in pod["spec"]["containers"]:
            for resource, asked in (container.get("resources", {}).get("requests") or {}).items():
                sums[resource] = sums.get(resource, 0.0) + quantity(asked)
    return found
