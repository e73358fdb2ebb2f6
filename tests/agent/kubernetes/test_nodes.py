"""What a cluster has, from what its nodes say."""

from __future__ import annotations

from typing import Any

import pytest
from jupyter_gpu_agent.kubernetes import nodes
from jupyter_gpu_agent.kubernetes.manifests import AGENT, ATTEMPT, JOB


def node(name: str = "node1", *, ready: str = "True", cordoned: bool = False, **allocatable: str) -> dict[str, Any]:
    has = {"cpu": "8", "memory": "16Gi", **{key.replace("gpus", "nvidia.com/gpu"): v for key, v in allocatable.items()}}
    labels = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {"allocatable": has, "conditions": [{"type": "Ready", "status": ready}]},
    }


def pod(node: str = "node1", labels: dict[str, str] | None = None, **requests: str) -> dict[str, Any]:
    asked = {key.replace("gpus", "nvidia.com/gpu"): value for key, value in requests.items()}
    return {
        "metadata": {"name": "p", "labels": labels or {}},
        "spec": {"nodeName": node, "containers": [{"resources": {"requests": asked}}]},
        "status": {"phase": "Running"},
    }


@pytest.mark.parametrize(
    ("text", "number"), [("500m", 0.5), ("4", 4), ("16Gi", 16 * 2**30), ("1500k", 1.5e6), (8, 8), ("0", 0)]
)
def test_quantities(text: str | int, number: float) -> None:
    assert nodes.quantity(text) == number


def test_gpus_are_counted_by_node_and_model() -> None:
    capacity = nodes.capacity([node("b", gpus="2"), node("a", gpus="1")], [], "a1")
    assert [(gpu.uuid, gpu.node, gpu.index) for gpu in capacity.gpus] == [
        ("a/0", "a", 0),
        ("b/0", "b", 1),
        ("b/1", "b", 2),
    ]
    assert {(gpu.model, gpu.memory) for gpu in capacity.gpus} == {("NVIDIA-H100-80GB-HBM3", 81559 * 2**20)}
    assert (capacity.cpus, capacity.memory) == (16.0, 32 * 2**30)


def test_nodes_that_take_no_pods_do_not_count() -> None:
    capacity = nodes.capacity([node("a", ready="False", gpus="8"), node("b", cordoned=True, gpus="8")], [], "a1")
    assert capacity.gpus == ()
    assert capacity.cpus == 0
    assert capacity.gpu_note


def test_what_others_hold_is_taken_off_and_what_is_ours_is_not() -> None:
    mine = pod(labels={AGENT: "a1", JOB: "j1", ATTEMPT: "1"}, gpus="1", cpu="2")
    over = {**pod(gpus="1"), "status": {"phase": "Succeeded"}}
    capacity = nodes.capacity([node(gpus="4")], [pod(gpus="1", cpu="500m", memory="1Gi"), mine, over], "a1")
    assert [bool(gpu.busy_by) for gpu in capacity.gpus] == [False, False, False, True]
    assert (capacity.cpus, capacity.memory) == (7.5, 15 * 2**30)
