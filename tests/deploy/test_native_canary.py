"""A rollout by KServe's own `spec.canary`, where the cluster has it and really splits by it."""

import copy
from pathlib import Path

import pytest
import yaml

from sat_xception.deploy.inference_service import service_of
from sat_xception.deploy.native_canary import NativeCanary
from sat_xception.deploy.release import Release
from sat_xception.deploy.wait import Predictor
from sat_xception.errors import ConfigError, ModelError, ServiceError
from tests.deploy.packages import NAME
from tests.deploy.test_rollout import load, records
from tests.kserve_cluster import GATEWAY, KSERVE

NATIVE = pytest.mark.parametrize("cluster", [{"canary": True}], indirect=True)
IGNORED = pytest.mark.parametrize("cluster", [{"canary": "ignored"}], indirect=True)
CRDS = Path(__file__).parents[3] / "shared" / "crds"


def spec(cluster):
    return cluster.api.read("inferenceservices", NAME, KSERVE)["spec"]


@NATIVE
def test_the_canary_gets_its_shares_and_becomes_the_stable_predictor(cluster, roll_out):
    roll_out(1)
    assert spec(cluster)["predictor"]["name"] == "v1" and "canary" not in spec(cluster)
    with load(cluster.endpoint) as answered:
        record = roll_out(2).record
    assert set(answered) == {200}
    assert record["rollout"]["strategy"] == "canary"
    assert [step["percent"] for step in record["rollout"]["steps"]] == [10, 50, 100]
    assert spec(cluster)["predictor"]["name"] == "v2" and "canary" not in spec(cluster)
    assert spec(cluster)["predictor"]["model"]["storageUri"].endswith(f"{NAME}-releases/2")
    assert spec(cluster)["predictor"]["maxReplicas"] == 3  # which a canary hasn't
    assert cluster.api.names("inferenceservices", KSERVE) == [NAME, f"{NAME}-template"]


@NATIVE
def test_a_canary_that_answers_wrongly_is_taken_out(cluster, roll_out):
    roll_out(1)
    cluster.fates[2] = "impostor"
    with load(cluster.endpoint) as answered, pytest.raises(ModelError, match="version 1 has all the traffic again"):
        roll_out(2)
    assert set(answered) == {200}
    assert "canary" not in spec(cluster) and spec(cluster)["predictor"]["name"] == "v1"
    assert cluster.weights[NAME] == {f"{NAME}-v1-predictor": 100}
    assert records(cluster)[0]["state"] == "rolled back"


@NATIVE
def test_a_canary_whose_pods_end_is_taken_out_with_their_reason(cluster, roll_out):
    roll_out(1)
    cluster.fates[2] = "oom"
    with pytest.raises(ModelError, match="OOMKilled"):
        roll_out(2)
    assert "canary" not in spec(cluster)


@IGNORED
def test_a_kserve_that_doesnt_split_is_noticed_by_its_route(cluster, roll_out):
    roll_out(1)
    with pytest.raises(
        ServiceError, match=r"rolled back, version 1 .* it splits \{'school-classifier-v1-predictor': 100\}"
    ):
        roll_out(2, timeout_s=4)
    assert "canary" not in spec(cluster)


@NATIVE
def test_a_changed_template_at_the_same_version_needs_a_new_package(cluster, roll_out):
    roll_out(1)
    roll_out(1)  # unchanged: proved again

    def more_replicas(body):
        body["spec"]["predictor"]["maxReplicas"] = 9

    cluster.api.edit("inferenceservices", f"{NAME}-template", more_replicas, KSERVE, manager="kustomize")
    with pytest.raises(ConfigError, match="the template has changed since"):
        roll_out(1)


@NATIVE
def test_an_endpoint_stays_with_its_strategy(cluster, roll_out):
    roll_out(1)
    with pytest.raises(ConfigError, match="is served by the strategy canary; leave --strategy out"):
        roll_out(2, strategy="two-services")


def test_a_kserve_without_the_field_is_told_for_the_strategy_that_needs_it(cluster, roll_out):
    with pytest.raises(ConfigError, match=r"this KServe has no spec\.canary"):
        roll_out(1, strategy="canary")


# Whether KServe makes a route that it can split


def chosen(roll_out, **changes):
    table = roll_out(1, dry_run=True, **changes).summary()
    return next(line for line in table.splitlines() if line.startswith("strategy"))


def make_cluster_local(cluster):
    def label(body):
        body["metadata"]["labels"]["networking.kserve.io/visibility"] = "cluster-local"

    cluster.api.edit("inferenceservices", f"{NAME}-template", label, KSERVE)


@NATIVE
def test_a_template_that_kserve_makes_no_route_for_takes_two_services(cluster, roll_out):
    assert "canary: this KServe splits traffic itself" in chosen(roll_out)
    make_cluster_local(cluster)
    assert "two-services" in chosen(roll_out) and "PROBLEM" not in chosen(roll_out)
    shown = chosen(roll_out, strategy="canary")
    assert "PROBLEM" in shown and "remove its label networking.kserve.io/visibility: cluster-local" in shown
    with pytest.raises(ConfigError, match="nothing was changed: 1 to put right"):
        roll_out(1, strategy="canary")
    assert cluster.api.names("inferenceservices", KSERVE) == [f"{NAME}-template"]


