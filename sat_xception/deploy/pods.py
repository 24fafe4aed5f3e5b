"""Why a predictor's pods don't get ready, in the words of the cluster and of the containers themselves."""

from __future__ import annotations

from typing import Any

from sat_xception.deploy.cluster import Cluster
from sat_xception.deploy.kinds import EVENT, POD

__all__ = ["SOURCE_ANNOTATION", "Trouble", "look_at_pods"]

Object = dict[str, Any]

# What KServe's storage initializer was told to fetch.
SOURCE_ANNOTATION = "internal.serving.kserve.io/storage-initializer-sourceuri"
_LOG_LINES = 12
# States of a container that won't get better by waiting; each is reached only after a first retry.
_HOPELESS = {
    "CrashLoopBackOff": "it starts and ends again and again",
    "ImagePullBackOff": "its image can't be fetched; check the runtime's image and the pull secret",
    "InvalidImageName": "its image has no valid name; check the runtime's image",
    "CreateContainerConfigError": "a Secret or ConfigMap that it needs is missing",
    "CreateContainerError": "the node can't create it",
    "RunContainerError": "the node can't start it",
}


class Trouble:
    """What keeps pods from getting ready.

    Attributes:
        fatal: Waiting won't help.
        reason: What is wrong, in one line; "" when nothing is.
        log: Last lines of the container's log, when it has one.
    """

    def __init__(self, reason: str = "", fatal: bool = False, log: str = "") -> None:
        """Take what was found."""
        self.reason, self.fatal, self.log = reason, fatal, log

    def __str__(self) -> str:
        """Return the reason and the log."""
        return f"{self.reason}; its log ends:\n{self.log}" if self.log else self.reason


def look_at_pods(cluster: Cluster, service: str, storage_uri: str) -> Trouble:
    """Return what keeps the pods of an InferenceService from getting ready; pods of another model don't count.

    Args:
        cluster: Where they are.
        service: Name of the InferenceService.
        storage_uri: What the pods should have fetched.
    """
    pods = cluster.find(POD, labels=f"serving.kserve.io/inferenceservice={service}")
    unready = Trouble()
    for pod in pods:
        source = pod["metadata"].get("annotations", {}).get(SOURCE_ANNOTATION, storage_uri)
        if source != storage_uri or pod["metadata"].get("deletionTimestamp"):
            continue
        trouble = _trouble_of(cluster, pod)
        if trouble.fatal:
            return trouble
        unready = trouble if trouble.reason else unready
    return unready


def _trouble_of(cluster: Cluster, pod: Object) -> Trouble:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind, ()):
            if trouble := _trouble_of_container(cluster, name, container):
                return trouble
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Trouble(f"pod {name} has no node: {condition.get('message') or condition.get('reason')}")
    if status.get("phase") == "Failed":
        return Trouble(f"pod {name} failed: {status.get('reason', '')} {status.get('message', '')}".strip(), fatal=True)
    if status.get("phase") == "Pending" and (event := _last_warning(cluster, name)):
        return Trouble(f"pod {name} waits: {event}")
    return Trouble()


def _trouble_of_container(cluster: Cluster, pod: str, container: Object) -> Trouble | None:
    waiting = container.get("state", {}).get("waiting", {})
    ended = container.get("lastState", {}).get("terminated") or container.get("state", {}).get("terminated") or {}
    reason = waiting.get("reason", "")
    out_of_memory = ended.get("reason") == "OOMKilled"
    if not out_of_memory and reason not in _HOPELESS:
        return None
    what = f"container {container['name']} of pod {pod}"
    if out_of_memory:
        why = "was killed for using more memory than its limit (OOMKilled); raise the template's memory limit"
        said = f"{what} {why}"
    else:
        detail = f" ({waiting['message']})" if waiting.get("message") else ""
        code = f", last exit code {ended['exitCode']}" if "exitCode" in ended else ""
        said = f"{what} is in {reason}: {_HOPELESS[reason]}{detail}{code}"
    previous = bool(container.get("restartCount")) and "running" not in container.get("state", {})
    log = cluster.log_tail(pod, container["name"], _LOG_LINES, previous) if ended else ""
    return Trouble(said, fatal=True, log=log)


def _last_warning(cluster: Cluster, pod: str) -> str:
    events = cluster.find(EVENT, fields=f"involvedObject.name={pod},type=Warning")
    events.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    return f"{events[-1].get('reason')}: {events[-1].get('message')}" if events else ""
