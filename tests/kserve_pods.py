"""Pods of a predictor as KServe, the cluster's controllers and a kubelet make them, for `kserve_cluster.py`."""

import math
import shutil
import time

NAMESPACE = "sat-xception"
KSERVE, GATEWAY = "serving.kserve.io", "gateway.networking.k8s.io"
STORAGE = "pvc://models/serving"
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
# What the API server answers to the ReplicaSet's controller, or to KServe's own for "deployment".
REFUSALS = {
    "quota": 'pods "x" is forbidden: exceeded quota: gpu, requested: limits.memory=4Gi, used: 8Gi, limited: 8Gi',
    "pod security": 'pods "x" is forbidden: violates PodSecurity "restricted:v1.32": seccompProfile (pod or container '
    '"storage-initializer" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")',
    "webhook": 'admission webhook "validate.kyverno.svc-fail" denied the request: images need a signature',
    "policy": "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'registries' with binding 'all' denied request: "
    "docker.io isn't allowed",
    "event": 'pods "x" is forbidden: error looking up service account sat-xception/reader: serviceaccount "reader" '
    "not found",
    "webhook away": 'Internal error occurred: failed calling webhook "x": dial tcp: connection refused',
    "deployment": 'fails to reconcile predictor: admission webhook "x" denied the request: Deployments need an owner',
}