@NATIVE
@pytest.mark.parametrize(
    ("ingress", "why"),
    [
        ("{}", "enableGatewayApi"),
        ('{"enableGatewayApi": false}', "enableGatewayApi"),
        ('{"enableGatewayApi": true, "disableIngressCreation": true}', "disableIngressCreation"),
        ('{"enableGatewayApi": true, "ingressDomain": "svc.cluster.local"}', "ingressDomain"),
    ],
)
def test_a_kserve_that_makes_no_routes_takes_two_services(cluster, roll_out, ingress, why):
    settings = {"metadata": {"name": "inferenceservice-config"}, "data": {"ingress": ingress}}
    cluster.api.put("configmaps", settings, namespace="kserve")
    assert "two-services" in chosen(roll_out) and "PROBLEM" not in chosen(roll_out)
    shown = chosen(roll_out, strategy="canary")
    assert "PROBLEM" in shown and why in shown


@NATIVE
@pytest.mark.parametrize("ingress", [None, "no JSON", "[]"])
def test_a_kserve_whose_settings_cant_be_read_has_a_canary_only_where_it_is_asked_for(cluster, roll_out, ingress):
    if ingress is None:
        cluster.api.reads_kserve = False
    else:
        settings = {"metadata": {"name": "inferenceservice-config"}, "data": {"ingress": ingress}}
        cluster.api.put("configmaps", settings, namespace="kserve")
    assert "two-services" in chosen(roll_out)
    assert "canary, as asked for" in chosen(roll_out, strategy="canary")


@NATIVE
def test_the_route_of_kserve_is_among_the_checks(cluster, roll_out):
    assert f"route        ok       KServe makes {NAME} with the first version" in roll_out(1, dry_run=True).summary()
    roll_out(1)
    assert f"route        ok       {NAME}: {NAME}-v1-predictor 100 %" in roll_out(2, dry_run=True).summary()
    cluster.canary = ""  # it stops making one
    cluster.api.remove("httproutes", NAME, GATEWAY)
    assert f"PROBLEM  KServe has made no HTTPRoute {NAME}" in roll_out(2, dry_run=True).summary()


# The manifests against the definitions of the cluster


@pytest.fixture(scope="module")
def schema():
    file = CRDS / "serving.kserve.io_inferenceservices.yaml"
    if not file.is_file():
        pytest.skip(f"the CustomResourceDefinitions of KServe aren't at {CRDS}")
    definition = yaml.load(file.read_text(), yaml.CSafeLoader)
    [version] = definition["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def misfits(value, schema, path=""):
    """Return what a strict API server would refuse: unknown fields, missing ones, wrong types."""
    if schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    found = []
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        found += [f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value]
        for name, part in value.items():
            inner = known.get(name, others if isinstance(others, dict) else None)
            if inner is None and path != ".metadata":
                found.append(f"{path}.{name} is unknown")
            elif inner is not None:
                found += misfits(part, inner, f"{path}.{name}")
    elif isinstance(value, list):
        found += [one for item in value for one in misfits(item, schema.get("items", {}), f"{path}[]")]
    else:
        kinds = {"string": str, "integer": int, "boolean": bool, "number": (int, float)}
        if not isinstance(value, kinds.get(schema.get("type"), object)):
            found.append(f"{path} is a {type(value).__name__}")
    return found


TEMPLATE = {
    "metadata": {"name": f"{NAME}-template", "namespace": "sat-xception", "annotations": {}},
    "spec": {
        "predictor": {
            "minReplicas": 1,
            "maxReplicas": 3,
            "scaleMetric": "cpu",
            "scaleTarget": 70,
            "model": {"modelFormat": {"name": "tensorflow", "version": "2"}, "runtime": "tfserving", "name": ""},
        }
    },
}
RELEASE = Release(NAME, 2, "/root/2/2", "gs://bucket/models/2", "0" * 64, "xception", "0" * 64, ["a", "b"])


def test_manifests_fit_the_definition_of_kserve(schema):
    whole = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    assert misfits({**whole, **service_of(TEMPLATE, f"{NAME}-a", RELEASE)}, schema) == []

    class Live:
        def get(self, kind, name):
            return service_of(TEMPLATE, name, RELEASE)

    class Config:
        name = NAME

    [(_, canary)] = NativeCanary(Live(), Config(), TEMPLATE).plan(
        RELEASE, Predictor(NAME, f"{NAME}-v1-predictor", 1, "gs://bucket/models/1")
    )
    assert misfits({**whole, **canary}, schema) == []
    wrong = copy.deepcopy(canary)
    wrong["spec"]["canary"][0]["predictor"]["model"].pop("name")
    wrong["spec"]["canary"][0]["trafficPercents"] = "10"
    assert misfits({**whole, **wrong}, schema) == [
        ".spec.canary[].trafficPercents is unknown",
        ".spec.canary[].predictor.model.name is missing",
    ] or misfits({**whole, **wrong}, schema)[::-1] == [
        ".spec.canary[].trafficPercents is unknown",
        ".spec.canary[].predictor.model.name is missing",
    ]
