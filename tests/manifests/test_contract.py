"""What the deploy step, the pipelines and people rely on: names, what is whose, and who may do what."""

import re
import shutil

import pytest
import yaml

from sat_xception.deploy.preflight import PERMISSIONS, PREFLIGHT_PERMISSIONS
from tests.manifests import check

TEMPLATE = "InferenceService", "school-classifier-template"
RUNTIME = "ServingRuntime", "sat-xception-tfserving"
ROUTE = "HTTPRoute", "school-classifier-route"
# Those that are written as a piece of an object, not as operations.
PATCHES = [path for path in sorted(check.ROOT.glob("overlays/*/*.yaml")) if "\nmetadata:" in path.read_text()]


def objects_of(overlay):
    return {(item["kind"], item["metadata"]["name"]): item for item in overlay}


def test_everything_has_the_names_that_others_rely_on(overlay):
    names = objects_of(overlay).keys()
    assert names >= {
        ("Namespace", "sat-xception"),
        RUNTIME,
        TEMPLATE,
        ROUTE,
        ("ServiceAccount", "sat-xception-model-reader"),
        ("ServiceAccount", "sat-xception-deployer"),
        ("Role", "sat-xception-deployer"),
        ("RoleBinding", "sat-xception-deployer"),
        ("ClusterRole", "sat-xception-preflight"),
        ("ClusterRoleBinding", "sat-xception-preflight"),
        ("PodDisruptionBudget", "school-classifier-a"),
        ("PodDisruptionBudget", "school-classifier-b"),
        ("NetworkPolicy", "default-deny"),
    }
    assert not [name for kind, name in names if kind == "InferenceService" and name != TEMPLATE[1]]


def test_all_of_it_is_in_one_namespace_and_says_what_it_belongs_to(overlay):
    for item in overlay:
        cluster = item["kind"] in ("Namespace", "ClusterRole", "ClusterRoleBinding", "ClusterStorageContainer")
        # The store's own policy lets the endpoint's pods in.
        beside = (item["kind"], item["metadata"]["name"]) == ("NetworkPolicy", "sat-xception-models")
        namespace = None if cluster else "kubeflow" if beside else "sat-xception"
        assert item["metadata"].get("namespace") == namespace, item["metadata"]["name"]
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "sat-xception", item["metadata"]["name"]


