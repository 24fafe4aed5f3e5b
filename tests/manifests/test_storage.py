"""KServe reads models with what the manifests give it: keys, a store's address, a way through the network."""

import re
import shlex
from pathlib import Path

import pytest

from tests.manifests import check
from tests.manifests.kserve_storage import initializer_environment, provider_of, supports
from tests.manifests.test_network import matches, selects

TEXT = (check.ROOT.parent / "docs" / "serving.md").read_text()
READER, SECRET = ("ServiceAccount", "sat-xception-model-reader"), ("Secret", "sat-xception-storage")
KEYS = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "two"}


@pytest.mark.parametrize("component", ["storage-secret", "storage-s3"])
def test_the_endpoints_account_names_the_secret(component, rendered_component):
    assert rendered_component(component)[READER]["secrets"] == [{"name": SECRET[1]}]


def test_without_one_of_them_it_names_none(overlay):
    if any((item["kind"], item["metadata"]["name"]) == SECRET for item in overlay):
        pytest.skip("this overlay has one")
    assert not any("secrets" in item for item in overlay if item["kind"] == "ServiceAccount")


@pytest.mark.parametrize("release", ["0.16", "0.21"])
def test_the_storage_initializer_gets_the_address_and_the_keys_of_kubeflows_store(release, rendered_component):
    environment = initializer_environment(rendered_component("storage-s3")[SECRET], KEYS, release)
    assert environment == KEYS | {
        "AWS_ENDPOINT_URL": "http://seaweedfs.kubeflow:9000",
        "S3_ENDPOINT": "seaweedfs.kubeflow:9000",
        "S3_USE_HTTPS": "0",
        "AWS_DEFAULT_REGION": "us-east-1",
        "awsAnonymousCredential": "false",
    }


def test_no_key_is_in_the_files_so_that_applying_them_again_keeps_those_on_the_cluster(rendered_component):
    # What an apply doesn't name, and didn't name the last time, it leaves alone.
    assert rendered_component("storage-s3")[SECRET].keys() == {"apiVersion", "kind", "metadata", "type"}


def test_the_command_that_copies_the_keys_gives_them_the_names_that_kserve_reads(rendered_component):
    command = shlex.split(re.search(r"^\$ (kubectl get secret mlpipeline.*\n.*)$", TEXT, re.MULTILINE)[1])
    template = next(word for word in command if word.startswith("go-template=")).removeprefix("go-template=")
    assert dict(re.findall(r'"(\w+)": "{{\.data\.(\w+)}}"', template)) == dict(
        zip(KEYS, ("accesskey", "secretkey"), strict=True)
    )
    patched = command[command.index("patch") :]
    assert patched[1:5] == [
        "secret",
        SECRET[1],
        "-n",
        rendered_component("storage-s3")[SECRET]["metadata"]["namespace"],
    ]


@pytest.mark.parametrize(
    "address",
    [
        "gs://bucket/models/school-classifier-releases/1",
        "s3://bucket/models/school-classifier-releases/1",
        "https://account.blob.core.windows.net/container/models/school-classifier-releases/1",
        "pvc://claim/models/school-classifier-releases/1",
    ],
)
def test_the_container_that_the_template_names_takes_every_model_root(address, rendered_component):
    # KServe refuses the pod otherwise, also one whose model is on a claim and needs no container.
    objects = rendered_component("storage-initializer")
    name = objects["InferenceService", "school-classifier-template"]["spec"]["predictor"]["storageContainerName"]
    assert supports(objects["ClusterStorageContainer", name], address)
    assert not supports(objects["ClusterStorageContainer", name], "hdfs://bucket/models")


@pytest.mark.parametrize(("store", "port"), [("seaweedfs", 8333), ("minio", 9000)])
def test_both_sides_policies_let_the_endpoints_pods_reach_the_store(store, port, rendered_component):
    objects = rendered_component("storage-s3")
    pod = {"component": "predictor", "serving.kserve.io/inferenceservice": "school-classifier-a"}
    out, into = objects["NetworkPolicy", "model-server"], objects["NetworkPolicy", "sat-xception-models"]
    assert into["metadata"]["namespace"] == "kubeflow"
    assert selects(into["spec"]["podSelector"], {"app": store})
    assert not selects(into["spec"]["podSelector"], {"app": "mysql"})

    def allowed(rules, side, namespace, labels):
        wanted = {"protocol": "TCP", "port": port}
        return any(
            wanted in rule["ports"] and any(matches(peer, namespace, labels, None) for peer in rule[side])
            for rule in rules
        )

    assert allowed(out["spec"]["egress"], "to", "kubeflow", {"app": store})
    assert not allowed(out["spec"]["egress"], "to", "kubeflow", {"app": "mysql"})
    assert allowed(into["spec"]["ingress"], "from", "sat-xception", pod)
    assert not allowed(into["spec"]["ingress"], "from", "sat-xception", {"app": "other"})
    assert not allowed(into["spec"]["ingress"], "from", "default", pod)


def test_each_secret_that_is_described_is_that_of_its_provider():
    rows = re.findall(r"^\| `(\w+://)\S*` \| (.*`.*) \|$", TEXT, re.MULTILINE)
    assert [scheme for scheme, _ in rows] == ["gs://", "s3://", "https://"]
    for scheme, text in rows:
        for instead in text.split(";"):
            keys = re.findall(r"`([\w.-]+)`", instead)
            assert keys and provider_of(keys) == scheme, instead
    # As the sentence before the table says.
    assert provider_of(["AZURE_STORAGE_ACCESS_KEY", "gcloud-application-credentials.json", *KEYS]) == "s3://"
    assert provider_of(["AZURE_STORAGE_ACCESS_KEY", "gcloud-application-credentials.json"]) == "gs://"


def test_every_annotation_that_is_described_is_one_that_kserve_reads():
    from tests.manifests.kserve_storage import S3_SETTINGS

    rows = re.findall(r"^\| `(s3-[a-z-]+)` \|", TEXT, re.MULTILINE)
    assert set(rows) <= {name.removeprefix("serving.kserve.io/") for name in S3_SETTINGS}
    assert len(rows) == 7
    named = re.findall(
        r"s3-[a-z]+(?:-configmap)?",
        Path(check.ROOT / "components/storage-s3").joinpath("sat-xception-storage-secret.yaml").read_text(),
    )
    assert set(named) <= set(rows)
