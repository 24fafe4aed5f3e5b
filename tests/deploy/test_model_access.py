"""Where the endpoint's pods read models from, and with what: found before a rollout, and served from there."""

import base64
import json

import pytest

from sat_xception.deploy.deploy import deploy
from sat_xception.deploy.settings import DeployConfig
from sat_xception.errors import ConfigError
from sat_xception.kubeflow import volumes
from sat_xception.kubeflow.training_settings import TRAINING
from sat_xception.settings.config import load_config
from sat_xception.storage import folder_digests
from tests.deploy.packages import NAME
from tests.kserve_cluster import GATEWAY, KSERVE
from tests.kserve_pods import STORAGE
from tests.manifests import check
from tests.manifests.kserve_storage import initializer_environment
from tests.manifests.schemas import Schemas
from tests.storage_backends import Servers

ROW = "access"
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}


@pytest.fixture(autouse=True)
def no_store_of_ones_own(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.fixture
def planned(settings):
    """Return a function that returns what the checks before a rollout say of the models at an address."""

    def dry_run(address, **changes):
        table = deploy(DeployConfig(**settings(1, storage_uri=address, dry_run=True, **changes))).summary()
        (row,) = [line for line in table.splitlines() if line.startswith(ROW)]
        return " ".join(row.removeprefix(ROW).split())

    return dry_run


def put_account(cluster, annotations=None, **fields):
    metadata = {"name": "default", "annotations": annotations or {}}
    cluster.api.put("serviceaccounts", {"metadata": metadata, **fields})


def put_claim(cluster, *modes):
    cluster.api.put("persistentvolumeclaims", {"metadata": {"name": "models"}, "spec": {"accessModes": list(modes)}})


@pytest.mark.parametrize("address", ["s3://bucket/models", "gs://bucket/models", "https://a.blob.core.windows.net/c/m"])
def test_an_account_with_a_secret_reads_buckets(address, cluster, planned, monkeypatch, caplog):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://seaweedfs.kubeflow:9000")
    assert planned(address) == "ok ServiceAccount default with Secret sat-xception-storage"
    assert "credentials" not in caplog.text


@pytest.mark.parametrize(
    ("address", "identity"),
    [
        ("gs://bucket/models", "iam.gke.io/gcp-service-account"),
        ("s3://bucket/models", "eks.amazonaws.com/role-arn"),
        ("https://a.blob.core.windows.net/c/models", "azure.workload.identity/client-id"),
    ],
)
def test_an_account_with_workload_identity_reads_the_buckets_of_that_provider(address, identity, cluster, planned):
    put_account(cluster, {identity: "me"})
    assert planned(address) == f"ok ServiceAccount default with {identity}"
    other = "gs://bucket/models" if not address.startswith("gs") else "s3://bucket/models"
    assert planned(other) == "ok ServiceAccount default without credentials"


def test_one_without_credentials_is_told_of_and_may_be_right(cluster, planned, caplog):
    # A public bucket, or the identity of the node.
    put_account(cluster, secrets=[{"name": "default-token-x7k2p"}, {"name": "default-dockercfg-abcde"}])
    assert planned("s3://bucket/models") == "ok ServiceAccount default without credentials"
    assert "names no Secret and no workload identity: KServe reads s3://bucket/models without" in caplog.text


def test_a_store_that_isnt_amazons_needs_the_secret_that_names_it(cluster, planned, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://seaweedfs.kubeflow:9000")
    put_account(cluster)
    found = planned("s3://bucket/models")
    assert found.startswith("PROBLEM ServiceAccount default names no Secret")
    assert "add manifests/components/storage-s3 to your overlay" in found
    assert planned("gs://bucket/models") == "ok ServiceAccount default without credentials"


def test_an_account_that_isnt_there_ends_it_before_anything_is_written(cluster, settings):
    cluster.api.remove("serviceaccounts", "default")
    with pytest.raises(ConfigError, match="there is no ServiceAccount default in namespace sat-xception"):
        deploy(DeployConfig(**settings(1)))
    assert not cluster.root.exists()


@pytest.mark.parametrize(
    ("modes", "found"),
    [
        (["ReadWriteMany"], "ok claim models, ReadWriteMany"),
        (["ReadWriteOnce", "ReadOnlyMany"], "ok claim models, ReadOnlyMany and ReadWriteOnce"),
        (["ReadWriteOnce"], "ok claim models, which only one node can mount at a time"),
        (["ReadWriteOncePod"], "PROBLEM PersistentVolumeClaim models is ReadWriteOncePod: one pod alone can mount it"),
    ],
)
def test_a_claim_that_not_all_pods_can_mount_is_told_of(modes, found, cluster, planned, caplog):
    cluster.api.remove("persistentvolumeclaims", "models")
    put_claim(cluster, *modes)
    assert planned(STORAGE).startswith(found)
    assert ("claim models is ReadWriteOnce: pods on other nodes" in caplog.text) is (modes == ["ReadWriteOnce"])


def test_a_claim_of_another_namespace_is_no_claim_for_the_endpoint(cluster, planned):
    cluster.api.remove("persistentvolumeclaims", "models")
    found = planned("pvc://models/serving")
    assert found.startswith("PROBLEM there is no PersistentVolumeClaim models in namespace sat-xception")
    assert "create one of the same share there, or give the address of another as --storage-uri" in found


def assert_fits_its_schema(made, kind, version):
    if check.CRDS.is_dir():
        metadata = {
            key: made["metadata"][key] for key in ("name", "namespace", "annotations") if key in made["metadata"]
        }
        plain = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": made["spec"]}
        assert Schemas(check.CRDS).errors(plain) == []


def test_a_version_is_served_from_s3_with_the_secret_of_the_manifests(cluster, settings, tmp_path, monkeypatch):
    """The Secret has the address of the store as KServe wants it, and the server's pods read the model by it alone."""
    boto3 = pytest.importorskip("boto3", reason="boto3, which comes with moto, isn't installed")
    servers = Servers(tmp_path)
    with servers.running, pytest.MonkeyPatch.context() as own:
        address = servers.address("s3")
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
            own.setenv(name, value)
        boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket="models")
        objects = check.render_component(check.ROOT / "components" / "storage-s3")
        (secret,) = [item for item in objects if item["kind"] == "Secret"]
        (account,) = [item for item in objects if item["metadata"]["name"] == "sat-xception-model-reader"]
        cluster.api.put("serviceaccounts", account)
        name = account["metadata"]["name"]
        cluster.api.edit(
            "inferenceservices",
            f"{NAME}-template",
            lambda item: item["spec"]["predictor"].update(serviceAccountName=name),
            KSERVE,
        )
        # This store in place of Kubeflow's.
        secret["metadata"]["annotations"]["serving.kserve.io/s3-endpoint"] = address.removeprefix("http://")
        secret["data"] = {key: base64.b64encode(value.encode()).decode() for key, value in KEYS.items()}
        environment = initializer_environment(secret, KEYS)
        cluster.fetch = lambda uri: download(boto3, uri, environment, tmp_path / "fetched")
        given = settings(1, model_root="s3://models/serving", storage_uri="")
        record = deploy(DeployConfig(**given)).record
    assert record.model_root == f"s3://models/serving/{NAME}-releases/1"
    made = cluster.api.read("inferenceservices", f"{NAME}-a", KSERVE)
    assert made["spec"]["predictor"]["model"]["storageUri"] == record.model_root
    assert made["spec"]["predictor"]["serviceAccountName"] == name
    assert folder_digests(tmp_path / "fetched" / "1") == folder_digests(cluster.packages / "1" / NAME / "1")
    assert_fits_its_schema(made, "InferenceService", f"{KSERVE}/v1beta1")
    assert_fits_its_schema(cluster.api.read("httproutes", f"{NAME}-route", GATEWAY), "HTTPRoute", f"{GATEWAY}/v1")


def download(boto3, uri, environment, folder):
    """Download as KServe's storage-initializer does: boto3, by the variables of `initializer_environment`."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            path = folder / item["Key"].removeprefix(prefix).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, item["Key"], str(path))
    client.close()
    return folder


@pytest.mark.parametrize("root", [STORAGE, "mounted"])
def test_a_version_is_written_through_the_mount_of_a_pipeline_and_served_from_the_claim(
    root, cluster, settings, monkeypatch
):
    monkeypatch.setenv("RESULTS_VOLUME", STORAGE.removeprefix("pvc://"))
    monkeypatch.setitem(volumes._FOLDERS, "RESULTS_VOLUME", str(cluster.root))
    mounted = str(cluster.root) if root == "mounted" else root
    own = settings(1)
    for name in ("model_root", "storage_uri"):
        del own[name]
    given = {"deploy_target": "kserve", "deploy_model_root": mounted, "deploy_endpoint": cluster.endpoint}
    texts = TRAINING.check(given)
    config = load_config(DeployConfig, None, {**json.loads(texts["deploy"]), **own})
    assert (str(config.model_root), config.storage_uri) == (str(cluster.root), STORAGE)
    record = deploy(config).record
    made = cluster.api.read("inferenceservices", f"{NAME}-a", KSERVE)
    assert made["spec"]["predictor"]["model"]["storageUri"] == f"{STORAGE}/{NAME}-releases/1" == record.model_root
    assert_fits_its_schema(made, "InferenceService", f"{KSERVE}/v1beta1")
