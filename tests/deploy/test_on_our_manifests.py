"""A rollout on what `kubectl apply -k manifests/…` puts on a cluster."""

import pytest

from sat_xception.deploy.deploy import deploy
from sat_xception.deploy.settings import DeployConfig
from tests.deploy.packages import NAME
from tests.kserve_cluster import GATEWAY, KSERVE
from tests.manifests import check
from tests.manifests.schemas import Schemas


def apply(cluster, overlay):
    rendered = check.render(check.ROOT / "overlays" / overlay)
    objects = {item["kind"]: item for item in rendered}
    cluster.api.put("inferenceservices", objects["InferenceService"], KSERVE)
    cluster.api.put("servingruntimes", objects["ServingRuntime"], KSERVE)
    cluster.api.put("httproutes", objects["HTTPRoute"], GATEWAY)
    for account in (item for item in rendered if item["kind"] == "ServiceAccount"):
        cluster.api.put("serviceaccounts", account)
    cluster.await_gateway()
    return objects


@pytest.mark.parametrize("overlay", ["local", "prod", "gpu"])
def test_the_checks_of_the_cluster_find_nothing_wrong(cluster, settings, overlay):
    apply(cluster, overlay)
    planned = deploy(DeployConfig(**settings(1, dry_run=True))).summary()
    assert "PROBLEM" not in planned
    assert "sat-xception-tfserving, tensorflow/serving:" in planned


def test_a_version_is_rolled_out_in_the_shape_of_the_template(cluster, roll_out):
    objects = apply(cluster, "prod")
    roll_out(1)
    made = cluster.api.read("inferenceservices", f"{NAME}-a", KSERVE)
    assert made["spec"]["predictor"]["maxReplicas"] == objects["InferenceService"]["spec"]["predictor"]["maxReplicas"]
    assert made["spec"]["predictor"]["model"]["storageUri"].endswith("/1")
    assert "serving.kserve.io/stop" not in made["metadata"]["annotations"]
    if not check.CRDS.is_dir():
        pytest.skip(f"no CustomResourceDefinitions at {check.CRDS}")
    schemas = Schemas(check.CRDS)
    route = cluster.api.read("httproutes", f"{NAME}-route", GATEWAY)
    for one, kind, version in ((made, "InferenceService", f"{KSERVE}/v1beta1"), (route, "HTTPRoute", f"{GATEWAY}/v1")):
        metadata = {"name": one["metadata"]["name"], "namespace": "sat-xception"}
        plain = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": one["spec"]}
        assert schemas.errors(plain) == []