class Pods:
    """One predictor's Deployment, pods, Service and what KServe says of them, one step further each time.

    Fates: "well", "impostor" (serves other weights under the version's number), "never", "crash", "crash later",
    "image", "image once" and "blocked once" (the first pull or download fails), "config map", "mount", "oom",
    "no node", "blocked", "deadline", and what refuses its pods: a key of `REFUSALS`, "event" being one that only an
    event tells of.
    """

    def __init__(self, cluster, service, backend, predictor, replicas, fate, tick):
        self.cluster, self.api, self.service = cluster, cluster.api, service
        self.name, self.backend, self.fate = service["metadata"]["name"], backend, fate
        self.tick = tick // 10 if fate.endswith(" once") else tick  # long enough to be seen
        self.uri, self.replicas = predictor["model"]["storageUri"], replicas
        annotations = {**service["metadata"].get("annotations", {}), **predictor.get("annotations", {})}
        self.annotations = {key: value for key, value in annotations.items() if "kubectl" not in key}
        self.annotations[SOURCE] = self.uri

    def step(self):
        if self.tick > 6:
            self._follow()
            if self.api.read("deployments", self.backend, "apps"):
                return  # all is said
            self.tick = 6
        stage = min(self.tick, 6)
        deployed = stage >= 1 and self.fate != "deployment"
        started = stage >= 3
        once = self.fate in ("image once", "blocked once")
        ready = stage >= (6 if once else 4) and (once or self.fate in ("well", "impostor"))
        if deployed:
            self._write_deployment(started, ready)
        if started and self.fate in REFUSALS:
            self._write_refusal()
        elif started:
            self._write_pod(ready)
        if ready:
            self._serve()
            self.api.put("services", {"metadata": {"name": self.backend}, "spec": {"ports": [{"port": 80}]}})
        self._say(stage, ready)

    def _follow(self):
        """Change a Deployment that all is said of: other annotations mean other pods."""
        found = self.api.read("deployments", self.backend, "apps")
        if found is None:
            return
        restarted = found["spec"]["template"]["metadata"]["annotations"] != self.annotations
        self.cluster.restarts[self.backend] += restarted
        if restarted or found["spec"]["replicas"] != self.replicas:
            self._write_deployment(True, bool(found.get("status", {}).get("availableReplicas")))

    def _write_deployment(self, started, ready):
        found = self.api.read("deployments", self.backend, "apps")
        generation = 1 if found is None else found["metadata"]["generation"]
        conditions = []
        if self.fate == "deadline" and started:
            conditions = [
                {
                    "type": "Progressing",
                    "status": "False",
                    "reason": "ProgressDeadlineExceeded",
                    "message": "timed out progressing",
                }
            ]
        refused = self.fate in REFUSALS and started
        if refused and self.fate != "event":
            said = REFUSALS[self.fate]
            conditions = [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": said}]
        status = {
            "observedGeneration": generation if started else 0,
            "replicas": self.replicas * (not refused),
            "updatedReplicas": self.replicas * (started and not refused),
            "readyReplicas": self.replicas * ready,
            "availableReplicas": self.replicas * ready,
            "conditions": conditions,
        }
        template = {"metadata": {"annotations": self.annotations}}
        spec = {"replicas": self.replicas, "template": template}
        body = {"metadata": {"name": self.backend}, "spec": spec, "status": status}
        self.api.put("deployments", {**(found or {}), **body, "metadata": {**(found or body)["metadata"]}}, "apps")

    def _write_pod(self, ready):
        waiting = {
            "crash": (
                "storage-initializer",
                {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting"},
                {"exitCode": 1, "reason": "Error"},
            ),
            "crash later": (
                "kserve-container",
                {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting"},
                {"exitCode": 134, "reason": "Error"},
            ),
            "image": ("kserve-container", {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}, None),
            "config map": (
                "kserve-container",
                {"reason": "CreateContainerConfigError", "message": 'configmap "settings" not found'},
                None,
            ),
            "oom": ("kserve-container", {"reason": "CrashLoopBackOff"}, {"exitCode": 137, "reason": "OOMKilled"}),
        }.get("image" if self.fate == "image once" and not ready else self.fate)
        status = {"phase": "Running" if ready else "Pending"}
        if self.fate == "mount":
            said = 'MountVolume.SetUp failed for volume "tfs-config" : configmap "tfs-config-7d" not found'
            self._write_event("Pod", self.backend, "FailedMount", said)
        if self.fate == "no node":
            status["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
                }
            ]
        if waiting:
            container, state, ended = waiting
            kind = "initContainerStatuses" if container == "storage-initializer" else "containerStatuses"
            last = {"terminated": ended} if ended else {}
            status[kind] = [{"name": container, "state": {"waiting": state}, "lastState": last, "restartCount": 2}]
            self.api.logs[self.backend, container] = "first line\nthe last line of its log"
        labels = {"serving.kserve.io/inferenceservice": self.name}
        metadata = {"name": self.backend, "labels": labels, "annotations": {SOURCE: self.uri}}
        self.api.put("pods", {"metadata": metadata, "status": status})

    def _write_refusal(self):
        said = REFUSALS[self.fate]
        if self.fate == "deployment":
            self._write_event("InferenceService", self.name, "InternalError", said)
        else:
            self._write_event("ReplicaSet", f"{self.backend}-6b7f9c4d5", "FailedCreate", f"Error creating: {said}")

    def _write_event(self, kind, name, reason, message):
        involved = {"kind": kind, "name": name, "namespace": NAMESPACE}
        event = {"involvedObject": involved, "type": "Warning", "reason": reason, "message": message}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.api.put("events", {"metadata": {"name": f"{name}.{reason.lower()}"}, "lastTimestamp": now, **event})

    def _serve(self):
        running = self.cluster.servers.get(self.backend)
        if running and running[1] == self.uri:
            return
        release = self.cluster.fetch(self.uri)
        folder = self.cluster.folder / "pods" / self.service["metadata"]["uid"] / self.uri.rsplit("/", 1)[1]
        if not folder.exists():
            shutil.copytree(release, folder / self.cluster.name)
            if self.fate == "impostor":
                _swap_weights(folder / self.cluster.name, self.cluster.impostor)
        self.cluster.servers[self.backend] = (self.cluster.predictor(folder, self.cluster.name), self.uri)

    def _say(self, stage, ready):
        """Write the InferenceService's status: what KServe says, true or not."""
        true = {"status": "True"}
        unknown = {"status": "Unknown", "reason": "PredictorNotReady", "message": "Deployment rollout in progress"}
        # Ready from the start, then unknown, then ready again while pods still come up: kserve#4626, #5443.
        says_ready = ready if not self.cluster.lies else stage != 3
        if self.fate in REFUSALS:  # there isn't a pod that could be ready
            says_ready, unknown = False, {"status": "False", "reason": "MinimumReplicasUnavailable", "message": ""}
        conditions = [
            {"type": kind, **(true if says_ready else unknown)} for kind in ("PredictorReady", "IngressReady", "Ready")
        ]
        model = {"transitionStatus": "UpToDate", "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"}}
        if stage >= 3 and (self.fate == "blocked" or (self.fate == "blocked once" and not ready)):
            failure = {
                "reason": "ModelLoadFailed",
                "message": "Op type not registered 'DisableCopyOnRead'",
                "exitCode": 1,
            }
            model = {
                "transitionStatus": "BlockedByFailedLoad",
                "states": {"activeModelState": "", "targetModelState": "FailedToLoad"},
                "lastFailureInfo": failure,
            }
        # kserve#6081: of the Deployment, not of the InferenceService.
        status = {"observedGeneration": 1, "conditions": conditions, "modelStatus": model}
        canaries = self.service["spec"].get("canary", ())
        mine = next((one for one in canaries if backend_of(self.name, one["predictor"]) == self.backend), None)
        if mine is not None:
            conditions = [{"type": "CanaryPredictorReady", **(true if ready else unknown)}]
            status = {
                "canaryStatuses": [
                    {
                        "name": mine["predictor"]["name"],
                        "ready": ready,
                        "trafficPercent": mine["trafficPercent"],
                        "modelStatus": {"transitionStatus": ""},  # there from the start, and never filled
                    }
                ]
            }

        def write(body):
            said = body.setdefault("status", {})
            kept = [one for one in said.get("conditions", ()) if one["type"] not in {new["type"] for new in conditions}]
            said |= {**status, "conditions": kept + conditions}

        try:
            self.api.edit("inferenceservices", self.name, write, KSERVE, manager="kserve")
        except KeyError:
            pass  # deleted meanwhile


def replicas_of(service):
    """Return how many pods each predictor has: the canaries', once they are ready, are taken from the stable one's."""
    name, spec = service["metadata"]["name"], service["spec"]
    stable = spec["predictor"].get("minReplicas", 1)
    ready = {one["name"] for one in service.get("status", {}).get("canaryStatuses", ()) if one["ready"]}
    found = {}
    for canary in spec.get("canary", ()):
        predictor = canary["predictor"]
        count = predictor.get("minReplicas", math.ceil(stable * canary["trafficPercent"] / 100))
        found[backend_of(name, predictor)] = count
    taken = sum(
        found[backend_of(name, one["predictor"])] for one in spec.get("canary", ()) if one["predictor"]["name"] in ready
    )
    return {**found, backend_of(name, spec["predictor"]): max(stable - taken, 1) if taken else stable}


def refused_canary(kind, body):
    """Return what KServe's webhook says against the replicas of an InferenceService and its canaries."""
    spec = body.get("spec", {}) if kind == "InferenceService" else {}
    stable = spec.get("predictor", {})
    if stable.get("minReplicas", 1) > stable.get("maxReplicas", 1000):
        return "'MinReplicas' cannot be greater than MaxReplicas"
    for canary in spec.get("canary", ()):
        predictor = canary["predictor"]
        if "maxReplicas" in predictor:
            return f'canary "{predictor["name"]}" must not set maxReplicas (canary uses fixed replicas)'
        if predictor.get("minReplicas", 0) > stable.get("minReplicas", 1):
            return f'canary "{predictor["name"]}" minReplicas must not exceed stable predictor minReplicas'
    return ""


def backend_of(service, predictor):
    return f"{service}-{predictor['name']}-predictor" if predictor.get("name") else f"{service}-predictor"


def _swap_weights(model, other):
    """Give each version other weights, under the same number and with the same digests beside them."""
    for version in model.iterdir():
        for part in ("saved_model.pb", "variables", "fingerprint.pb"):
            source, target = other / part, version / part
            if source.is_dir():
                shutil.rmtree(target)
                shutil.copytree(source, target)
            elif source.exists():
                shutil.copyfile(source, target)
