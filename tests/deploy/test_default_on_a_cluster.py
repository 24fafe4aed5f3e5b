"""Where a training run deploys by default: its first task asks the cluster, and Deploy does what it found."""

import json
import logging
from types import SimpleNamespace

import pytest
import yaml

from sat_xception.deploy.deploy import deploy
from sat_xception.deploy.deployment import CheckedPackage
from sat_xception.deploy.settings import DeployConfig
from sat_xception.errors import ConfigError, ServiceError
from sat_xception.kubeflow import claims, volumes
from sat_xception.kubeflow.deploy_target import check_training, model_root_beside
from sat_xception.storage import is_remote, local_folder, stored_path
from tests.deploy.packages import NAME
from tests.deploy.test_gateway_address import put_gateway
from tests.kserve_cluster import GATEWAY, KSERVE
from tests.kserve_pods import STORAGE
from tests.manifests import check
from tests.manifests.schemas import Schemas
from tests.storage_backends import running_bucket

__all__ = ["put_gateway"]  # a fixture
CRD = "inferenceservices.serving.kserve.io"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The S3 store of an installation: its address, and a bucket."""
    with running_bucket("s3", tmp_path_factory.mktemp("servers")) as (address, bucket):
        yield SimpleNamespace(address=address, bucket=bucket)


@pytest.fixture
def in_a_pod(monkeypatch, store):
    """The environment of a task on a cluster, with the keys of the Secret mlpipeline-minio-artifact."""
    monkeypatch.setenv("KFP_POD_NAME", "run-1-system-container-impl-1")
    monkeypatch.setenv("MINIO_ENDPOINT_URL", store.address)
    monkeypatch.setenv("MINIO_ACCESS_KEY", "minio")
    monkeypatch.setenv("MINIO_SECRET_KEY", "minio123")


@pytest.fixture
def first_task(cluster, store, in_a_pod, monkeypatch):
    """Return a function that does what the first task does, with the defaults of the pipeline and other values."""
    # In place of the pod's own.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(cluster.kubeconfig))

    def run(settings=None, **parameters):
        given = {"settings": yaml.safe_dump({"deploy": settings or {}}), **parameters}
        artifact = f"minio://{store.bucket}/v2/artifacts/school-classifier-training/run-1/check/17/summary"
        texts, target = check_training(given, artifact)
        return SimpleNamespace(target=target, **{name: json.loads(text) for name, text in texts.items()})

    return run


@pytest.fixture
def root(store):
    return f"minio://{store.bucket}/sat-xception/models"


def remove_kserve(cluster):
    cluster.api.remove("customresourcedefinitions", CRD, "apiextensions.k8s.io", "")


def test_with_kserve_and_the_manifests_a_run_deploys_there_from_the_store_of_the_installation(
    first_task, cluster, settings, put_gateway, root, store, tmp_path
):
    put_gateway()
    done = first_task(settings={"predictor_url": cluster.predictor_url})
    assert (done.target.target, done.target.reason) == ("kserve", "")
    assert (done.deploy["target"], done.deploy["model_root"]) == ("kserve", root)
    # Nothing is behind the gateway yet, so it isn't asked; nor is anything in the model root.
    assert done.evaluate_serving == {"split": "valid", "model_root": root}
    page = done.target.markdown()
    assert page.startswith("# Deployment\n\nA model that passes the gate is deployed to KServe from minio://")
    assert "| storage | ok |" in page and "| endpoint | ok |" in page and "problem" not in page

    # Deploy, with the settings that the first task made for it.
    cluster.fetch = lambda uri: local_folder(stored_path(uri.replace("s3://", "minio://", 1)), "")
    quick = settings(1)
    for name in ("target", "model_root", "storage_uri", "endpoint", "predictor_url"):
        del quick[name]
    record = deploy(DeployConfig(**{**quick, **done.deploy, "reason": "", "out": tmp_path / "out"})).record
    assert record.model_root == f"s3://{store.bucket}/sat-xception/models/{NAME}-releases/1"
    assert (record.endpoint, record.endpoint_host) == (cluster.endpoint, "tiles.example.org")
    made = cluster.api.read("inferenceservices", f"{NAME}-a", KSERVE)
    assert made["spec"]["predictor"]["model"]["storageUri"] == record.model_root
    assert_fits_its_schema(made, "InferenceService", f"{KSERVE}/v1beta1")
    assert_fits_its_schema(cluster.api.read("httproutes", f"{NAME}-route", GATEWAY), "HTTPRoute", f"{GATEWAY}/v1")

    # The next run compares with what is serving now.
    again = first_task()
    serving = {"endpoint": cluster.endpoint, "endpoint_host": "tiles.example.org"}
    assert again.evaluate_serving == {"split": "valid", "model_root": root, **serving}
    # No other task's settings depend on the cluster, so whatever is cached stays so.
    assert {name for name in vars(done) if vars(done)[name] != vars(again)[name]} <= {
        "evaluate_serving",
        "deploy",  # the address of the test's predictors
        "target",
    }


def assert_fits_its_schema(made, kind, version):
    if check.CRDS.is_dir():
        plain = {"apiVersion": version, "kind": kind, "metadata": {}}
        plain["metadata"] = {key: made["metadata"][key] for key in ("name", "namespace")}
        assert Schemas(check.CRDS).errors({**plain, "spec": made["spec"]}) == []


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (remove_kserve, f"KServe: the cluster has no CustomResourceDefinition {CRD}: install KServe"),
        (
            lambda cluster: cluster.api.remove("inferenceservices", f"{NAME}-template", KSERVE),
            f"template: there is no InferenceService {NAME}-template in namespace sat-xception",
        ),
        (
            lambda cluster: cluster.api.remove("httproutes", f"{NAME}-route", GATEWAY),
            f"route: there is no HTTPRoute {NAME}-route in namespace sat-xception: apply the manifests",
        ),
        (
            lambda cluster: setattr(cluster.api, "allowed", {}),
            "permissions: this account may not get inferenceservices",
        ),
        (lambda cluster: cluster.kubeconfig.write_text("{}"), "API server: no cluster to deploy to"),
        (
            lambda cluster: setattr(cluster.api, "reads_gateways", False),
            "endpoint: can't get gateways.gateway.networking.k8s.io gateway",
        ),
    ],
)
def test_without_one_of_them_a_run_ends_with_a_packaged_model_and_says_why(
    first_task, cluster, put_gateway, tmp_path, caplog, break_it, why
):
    put_gateway()
    break_it(cluster)
    with caplog.at_level(logging.INFO):
        done = first_task()
    assert done.target.target == done.deploy["target"] == "none"
    assert why in done.target.reason and "--endpoint" not in done.target.reason
    assert done.evaluate_serving == {"split": "valid", "model_root": "models/serving"}
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(f"not to KServe: {done.target.reason}" in line and "overlays/kubeflow" in line for line in warned)
    page = done.target.markdown()
    assert "This run ends with a packaged model" in page and "**Not to KServe**: " in page and "| problem |" in page

    # At its end, Deploy says so again, and why.
    settings = {**done.deploy, "package": cluster.packages / "1", "out": tmp_path / "out"}
    result = deploy(DeployConfig(**{**settings, "reason": done.target.reason}))
    assert CheckedPackage.read(tmp_path / "out").version == 1
    assert result.outcome().endswith(f"version 1 and not deployed: {done.target.reason}")
    assert "is packaged and not deployed" in result.markdown()
    assert [name for name in cluster.api.names("inferenceservices", KSERVE) if not name.endswith("-template")] == []


@pytest.mark.parametrize(
    ("break_it", "error", "told"),
    [
        (remove_kserve, ConfigError, "1 to put right; no data was read. docs/kubeflow.md has the set-up"),
        (
            lambda cluster: setattr(cluster.api, "allowed", {}),
            ServiceError,
            "this account may not get inferenceservices",
        ),
        (lambda cluster: cluster.kubeconfig.write_text("{}"), ConfigError, "no cluster to deploy to"),
    ],
)
def test_kserve_asked_for_by_name_is_an_error_where_it_is_missing(
    first_task, cluster, put_gateway, break_it, error, told
):
    put_gateway()
    break_it(cluster)
    with pytest.raises(error, match="deploy_target is 'kserve', and the cluster isn't ready for it") as caught:
        first_task(deploy_target="kserve")
    assert told in str(caught.value)


def test_a_store_that_cant_be_written_is_found_before_the_work(first_task, cluster, put_gateway, monkeypatch):
    put_gateway()
    monkeypatch.setenv("MINIO_ENDPOINT_URL", "http://127.0.0.1:9")
    done = first_task()
    assert done.target.target == "none" and "storage: can't write minio://" in done.target.reason
    with pytest.raises(ServiceError, match=r"storage .*PROBLEM  can't write minio://"):
        first_task(deploy_target="kserve")


def test_addresses_that_are_given_stay_as_they_are(first_task, cluster, put_gateway, store):
    cluster.api.reads_gateways = False
    given = f"minio://{store.bucket}/elsewhere"
    done = first_task(deploy_model_root=given, deploy_endpoint=cluster.endpoint)
    assert done.target.target == "kserve"
    assert (done.deploy["model_root"], done.deploy["endpoint"]) == (given, cluster.endpoint)
    # A server that follows the model root is used where there is no KServe, as it was before there was a choice.
    remove_kserve(cluster)
    done = first_task(deploy_model_root=given, deploy_endpoint=cluster.endpoint)
    assert (done.target.target, done.deploy.get("target", "local"), done.target.reason) == ("local", "local", "")
    assert "**Not to KServe**" in done.target.markdown()


def test_without_the_secret_that_names_the_store_a_run_ends_with_a_packaged_model(first_task, cluster, put_gateway):
    put_gateway()
    cluster.api.put("serviceaccounts", {"metadata": {"name": "default"}})
    done = first_task()
    assert done.target.target == "none"
    assert "access: ServiceAccount default names no Secret" in done.target.reason
    assert "add manifests/components/storage-s3 to your overlay" in done.target.reason


@pytest.fixture
def on_a_volume(cluster, monkeypatch):
    """Mount the claim of the stand-in's pods as a task does; return its folder."""
    cluster.root.mkdir()
    monkeypatch.setenv("RESULTS_VOLUME", STORAGE.removeprefix("pvc://"))
    monkeypatch.setitem(volumes._FOLDERS, "RESULTS_VOLUME", str(cluster.root))
    monkeypatch.setattr(claims, "RESULTS_FOLDER", str(cluster.root))
    return str(cluster.root)


