"""Every pod that comes of the manifests fits the restricted standard; the check refuses what the standard refuses."""

import copy

import pytest
import yaml

from tests.manifests import check
from tests.manifests.pods import inference_pod, pods, violations

GOOD = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "main",
            "ports": [{"containerPort": 80}],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
}
CONTEXT = ("containers", 0, "securityContext")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("hostNetwork",), True),
        (("hostPID",), True),
        (("hostIPC",), True),
        (("volumes", 0), {"name": "node", "hostPath": {"path": "/"}}),
        (("volumes", 0), {"name": "share", "nfs": {"server": "s", "path": "/"}}),
        (("securityContext", "sysctls"), [{"name": "kernel.msgmax", "value": "1"}]),
        (("securityContext", "runAsUser"), 0),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}),
        (("securityContext", "seLinuxOptions"), {"type": "spc_t"}),
        (("securityContext", "windowsOptions"), {"hostProcess": True}),
        ((*CONTEXT, "appArmorProfile"), {"type": "Unconfined"}),
        ((*CONTEXT, "seLinuxOptions"), {"user": "root"}),
        ((*CONTEXT, "privileged"), True),
        ((*CONTEXT, "allowPrivilegeEscalation"), True),
        ((*CONTEXT, "capabilities"), {"drop": ["NET_RAW"]}),
        ((*CONTEXT, "capabilities"), {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        ((*CONTEXT, "runAsUser"), 0),
        ((*CONTEXT, "runAsNonRoot"), False),
        ((*CONTEXT, "seccompProfile"), {"type": "Unconfined"}),
        ((*CONTEXT, "procMount"), "Unmasked"),
        (("containers", 0, "ports", 0, "hostPort"), 80),
        (("securityContext",), {}),
        (("containers", 0, "securityContext"), {}),
        (("initContainers",), [{"name": "first"}]),
    ],
)
def test_each_violation_of_the_restricted_standard_is_found(path, value):
    assert violations(GOOD) == []
    pod = copy.deepcopy(GOOD)
    target = pod
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    assert violations(pod)


@pytest.mark.parametrize(
    "context",
    [
        {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
        {"seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}},
        {"seLinuxOptions": {"type": "container_t", "level": "s0:c1,c2"}},
    ],
)
def test_what_the_standard_allows_is_not_refused(context):
    pod = copy.deepcopy(GOOD)
    pod["containers"][0]["securityContext"] |= context
    assert violations(pod) == []


def test_every_pod_of_every_overlay_is_a_restricted_one(overlay):
    found = pods(overlay)
    assert list(found) == ["InferenceService/school-classifier-template"]
    assert [problem for pod in found.values() for problem in violations(pod)] == []


def test_every_container_has_requests_and_limits(overlay):
    (pod,) = pods(overlay).values()
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][kind].keys(), container["name"]
    (container,) = pod["containers"]
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    # Memory that is promised is there, and a GPU can't be shared. On one's own machine there may be less.
    if requests["memory"] != limits["memory"]:
        assert limits["memory"] == "2Gi"
    assert requests.get("nvidia.com/gpu") == limits.get("nvidia.com/gpu")


def test_the_server_can_write_to_its_scratch_folder_alone(overlay):
    (pod,) = pods(overlay).values()
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")] == ["tmp"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["tmp"]["emptyDir"]["sizeLimit"]
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()


def test_the_endpoints_pod_gets_no_token_of_kubernetes(overlay):
    (pod,) = pods(overlay).values()
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "sat-xception-model-reader"


def test_no_service_account_hands_out_its_token_unasked(overlay):
    accounts = [item for item in overlay if item["kind"] == "ServiceAccount"]
    assert {item["metadata"]["name"] for item in accounts} == {"sat-xception-model-reader", "sat-xception-deployer"}
    assert all(item["automountServiceAccountToken"] is False for item in accounts)


def test_a_model_in_a_bucket_is_fetched_by_a_restricted_container(rendered):
    for overlay in ("overlays/prod", "overlays/gpu"):
        (pod,) = pods(rendered(overlay).values()).values()
        assert [container["name"] for container in pod["initContainers"]] == ["storage-initializer"]


def test_kserves_own_storage_initializer_would_be_refused(rendered):
    # config/storagecontainers/default.yaml of KServe 0.20: no security context at all.
    objects = rendered("overlays/prod")
    for key, item in objects.items():
        if key[0] == "ClusterStorageContainer":
            del item["spec"]["container"]["securityContext"]
    service = objects["InferenceService", "school-classifier-template"]
    found = violations(inference_pod(service, objects.values()))
    assert found == [
        "storage-initializer: allowPrivilegeEscalation must be false",
        "storage-initializer: capabilities must drop ALL",
    ]


def test_a_pod_is_runtime_and_model_together(rendered):
    objects = rendered("overlays/gpu")
    service = objects["InferenceService", "school-classifier-template"]
    pod = inference_pod(service, objects.values())
    (container,) = pod["containers"]
    assert container["args"][-1] == "--model_name=school-classifier"
    assert [entry["name"] for entry in container["env"]] == ["CPU_LIMIT", "CUDA_CACHE_PATH"]
    assert "minReplicas" not in pod and "modelFormat" not in container


@pytest.mark.parametrize("folder", ["katib", "tensorboard"])
def test_what_else_is_in_the_manifests_is_restricted_too(folder):
    objects = check.render(check.ROOT / folder)
    found = list(pods(objects).values())
    for item in objects:
        if item["kind"] == "Experiment":
            found.append(item["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"])
    assert [violations(pod) for pod in found] == [[]]


def test_pods_are_found_wherever_a_kind_keeps_them():
    job = {"spec": {"template": {"spec": GOOD}}}
    objects = yaml.safe_load("[{kind: Pod}, {kind: CronJob}, {kind: Job}, {kind: Deployment}, {kind: Service}]")
    for item in objects:
        item["metadata"] = {"name": "a"}
        item["spec"] = {
            "Pod": GOOD,
            "CronJob": {"jobTemplate": {"spec": job["spec"]}},
            "Service": {"ports": []},
        }.get(item["kind"], job["spec"])
    assert list(pods(objects)) == ["Pod/a", "CronJob/a", "Job/a", "Deployment/a"]
    assert all(pod == GOOD for pod in pods(objects).values())