def test_the_namespace_enforces_restricted_pods_of_a_pinned_version(overlay):
    labels = objects_of(overlay)["Namespace", "sat-xception"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert re.fullmatch(r"v1\.\d+", labels["pod-security.kubernetes.io/enforce-version"])


def test_the_template_never_runs_and_has_no_model(overlay):
    template = objects_of(overlay)[TEMPLATE]
    annotations = template["metadata"]["annotations"]
    assert annotations["serving.kserve.io/stop"] == "true"
    assert annotations["serving.kserve.io/deploymentMode"] == "Standard"
    assert not {"storageUri", "storage"} & template["spec"]["predictor"]["model"].keys()
    assert "storageUris" not in template["spec"]["predictor"]
    assert template["spec"]["predictor"]["model"]["runtime"] == RUNTIME[1]
    # KServe makes no route of its own past the weighted one.
    assert template["metadata"]["labels"]["networking.kserve.io/visibility"] == "cluster-local"


def test_applying_again_moves_no_traffic(overlay):
    assert objects_of(overlay)[ROUTE]["spec"].keys() == {"hostnames", "parentRefs"}


def test_pods_are_replaced_without_a_gap(overlay):
    predictor = objects_of(overlay)[TEMPLATE]["spec"]["predictor"]
    assert predictor["deploymentStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    stop = objects_of(overlay)[RUNTIME]["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 0 < stop < predictor["terminationGracePeriodSeconds"]


def test_a_drain_takes_one_pod_at_a_time_and_is_never_held_up(overlay):
    for name in ("school-classifier-a", "school-classifier-b", "school-classifier"):
        budget = objects_of(overlay)["PodDisruptionBudget", name]["spec"]
        assert budget["maxUnavailable"] == 1
        assert "minAvailable" not in budget
        assert budget["selector"]["matchLabels"]["serving.kserve.io/inferenceservice"] == name


def test_the_endpoint_scales_by_what_its_autoscaler_can_read(overlay):
    template = objects_of(overlay)[TEMPLATE]
    predictor = template["spec"]["predictor"]
    autoscaler = template["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"]
    if autoscaler == "hpa":
        assert predictor["scaleMetric"] in ("cpu", "memory")
        assert predictor["scaleMetric"] in predictor["model"]["resources"]["requests"]
        assert predictor["maxReplicas"] > predictor["minReplicas"] >= 1
    elif autoscaler == "keda":
        assert "scaleMetric" not in predictor and "scaleTarget" not in predictor
        (metric,) = predictor["autoScaling"]["metrics"]
        # KServe dereferences `value` whatever the type says.
        assert metric["external"]["target"].keys() == {"type", "value"}
        assert predictor["maxReplicas"] > predictor["minReplicas"] >= 1
    else:
        assert autoscaler == "none"
        assert predictor["maxReplicas"] == predictor["minReplicas"] == 1


def test_the_deployer_may_do_what_it_does_and_nothing_else(overlay):
    objects = objects_of(overlay)
    assert [name for kind, name in objects if kind == "Role"] == ["sat-xception-deployer"]
    granted = {}
    for rule in objects["Role", "sat-xception-deployer"]["rules"]:
        assert rule.keys() == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                assert (group, resource) not in granted
                granted[group, resource] = set(rule["verbs"])
    assert granted == {resource: set(verbs) for resource, verbs in PERMISSIONS.items()}


def test_the_cluster_is_asked_for_its_definitions_and_our_gateway_alone(overlay):
    objects = objects_of(overlay)
    assert [name for kind, name in objects if kind == "ClusterRole"] == ["sat-xception-preflight"]
    assert objects["ClusterRole", "sat-xception-preflight"]["rules"] == [
        {
            "apiGroups": ["apiextensions.k8s.io"],
            "resources": ["customresourcedefinitions"],
            "resourceNames": list(PREFLIGHT_PERMISSIONS),
            "verbs": ["get"],
        },
        {
            "apiGroups": ["gateway.networking.k8s.io"],
            "resources": ["gateways"],
            "resourceNames": [objects[ROUTE]["spec"]["parentRefs"][0]["name"]],
            "verbs": ["get"],
        },
    ]


PIPELINES = [("pipeline-runner", "kubeflow")]
BOUND = [("base", []), ("overlays/prod", PIPELINES), ("overlays/kubeflow", PIPELINES)]


@pytest.mark.parametrize(("name", "others"), BOUND)
def test_roles_are_bound_to_our_account_and_in_these_overlays_to_that_of_the_pipelines(name, others, rendered):
    objects = rendered(name)
    for kind, binding in (("RoleBinding", "sat-xception-deployer"), ("ClusterRoleBinding", "sat-xception-preflight")):
        item = objects[kind, binding]
        assert (item["roleRef"]["kind"], item["roleRef"]["name"]) == (kind.removesuffix("Binding"), binding)
        subjects = [(subject["name"], subject["namespace"]) for subject in item["subjects"]]
        assert subjects == [("sat-xception-deployer", "sat-xception"), *others]
        assert {subject["kind"] for subject in item["subjects"]} == {"ServiceAccount"}


UNITS = {"": 1, "m": 0.001, "Gi": 2**30, "Mi": 2**20}


def quantity(text):
    number, unit = re.fullmatch(r"([\d.]+)(m|Gi|Mi|)", text).groups()
    return float(number) * UNITS[unit]


def test_the_quota_holds_both_halves_at_their_largest_while_they_roll_and_little_more(overlay):
    objects = objects_of(overlay)
    hard = objects["ResourceQuota", "sat-xception"]["spec"]["hard"]
    predictor = objects[TEMPLATE]["spec"]["predictor"]
    surge = predictor["deploymentStrategy"]["rollingUpdate"]["maxSurge"]
    pods = 2 * (predictor["maxReplicas"] + surge)
    assert pods < int(hard["pods"]) <= pods + 2
    for kind, amounts in predictor["model"]["resources"].items():
        for resource, amount in amounts.items():
            if resource == "nvidia.com/gpu":
                assert int(hard["requests.nvidia.com/gpu"]) == pods * int(amount)
                continue
            need = pods * quantity(amount)
            assert (
                need < quantity(hard[f"{kind}.{resource}"]) <= need + quantity({"cpu": "4", "memory": "4Gi"}[resource])
            )


def test_nothing_costs_behind_ones_back(overlay):
    hard = objects_of(overlay)["ResourceQuota", "sat-xception"]["spec"]["hard"]
    assert hard["services.loadbalancers"] == hard["services.nodeports"] == "0"
    claims = [item for item in overlay if item["kind"] == "PersistentVolumeClaim"]
    assert int(hard["persistentvolumeclaims"]) == len(claims)
    gpus = objects_of(overlay)[TEMPLATE]["spec"]["predictor"]["model"]["resources"]["limits"].get("nvidia.com/gpu")
    assert (hard["requests.nvidia.com/gpu"] == "0") is (gpus is None)


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    else:
        yield path, value


def at(item, path):
    for part in path:
        item = item.get(part) if isinstance(item, dict) else None
    return item


@pytest.mark.parametrize("overlay_name", ["local", "gpu", "prod", "kubeflow"])
def test_an_overlay_only_patches(overlay_name):
    folder = check.ROOT / "overlays" / overlay_name
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization["resources"] in (["../../base"], ["../prod"])
    used = [patch["path"] for patch in kustomization["patches"]] + kustomization.get("configurations", [])
    used += [entry["path"] for entry in kustomization.get("replacements", [])]
    used += ["kustomization.yaml"]
    assert sorted(used) == sorted(path.name for path in folder.glob("*.yaml"))


@pytest.mark.parametrize("path", PATCHES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_patch_holds_what_differs_and_no_more(path, rendered):
    patch = yaml.safe_load(path.read_text())
    below = "overlays/prod" if path.parent.name == "gpu" else "base"
    before = rendered(below)[patch["kind"], patch["metadata"]["name"]]
    identity = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
    changes = [(field, value) for field, value in leaves(patch) if field not in identity]
    assert len(PATCHES) == 8 and changes
    assert [field for field, value in changes if at(before, field) == value] == []


@pytest.mark.parametrize("folder", [check.ROOT / "base", *check.components()], ids=lambda path: path.name)
def test_a_file_holds_one_object_is_named_after_it_and_is_used(folder):
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    resources = kustomization.get("resources", [])
    assert len(set(resources)) == len(resources)
    others = {"kustomization.yaml", *kustomization.get("configurations", [])}
    assert {path.name for path in folder.glob("*.yaml")} == {*resources, *others}
    for name in resources:
        (item,) = yaml.safe_load_all((folder / name).read_text())
        assert name == f"{item['metadata']['name']}-{item['kind'].lower()}.yaml"


def site(overlay="prod"):
    lines = (check.ROOT / "overlays" / overlay / "site.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_each_value_of_ones_own_reaches_its_place_and_replaces_the_example(tmp_path):
    shutil.copytree(check.ROOT, tmp_path / "manifests")
    mine = {key: f"my-{key.replace('_', '-')}" for key in site()}
    prod = tmp_path / "manifests/overlays/prod"
    (prod / "site.env").write_text("".join(f"{key}={value}\n" for key, value in mine.items()))
    objects = objects_of(check.render(prod))
    assert not [name for kind, name in objects if name == "site"]
    route = objects[ROUTE]["spec"]
    assert route["hostnames"] == [mine["host"]]
    assert route["parentRefs"] == [{"name": mine["gateway"], "namespace": mine["gateway_namespace"]}]
    gateways = objects["ClusterRole", "sat-xception-preflight"]["rules"][1]
    assert (gateways["resources"], gateways["resourceNames"]) == (["gateways"], [mine["gateway"]])
    annotations = objects["ServiceAccount", "sat-xception-model-reader"]["metadata"]["annotations"]
    assert annotations == {"iam.gke.io/gcp-service-account": mine["google_service_account"]}
    pipelines = {
        "kind": "ServiceAccount",
        "name": mine["pipeline_service_account"],
        "namespace": mine["pipeline_namespace"],
    }
    assert objects["RoleBinding", "sat-xception-deployer"]["subjects"][1] == pipelines
    assert objects["ClusterRoleBinding", "sat-xception-preflight"]["subjects"][1] == pipelines
    fetcher = objects["ClusterStorageContainer", "sat-xception-storage-initializer"]["spec"]["container"]
    assert fetcher["image"] == f"kserve/storage-initializer:{mine['kserve_version']}"
    for kind in ("PodMonitor", "PrometheusRule"):
        assert objects[kind, "school-classifier"]["metadata"]["labels"]["release"] == mine["prometheus_release"]
    policies = yaml.safe_dump([item for (kind, _), item in objects.items() if kind == "NetworkPolicy"])
    namespaces = set(re.findall(r"kubernetes.io/metadata.name: (\S+)", policies))
    places = ("gateway_proxy_namespace", "pipeline_namespace", "prometheus_namespace")
    assert namespaces == {"kube-system", *(mine[key] for key in places)}


def test_a_profile_of_a_multi_user_kubeflow_is_named_in_one_file(tmp_path):
    shutil.copytree(check.ROOT, tmp_path / "manifests")
    folder = tmp_path / "manifests/overlays/kubeflow"
    mine = {"pipeline_namespace": "team", "pipeline_service_account": "default-editor", "kserve_version": "v0.21.0"}
    assert site("kubeflow").keys() == mine.keys()
    (folder / "site.env").write_text("".join(f"{key}={value}\n" for key, value in mine.items()))
    objects = objects_of(check.render(folder))
    for binding in (("RoleBinding", "sat-xception-deployer"), ("ClusterRoleBinding", "sat-xception-preflight")):
        account = {"kind": "ServiceAccount", "name": "default-editor", "namespace": "team"}
        assert objects[binding]["subjects"][1] == account
    peers = objects["NetworkPolicy", "model-server"]["spec"]["ingress"][0]["from"]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "team"}}} in peers
    container = objects["ClusterStorageContainer", "sat-xception-storage-initializer"]["spec"]["container"]
    assert container["image"].endswith(":v0.21.0")


def test_the_overlay_for_kubeflow_reads_models_from_its_store(rendered):
    objects = rendered("overlays/kubeflow")
    assert objects["Secret", "sat-xception-storage"]["metadata"]["annotations"]["serving.kserve.io/s3-endpoint"]
    assert objects["ServiceAccount", "sat-xception-model-reader"]["secrets"] == [{"name": "sat-xception-storage"}]
    assert objects[TEMPLATE]["spec"]["predictor"]["storageContainerName"] == "sat-xception-storage-initializer"
