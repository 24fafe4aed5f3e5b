"""A rollout by KServe's own `spec.canary`, where the cluster has it and really splits by it."""

import copy
import signal
from pathlib import Path

import pytest
import yaml

from sat_xception.deploy.inference_service import service_of
from sat_xception.deploy.native_canary import NativeCanary
from sat_xception.deploy.readiness import Predictor
from sat_xception.deploy.release import Release
from sat_xception.errors import ConfigError, ModelError, ServiceError
from tests.deploy.conftest import ALL_STEPS
from tests.deploy.packages import NAME
from tests.deploy.test_killed_rollout import at, start  # noqa: F401 - a fixture
from tests.deploy.test_rollout import load, records
from tests.kserve_cluster import KSERVE, until
from tests.predictors import ServingPredictor

NATIVE = pytest.mark.parametrize("cluster", [{"canary": True}], indirect=True)
IGNORED = pytest.mark.parametrize("cluster", [{"canary": "ignored"}], indirect=True)
V1, V2 = f"{NAME}-v1-predictor", f"{NAME}-v2-predictor"
CRDS = Path(__file__).parents[3] / "shared" / "crds"


def spec(cluster):
    return cluster.api.read("inferenceservices", NAME, KSERVE)["spec"]


@pytest.mark.parametrize("cluster", [{"canary": True, "predictor": ServingPredictor}], indirect=True)
def test_the_canary_gets_its_shares_and_becomes_the_stable_predictor(cluster, roll_out):
    roll_out(1)
    assert spec(cluster)["predictor"]["name"] == "v1" and "canary" not in spec(cluster)
    with load(cluster.endpoint) as answered:
        record = roll_out(2).record
    assert set(answered) == {200}
    assert record.rollout.strategy == "canary"
    assert [step.percent for step in record.rollout.steps] == [50, 100]
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
def test_a_canary_with_traffic_loses_it_before_it_is_removed(cluster, roll_out):
    """KServe removes a canary's Deployment and Service first, and its share of the route afterwards."""
    roll_out(1)
    cluster.delays_s[V2] = 1.0
    with load(cluster.endpoint) as answered, pytest.raises(ModelError, match="at the 95th percentile"):
        roll_out(2, max_slowdown=2)
    assert len(answered) > 20 and set(answered) == {200}
    assert "canary" not in spec(cluster) and cluster.weights[NAME] == {V1: 100}


def use_replicas(cluster, least, most=3):
    def change(body):
        body["spec"]["predictor"] |= {"minReplicas": least, "maxReplicas": most}

    cluster.api.edit("inferenceservices", f"{NAME}-template", change, KSERVE, manager="kustomize")


@NATIVE
@pytest.mark.parametrize("fails", [False, True])
def test_what_answers_keeps_its_replicas_and_the_canary_has_as_many(cluster, roll_out, fails):
    use_replicas(cluster, 2)
    roll_out(1)
    if fails:
        cluster.delays_s[V2] = 1.0
        with pytest.raises(ModelError, match="at the 95th percentile"):
            roll_out(2, max_slowdown=2)
    else:
        roll_out(2)
    assert cluster.fewest[V1] == cluster.fewest[V2] == 2
    predictor = spec(cluster)["predictor"]
    assert (predictor["name"], predictor["minReplicas"], predictor["maxReplicas"]) == ("v1" if fails else "v2", 2, 3)


@NATIVE
def test_a_promotion_replaces_no_pod_that_was_proved(cluster, roll_out, caplog):
    roll_out(1)
    steps = roll_out(2, traffic_steps=ALL_STEPS).record.rollout.steps
    assert [step.percent for step in steps] == [10, 50, 100]
    assert "doesn't take up" not in caplog.text

    def of_a_team(body):
        body["metadata"]["annotations"]["example.org/team"] = "maps"

    cluster.api.edit("inferenceservices", f"{NAME}-template", of_a_team, KSERVE)
    roll_out(3)
    assert "doesn't take up annotations example.org/team of the template" in caplog.text
    assert not +cluster.restarts
    annotations = spec(cluster)["predictor"]["annotations"]
    assert annotations["sat-xception/version"] == "3" and len(annotations["sat-xception/package-digest"]) == 64
    assert "sat-xception/version" not in cluster.api.read("inferenceservices", NAME, KSERVE)["metadata"]["annotations"]
    roll_out(3)  # unchanged: proved again
    assert not +cluster.restarts


@NATIVE
def test_what_the_template_dropped_is_told_before_anything_is_made(cluster, roll_out):
    """A canary is laid over the stable predictor, so the promotion would replace its pods by others."""

    def with_tolerance(body):
        body["spec"]["predictor"] |= {"nodeSelector": {"pool": "a"}, "enableServiceLinks": True}

    def without(body):
        body["spec"]["predictor"] |= {"nodeSelector": {}, "enableServiceLinks": False}

    cluster.api.edit("inferenceservices", f"{NAME}-template", with_tolerance, KSERVE)
    roll_out(1)
    cluster.api.edit("inferenceservices", f"{NAME}-template", without, KSERVE)
    with pytest.raises(ConfigError, match=r"dropped or emptied .*: \.enableServiceLinks, \.nodeSelector"):
        roll_out(2)
    assert "canary" not in spec(cluster) and records(cluster)[0]["version"] == 1


