"""Packages of three versions and a cluster to roll them out on."""

import gc
import warnings

import pytest

from sat_xception.deploy.deploy import deploy
from sat_xception.deploy.preflight import PERMISSIONS, PREFLIGHT_PERMISSIONS
from sat_xception.deploy.settings import DeployConfig
from tests.deploy.packages import NAME, write_package, write_saved_model
from tests.kserve_cluster import KServeCluster
from tests.kserve_pods import STORAGE
from tests.kubernetes_api import KubernetesApi
from tests.predictors import ServingPredictor


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """Versions 1, 2 and 3 of different weights, each in a model root of its own."""
    folder = tmp_path_factory.mktemp("packages")
    for version in (1, 2, 3):
        write_package(folder / str(version), version)
    return folder


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory):
    """The same of SavedModels, for pods with the real server."""
    folder = tmp_path_factory.mktemp("saved-models")
    for version in (1, 2, 3):
        write_saved_model(folder / str(version), version)
    return folder


@pytest.fixture(autouse=True)
def fewer_rounds(monkeypatch):
    """Fewer requests at each step than a rollout sends, enough to see each version answer."""
    monkeypatch.setattr("sat_xception.deploy.traffic_checks._MIN_ROUNDS", 12)
    monkeypatch.setattr("sat_xception.deploy.traffic_checks._SETTLED", 6)
    monkeypatch.setattr("sat_xception.deploy.traffic_checks._MIN_TILES", 5)


@pytest.fixture
def cluster(tmp_path, request):
    """A cluster, and on it an account that may do what the Role allows; a parameter says what else is special."""
    api, special = KubernetesApi(PERMISSIONS, PREFLIGHT_PERMISSIONS), getattr(request, "param", {})
    real = special.get("predictor") is ServingPredictor
    packages = request.getfixturevalue("saved_models" if real else "packages")
    yield from run_cluster(api, packages, tmp_path, **special)


def run_cluster(api, packages, folder, **special):
    gc.freeze()  # what is there needs no look below
    with KServeCluster(folder, NAME, api, **special) as running:
        running.packages = packages
        running.impostor = packages / "3" / NAME / "3"
        yield running
    del running
    # Connections that clients dropped are closed by the garbage collector, which warns: here, not in a test of others.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.unfreeze()


@pytest.fixture
def settings(cluster):
    """Return a function that gives the settings of a deployment of a version."""

    def settings(version, **changes):
        return {
            "target": "kserve",
            "name": NAME,
            "package": cluster.packages / str(version),
            "model_root": cluster.root,
            "storage_uri": STORAGE,
            "endpoint": cluster.endpoint,
            "predictor_url": cluster.predictor_url,
            "kubeconfig": cluster.kubeconfig,
            "step_minutes": 0,
            "drain_s": 0,
            "min_agreement": 0,
            "max_slowdown": 0,
            "timeout_s": 10,
            "start_minutes": 1,
            **changes,
        }

    return settings


@pytest.fixture
def roll_out(settings):
    return lambda version, **changes: deploy(DeployConfig(**settings(version, **changes)))
