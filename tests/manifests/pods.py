"""The pods that come of manifests, KServe's included, and what the restricted pod security standard refuses of them.

https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, which has the baseline's too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

# Fields of an InferenceService's predictor that aren't of a pod but of the component: ComponentExtensionSpec in
# component.go and PredictorSpec in predictor.go of KServe's v1beta1.
_COMPONENT = frozenset(
    "annotations autoScaling batcher canaryTrafficPercent containerConcurrency deploymentStrategy labels logger "
    "maxReplicas minReplicas model name scaleMetric scaleMetricType scaleTarget storageContainerName storageUris "
    "timeout workerSpec".split()
)
_MODEL = frozenset("confidential modelFormat protocolVersion runtime runtimeVersion storage storageUri".split())
_VOLUMES = frozenset(
    "configMap csi downwardAPI emptyDir ephemeral image persistentVolumeClaim projected secret name".split()
)
_SYSCTLS = frozenset(
    "kernel.shm_rmid_forced net.ipv4.ip_local_port_range net.ipv4.ip_unprivileged_port_start net.ipv4.tcp_syncookies "
    "net.ipv4.ping_group_range net.ipv4.ip_local_reserved_ports net.ipv4.tcp_keepalive_time net.ipv4.tcp_fin_timeout "
    "net.ipv4.tcp_keepalive_intvl net.ipv4.tcp_keepalive_probes".split()
)
_SELINUX = frozenset({"container_t", "container_init_t", "container_kvm_t", "container_engine_t", None, ""})


def pods(objects: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the pod of each object that makes one, by `Kind/name`."""
    objects = list(objects)
    found: dict[str, dict[str, Any]] = {}
    for item in objects:
        name = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] == "InferenceService":
            found[name] = inference_pod(item, objects)
        elif item["kind"] == "Pod":
            found[name] = item["spec"]
        elif item["kind"] == "CronJob":
            found[name] = item["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif "template" in item.get("spec", {}):
            found[name] = item["spec"]["template"]["spec"]
    return found


def inference_pod(service: dict[str, Any], objects: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the pod that KServe makes of an InferenceService: runtime and model merged, with the storage-initializer.

    Container and runtime are merged as MergeRuntimeContainers in pkg/controller/v1beta1/inferenceservice/utils does:
    arguments are added, what the model says wins.
    """
    by_name = {(item["kind"], item["metadata"]["name"]): item for item in objects}
    predictor = service["spec"]["predictor"]
    runtime = by_name["ServingRuntime", predictor["model"]["runtime"]]["spec"]
    (base,) = (part for part in runtime["containers"] if part["name"] == "kserve-container")
    ours = {key: value for key, value in predictor["model"].items() if key not in _MODEL}
    container = base | ours | {"args": base.get("args", []) + ours.get("args", [])}
    for key in ("env", "volumeMounts"):
        container[key] = base.get(key, []) + ours.get(key, [])
    pod = {key: value for key, value in predictor.items() if key not in _COMPONENT}
    pod["containers"] = [container]
    pod["volumes"] = runtime.get("volumes", []) + predictor.get("volumes", [])
    if "storageContainerName" in predictor:
        initializer = by_name["ClusterStorageContainer", predictor["storageContainerName"]]
        pod["initContainers"] = [initializer["spec"]["container"]]
    return pod


def violations(pod: dict[str, Any]) -> list[str]:
    """Return what the restricted standard refuses of a pod, each as `field: reason`; nothing if it takes it."""
    return [*_pod_violations(pod), *(found for part in _containers(pod) for found in _container_violations(pod, part))]


def _containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod.get(key, [])


def _pod_violations(pod: dict[str, Any]) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"{key}: must not be true"
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - _VOLUMES:
            yield f"volumes.{volume['name']}: {kind} isn't allowed"
    context = pod.get("securityContext", {})
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"securityContext.sysctls: {sysctl['name']} isn't safe"
    yield from _either("securityContext", context)


def _container_violations(pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    name, context = container["name"], container.get("securityContext", {})
    whole = pod.get("securityContext", {}) | context
    if context.get("privileged"):
        yield f"{name}: privileged must not be true"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation must be false"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{name}: capabilities must drop ALL"
    if extra := set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities must not add {', '.join(sorted(extra))}"
    if whole.get("runAsNonRoot") is not True:
        yield f"{name}: runAsNonRoot must be true"
    if whole.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{name}: seccompProfile must be RuntimeDefault or Localhost"
    if context.get("procMount", "Default") != "Default":
        yield f"{name}: procMount must be Default"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"{name}: hostPort {port['hostPort']} isn't allowed"
    yield from _either(name, context)


def _either(name: str, context: dict[str, Any]) -> Iterator[str]:
    """Yield what a security context must not say, be it a pod's or a container's."""
    if context.get("runAsUser") == 0:
        yield f"{name}: runAsUser must not be 0"
    if context.get("runAsNonRoot") is False:
        yield f"{name}: runAsNonRoot must not be false"
    if context.get("seccompProfile", {}).get("type") == "Unconfined":
        yield f"{name}: seccompProfile must not be Unconfined"
    if context.get("appArmorProfile", {}).get("type") == "Unconfined":
        yield f"{name}: appArmorProfile must not be Unconfined"
    options = context.get("seLinuxOptions", {})
    if options.get("type") not in _SELINUX or options.get("user") or options.get("role"):
        yield f"{name}: seLinuxOptions isn't allowed"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{name}: hostProcess must not be true"