@pytest.mark.parametrize("given", [STORAGE, ""])
def test_a_model_root_on_a_volume_is_served_from_its_claim(
    first_task, cluster, put_gateway, on_a_volume, given, caplog
):
    put_gateway()
    done = first_task(deploy_model_root=given or on_a_volume)
    assert done.target.target == "kserve"
    assert (done.deploy["model_root"], done.deploy["storage_uri"]) == (on_a_volume, STORAGE)
    assert done.evaluate_serving["model_root"] == on_a_volume
    assert "access | ok | claim models, ReadWriteMany" in done.target.markdown()
    # Asked once, though settings are checked twice.
    assert caplog.text.count("couldn't ask how many nodes can mount claim models") == 1


def test_a_model_root_on_a_volume_is_one_that_a_server_follows_where_there_is_no_kserve(
    first_task, cluster, put_gateway, on_a_volume
):
    put_gateway()
    remove_kserve(cluster)
    done = first_task(deploy_model_root=on_a_volume, deploy_endpoint="http://server:8501")
    assert done.target.target == "local"
    assert (done.deploy["model_root"], "storage_uri" in done.deploy) == (on_a_volume, False)


@pytest.mark.parametrize("target", ["none", "local"])
def test_any_other_target_that_is_given_asks_no_cluster(first_task, cluster, root, target):
    calls = len(cluster.api.calls)
    done = first_task(deploy_target=target, deploy_model_root=root, deploy_endpoint="http://server:8501")
    assert (done.target.target, done.target.reason, done.target.rows) == (target, "", ())
    assert len(cluster.api.calls) == calls


