"""What people are told of a pod, from what Kubernetes says of it."""

from __future__ import annotations

from typing import Any

import pytest
from jupyter_gpu_agent.kubernetes import explaining


def pod(**status: Any) -> dict[str, Any]:
    container = {"name": "job", "image": "ghcr.io/lab/train:7", "resources": {"limits": {"memory": "1073741824"}}}
    return {
        "metadata": {"name": "j1-1", "uid": "u1"},
        "spec": {"nodeName": "node1", "containers": [container]},
        "status": status,
    }


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return pod(
        phase="Pending",
        containerStatuses=[{"name": "job", "state": {"waiting": {"reason": reason, "message": message}}}],
    )


def terminated(phase: str = "Failed", **state: Any) -> dict[str, Any]:
    return pod(phase=phase, containerStatuses=[{"name": "job", "state": {"terminated": state}}])


def disrupted(reason: str, message: str = "") -> dict[str, Any]:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    return pod(phase="Failed", conditions=[condition])


SCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (pod(phase="Pending", conditions=[{**SCHEDULED, "message": "1 Insufficient nvidia.com/gpu"}]),
         "unschedulable", "Insufficient nvidia.com/gpu"),
        (waits("ErrImagePull", "ghcr.io/lab/train:7: not found"), "image_pull", "not found"),
        (waits("ImagePullBackOff", "Back-off pulling image"), "image_pull", "ghcr.io/lab/train:7"),
        (waits("CreateContainerConfigError", 'secret "s" not found'), "container_config", 'secret "s" not found'),
        (waits("ContainerCreating"), "starting_container", "on node1"),
        (pod(phase="Pending"), "starting_container", "on node1"),
    ],
)  # fmt: skip
def test_why_a_pod_waits(given: dict[str, Any], code: str, words: str) -> None:
    reason = explaining.waiting(given)
    assert reason is not None
    assert reason.code == code
    assert words in reason.message


def test_a_pod_that_runs_waits_for_nothing() -> None:
    assert explaining.waiting(pod(phase="Running")) is None


def test_a_job_without_a_pod_says_who_refused_it() -> None:
    quota = 'Error creating: pods "j1-1-x" is forbidden: exceeded quota: compute, requested: cpu=2, limited: cpu=1'
    reason = explaining.waiting(None, [{"reason": "FailedCreate", "message": quota}])
    assert reason is not None
    assert (reason.code, reason.message) == ("quota_refused", quota)
    other = explaining.waiting(None, [{"reason": "FailedCreate", "message": "violates PodSecurity restricted"}])
    assert other is not None
    assert other.code == "pod_refused"
    fresh = explaining.waiting(None)
    assert fresh is not None
    assert fresh.code == "creating"


def test_only_what_time_cannot_mend_is_given_up() -> None:
    assert explaining.hopeless(waits("ErrImagePull", "ghcr.io/lab/train:7: not found")) is not None
    assert explaining.hopeless(waits("ErrImagePull", "dial tcp: i/o timeout")) is None
    assert explaining.hopeless(waits("ContainerCreating", "volume not found")) is None
    assert explaining.hopeless(waits("ErrImageNeverPull", "not present with pull policy of Never")) is not None
    assert explaining.hopeless(waits("InvalidImageName", "couldn't parse")) is not None
    assert explaining.hopeless(None) is None


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (terminated(reason="OOMKilled", exitCode=137), "oom_killed", "its limit of 1073741824"),
        (terminated(reason="StartError", exitCode=128, message="exec: python3: not found"), "start_failed", "python3"),
        (terminated(reason="Error", exitCode=3, message="last words"), "container_ended", "exit code 3"),
        (disrupted("PreemptionByScheduler", "by pod b"), "preempted", "higher priority"),
        (disrupted("EvictionByEvictionAPI"), "evicted", "emptied its node"),
        (disrupted("DeletionByTaintManager"), "node_lost", "could not be reached"),
        (disrupted("DeletionByPodGC"), "node_lost", "is gone"),
        (pod(phase="Failed", reason="Evicted", message="low on memory"), "evicted", "low on memory"),
        (pod(phase="Failed", message="the node was shut down"), "pod_failed", "shut down"),
        (None, "pod_deleted", "deleted from outside"),
    ],
)
def test_how_a_pod_ended(given: dict[str, Any] | None, code: str, words: str) -> None:
    reason = explaining.ended(given)
    assert reason.code == code
    assert words in reason.message


def test_a_deleted_pod_is_not_taken_for_one_that_failed() -> None:
    given = terminated(reason="Error", exitCode=143)
    given["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert explaining.ended(given).code == "pod_deleted"


def test_long_messages_are_cut_and_stay_on_one_line() -> None:
    reason = explaining.waiting(waits("ErrImagePull", "x\n" * 5000))
    assert reason is not None
    assert len(reason.message) <= 1000
    assert "\n" not in reason.message
