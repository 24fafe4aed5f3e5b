"""The small predictor of most rollout tests answers a rollout as `sat_xception serve` does."""

import numpy as np
import pytest

from sat_xception.serve.client import EndpointClient
from sat_xception.serve.protocol import Code, RequestError
from sat_xception.served_model.golden import GoldenTiles, check_golden
from tests.deploy.packages import NAME
from tests.kserve_cluster import KServeCluster
from tests.kubernetes_api import KubernetesApi
from tests.predictors import ServingPredictor, SmallPredictor


@pytest.fixture(params=[SmallPredictor, ServingPredictor])
def pod(request, tmp_path):
    """The address of a pod with version 2, and its package."""
    real = request.param is ServingPredictor
    root = request.getfixturevalue("saved_models" if real else "packages") / "2"
    with KServeCluster(tmp_path, NAME, KubernetesApi()) as cluster:
        cluster.servers["pod"] = (request.param(root, NAME), "")
        yield cluster.predictor_url.format(service="pod"), root / NAME / "2"


def test_what_a_rollout_asks_gets_the_same_answers(pod):
    address, version = pod
    golden = GoldenTiles.read(version)
    with EndpointClient(address, NAME) as client:
        [status] = client.status()
        assert (status.version, status.state, status.error_code) == (2, "AVAILABLE", "OK")
        signatures = client.metadata()["metadata"]["signature_def"]["signature_def"]
        assert set(signatures["serving_default"]["inputs"]) == {"image_bytes"}
        assert set(signatures["serving_default"]["outputs"]) == {"probabilities"}
        assert check_golden(version, client) <= golden.tolerance
        assert client.predict(golden.images).shape == (3, 2)
        with pytest.raises(RequestError) as caught:
            client.predict([b"no image"])
        assert caught.value.code == Code.INVALID_ARGUMENT


def test_another_version_and_another_model_are_not_found(pod):
    address, version = pod
    images = GoldenTiles.read(version).images
    for name, number in ((NAME, 1), ("other", None)):
        with EndpointClient(address, name, number) as client:
            for call in (lambda: client.predict(images), client.status, client.metadata):
                with pytest.raises(RequestError) as caught:
                    call()
                assert caught.value.code == Code.NOT_FOUND
    with EndpointClient(address, NAME, 2) as client:
        assert np.isfinite(client.predict(images)).all()