def test_every_mistake_is_named_before_the_cluster_is_asked(first_task, cluster):
    cluster.api.allowed = {}
    with pytest.raises(ConfigError, match=r"wrong settings: (?s:.)*gate_min_accuracy.*data_baseline: 'kept' is lost"):
        first_task(deploy_target="kserve", gate_min_accuracy=2.0, data_baseline="kept")


def test_on_this_machine_it_is_the_local_model_root():
    texts, target = check_training({}, "/outputs/run/check/summary")
    assert target.target == "local" and not target.rows
    assert "local" == json.loads(texts["deploy"]).get("target", "local")
    assert json.loads(texts["evaluate_serving"])["model_root"] == "models/serving"


@pytest.mark.parametrize(
    ("artifact", "root"),
    [
        ("minio://mlpipeline/v2/artifacts/p/run/check/1/summary", "minio://mlpipeline/sat-xception/models"),
        (
            "minio://mlpipeline/private-artifacts/team/v2/artifacts/p/run/check/1/summary",
            "minio://mlpipeline/private/team/sat-xception/models",
        ),
        ("s3://ours/kfp/p/run/check/1/summary?region=eu-west-1", "s3://ours/sat-xception/models"),
        ("gs://ours/kfp/p/run/check/1/summary", "gs://ours/sat-xception/models"),
        ("/outputs/run/check/summary", "minio://mlpipeline/sat-xception/models"),
    ],
)
def test_the_model_root_is_in_the_bucket_of_the_runs_artifacts_and_where_its_keys_reach(artifact, root):
    assert model_root_beside(artifact) == root
    assert is_remote(stored_path(root))