@NATIVE
@pytest.mark.parametrize("next_version", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_promotion_that_was_killed_is_made_by_the_next_run(cluster, roll_out, next_version, monkeypatch):
    roll_out(1)
    with monkeypatch.context() as killed:
        killed.setattr(NativeCanary, "finish", lambda self, new: None)
        roll_out(2)
    assert spec(cluster)["predictor"]["name"] == "v1" and spec(cluster)["canary"][0]["trafficPercent"] == 100
    with load(cluster.endpoint) as answered:
        roll_out(next_version)
    assert set(answered) == {200}
    assert spec(cluster)["predictor"]["name"] == f"v{next_version}" and "canary" not in spec(cluster)
    assert not +cluster.restarts


@NATIVE
def test_a_canary_of_somebody_else_with_traffic_is_left_alone(cluster, roll_out):
    roll_out(1)

    def by_hand(body):
        body["spec"]["canary"] = [
            {"trafficPercent": 20, "predictor": {**body["spec"]["predictor"], "name": "mine", "minReplicas": 1}}
        ]
        body["spec"]["canary"][0]["predictor"].pop("maxReplicas")

    cluster.api.edit("inferenceservices", NAME, by_hand, KSERVE)
    with pytest.raises(ConfigError, match="has a canary mine with 20 % of the traffic"):
        roll_out(2)
    assert spec(cluster)["canary"][0]["predictor"]["name"] == "mine"


@NATIVE
def test_a_canary_that_somebody_removes_meanwhile_ends_the_rollout(cluster, roll_out, monkeypatch):
    roll_out(1)
    give = NativeCanary.give

    def without(self, percent, current, new):
        if percent == 50:
            cluster.api.edit("inferenceservices", NAME, lambda body: body["spec"].pop("canary"), KSERVE)
        give(self, percent, current, new)

    monkeypatch.setattr(NativeCanary, "give", without)
    with pytest.raises(ServiceError, match=f"version 1 has all .* somebody removed the canary {V2}"):
        roll_out(2)
    assert cluster.weights[NAME] == {V1: 100}


@NATIVE
@pytest.mark.slow
def test_after_a_kill_at_half_the_next_run_gives_the_traffic_back_first(cluster, roll_out, start):  # noqa: F811
    roll_out(1)
    process = start(2, step_minutes=1)
    with load(cluster.endpoint) as answered:
        try:
            until(lambda: at(cluster, "50 %") and cluster.weights[NAME].get(V2) == 50, 60)
        finally:
            process.kill()
            said = process.communicate()[0]
        assert process.returncode == -signal.SIGKILL, said
        roll_out(2)
    assert set(answered) == {200}
    assert spec(cluster)["predictor"]["name"] == "v2" and "canary" not in spec(cluster)
    assert [one["state"] for one in records(cluster)] == ["serving", "interrupted", "replaced"]


@NATIVE
def test_a_canary_whose_pods_end_is_taken_out_with_their_reason(cluster, roll_out):
    roll_out(1)
    cluster.fates[2] = "oom"
    with pytest.raises(ModelError, match="OOMKilled"):
        roll_out(2)
    assert "canary" not in spec(cluster)


@IGNORED
def test_a_kserve_that_doesnt_split_is_noticed_by_its_route(cluster, roll_out, hurry):
    roll_out(1)
    hurry("traffic")
    with pytest.raises(
        ServiceError, match=r"rolled back, version 1 .* it splits \{'school-classifier-v1-predictor': 100\}"
    ):
        roll_out(2)
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
RELEASE = Release(NAME, 2, "/root/2/2", "gs://bucket/models/2", "0" * 64, "xception", "0" * 64, ("a", "b"))


def test_manifests_fit_the_definition_of_kserve(schema):
    whole = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    assert misfits({**whole, **service_of(TEMPLATE, f"{NAME}-a", RELEASE)}, schema) == []

    class Live:
        def get(self, kind, name):
            return service_of(TEMPLATE, name, RELEASE) if kind.kind == "InferenceService" else None

        def apply(self, kind, manifest, **options):
            return manifest

    class Config:
        name, force_conflicts = NAME, False

    [planned] = NativeCanary(Live(), Config(), TEMPLATE).plan(
        RELEASE, Predictor(NAME, f"{NAME}-v1-predictor", 1, "gs://bucket/models/1")
    )
    assert misfits({**whole, **planned.manifest}, schema) == []
    wrong = copy.deepcopy(planned.manifest)
    wrong["spec"]["canary"][0]["predictor"]["model"].pop("name")
    wrong["spec"]["canary"][0]["trafficPercents"] = "10"
    assert misfits({**whole, **wrong}, schema) == [
        ".spec.canary[].trafficPercents is unknown",
        ".spec.canary[].predictor.model.name is missing",
    ] or misfits({**whole, **wrong}, schema)[::-1] == [
        ".spec.canary[].trafficPercents is unknown",
        ".spec.canary[].predictor.model.name is missing",
    ]
