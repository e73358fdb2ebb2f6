"""From what Kubernetes says of a pod to what a person understands: why it waits, and how it ended. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jupyter_gpu_platform.model.jobs import Reason

from .manifests import CONTAINER

Object = dict[str, Any]

#: states in which a container stays until somebody mends something
_PULLING = frozenset(["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"])
#: what another try doesn't change: states, and words of a registry
_FINAL_STATES = frozenset(["ErrImageNeverPull", "InvalidImageName"])
_FINAL_WORDS = ("not found", "denied", "unauthorized", "forbidden", "manifest unknown", "invalid reference")
#: events of a pod that say why its container isn't made
_TROUBLES = frozenset(["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "NetworkNotReady"])
#: why a pod was ended from outside, by what Kubernetes calls it
_DISRUPTIONS = {
    "PreemptionByScheduler": Reason(code="preempted", message="a pod of higher priority took its place"),
    "EvictionByEvictionAPI": Reason(code="evicted", message="an admin or an autoscaler emptied its node"),
    "DeletionByTaintManager": Reason(code="node_lost", message="its node could not be reached any more"),
    "DeletionByPodGC": Reason(code="node_lost", message="its node is gone"),
    "TerminationByKubelet": Reason(code="evicted", message="its node ran out of something"),
}


def waiting(pod: Object | None, events: Sequence[Object] = ()) -> Reason | None:
    """Say why a pod doesn't run yet; None where it runs, or ended.

    :param pod: None where the Job has none yet.
    :param events: of the pod; of the Job, where it has no pod.
    """
    if pod is None:
        said = next((event for event in reversed(events) if event.get("reason") == "FailedCreate"), None)
        if said is None:
            return Reason(code="creating", message="its pod is being made")
        code = "quota_refused" if "exceeded quota" in said["message"] else "pod_refused"
        return Reason(code=code, message=_text(said["message"]))
    if pod["status"].get("phase") != "Pending":
        return None
    unscheduled = _condition(pod, "PodScheduled", "False")
    if unscheduled is not None:
        return Reason(code="unschedulable", message=_text(unscheduled.get("message") or "no node was looked for yet"))
    state = _waiting(pod)
    why, image = state.get("reason", ""), _image(pod)
    if why in _PULLING:
        return Reason(code="image_pull", message=_text(f"image {image}: {state.get('message') or why}"))
    if why in ("CreateContainerConfigError", "CreateContainerError"):
        return Reason(code="container_config", message=_text(state.get("message") or why))
    node = pod["spec"].get("nodeName")
    where = f" on {node}" if node else ""
    text = f"its container is being made{where}, from image {image}"
    trouble = next((event for event in reversed(events) if event.get("reason") in _TROUBLES), None)
    return Reason(code="starting_container", message=_text(f"{text}; {trouble['message']}" if trouble else text))


def hopeless(pod: Object | None) -> Reason | None:
    """Say why a pod that waits will never run, whatever time passes."""
    reason = None if pod is None else waiting(pod)
    if reason is None or reason.code != "image_pull":
        return None
    final = _waiting(pod or {}).get("reason") in _FINAL_STATES
    text = reason.message.lower()
    return reason if final or any(word in text for word in _FINAL_WORDS) else None


def started(pod: Object) -> bool:
    """Say whether the container has ever run."""
    state = _container(pod).get("state", {})
    return "running" in state or "terminated" in state


def is_over(pod: Object) -> bool:
    """Say whether none of the pod's containers runs or will run."""
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def ended(pod: Object | None) -> Reason:
    """Say how a pod ended whose runner did not live to say it itself.

    :param pod: as it was last seen; None where nothing of it is left.
    """
    if pod is None:
        return Reason(code="pod_deleted", message="its pod was deleted from outside")
    status = pod["status"]
    node = pod["spec"].get("nodeName") or "its node"
    disruption = _condition(pod, "DisruptionTarget", "True")
    if disruption is not None and disruption.get("reason") in _DISRUPTIONS:
        why = _DISRUPTIONS[disruption["reason"]]
        detail = disruption.get("message") or status.get("message") or ""
        return Reason(code=why.code, message=_text(f"{why.message}: {detail}")) if detail else why
    if status.get("reason") == "Evicted":
        return Reason(code="evicted", message=_text(f"{node} ran out of something: {status.get('message', '')}"))
    terminated = _container(pod).get("state", {}).get("terminated") or {}
    word, exit_code = terminated.get("reason", ""), terminated.get("exitCode")
    if word == "OOMKilled":
        limit = pod["spec"]["containers"][0].get("resources", {}).get("limits", {}).get("memory")
        said = f"its container used more memory than its limit of {limit}" if limit else f"{node} ran out of memory"
        return Reason(code="oom_killed", message=said)
    if word in ("StartError", "ContainerCannotRun"):
        return Reason(code="start_failed", message=_text(f"its container can't start: {terminated.get('message', '')}"))
    if "deletionTimestamp" in pod["metadata"]:
        return Reason(code="pod_deleted", message="its pod was deleted from outside")
    if exit_code is None:
        return Reason(code="pod_failed", message=_text(status.get("message") or "its pod failed without a word"))
    words = (terminated.get("message") or "").strip()
    said = f"its container ended with exit code {exit_code} before it could say more" + (f": {words}" if words else "")
    return Reason(code="container_ended", message=_text(said), details={"exit_code": exit_code})


def _waiting(pod: Object) -> Object:
    state: Object = _container(pod).get("state", {}).get("waiting") or {}
    return state


def _container(pod: Object) -> Object:
    found: Sequence[Object] = pod.get("status", {}).get("containerStatuses") or ()
    return next((status for status in found if status["name"] == CONTAINER), {})


def _image(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def _condition(pod: Object, kind: str, status: str) -> Object | None:
    found: Sequence[Object] = pod["status"].get("conditions") or ()
    return next((c for c in found if c["type"] == kind and c["status"] == status), None)


def _text(said: str) -> str:
    """Bring a message into one line of bounded length."""
    return " ".join(str(said).split())[:1000]
