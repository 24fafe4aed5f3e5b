"""Packages of three versions and a cluster to roll them out on."""

import functools
import gc
import warnings

import pytest

from sat_xception.deploy.deploy import deploy
from sat_xception.deploy.preflight import PERMISSIONS, PREFLIGHT_PERMISSIONS
from sat_xception.deploy.settings import DeployConfig, RolloutConfig
from tests.deploy.packages import NAME, write_package, write_saved_model
from tests.kserve_cluster import Clock, KServeCluster
from tests.kserve_pods import STORAGE
from tests.kubernetes_api import KubernetesApi
from tests.predictors import ServingPredictor


def three_versions(write):
    """Return what writes versions 1, 2 and 3 of different weights into a folder, each into a model root of its own."""
    return lambda folder: [write(folder / str(version), version) for version in (1, 2, 3)]


@pytest.fixture(scope="session")
def packages(made_once):
    """Versions 1, 2 and 3 of different weights, each in a model root of its own."""
    return made_once("packages", three_versions(write_package))


@pytest.fixture(scope="session")
def saved_models(made_once):
    """The same of SavedModels, for pods with the real server."""
    return made_once("saved-models", three_versions(write_saved_model))


# The traffic that a new version gets by default, step by step. Most tests leave out the first step: at 10 % it takes
# the most requests until the new version has answered often enough.
ALL_STEPS = RolloutConfig.model_fields["traffic_steps"].default


@pytest.fixture(autouse=True)
def fewer_rounds(monkeypatch):
    """Fewer requests at each step than a rollout sends, enough to see each version answer; and shorter pauses."""
    monkeypatch.setattr("sat_xception.deploy.traffic_checks._MIN_ROUNDS", 8)
    monkeypatch.setattr("sat_xception.deploy.traffic_checks._SETTLED", 4)
    monkeypatch.setattr("sat_xception.deploy.traffic_checks._MIN_TILES", 3)
    for module in ("availability", "lock", "traffic", "two_services"):
        monkeypatch.setattr(f"sat_xception.deploy.{module}._POLL_S", 0.05)
    for module in ("deploy.k8s_client", "serve.client"):
        monkeypatch.setattr(f"sat_xception.{module}._RETRY_DELAYS_S", (0.02, 0.05, 0.1, 0.2, 0.4))


@pytest.fixture
def cluster(tmp_path, request):
    """A cluster, and on it an account that may do what the Role allows; a parameter says what else is special."""
    api, special = KubernetesApi(PERMISSIONS, PREFLIGHT_PERMISSIONS), getattr(request, "param", {})
    real = special.get("predictor") is ServingPredictor
    packages = request.getfixturevalue("saved_models" if real else "packages")
    yield from run_cluster(api, packages, tmp_path, **special)


def run_cluster(api, packages, folder, **special):
    gc.freeze()  # what is there needs no look below
    with KServeCluster(folder, NAME, api, **special) as running, pytest.MonkeyPatch.context() as patch:
        for module in ("tally", "traffic_checks"):
            patch.setattr(f"sat_xception.deploy.{module}.time", running.clock)
        running.packages = packages
        running.impostor = packages / "3" / NAME / "3"
        yield running
    del running
    close_connections()
    gc.unfreeze()


def close_connections():
    """Have the garbage collector close what clients dropped: it warns of that, here and not in a test of others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def hurry(monkeypatch):
    """Return a function that lets the clock of a module of `deploy` run many times as fast."""
    return lambda module: monkeypatch.setattr(f"sat_xception.deploy.{module}.time", Clock(rate=20))


def settings_on(cluster, version, **changes):
    """Return the settings of a deployment of a version."""
    return {
        "target": "kserve",
        "name": NAME,
        "package": cluster.packages / str(version),
        "model_root": cluster.root,
        "storage_uri": STORAGE,
        "endpoint": cluster.endpoint,
        "predictor_url": cluster.predictor_url,
        "kubeconfig": cluster.kubeconfig,
        "traffic_steps": (50, 100),
        "step_minutes": 0,
        "drain_s": 0,
        "min_agreement": 0,
        "max_slowdown": 0,
        "timeout_s": 10,
        "start_minutes": 1,
        **changes,
    }


@pytest.fixture
def settings(cluster):
    """Return a function that gives the settings of a deployment of a version."""
    return functools.partial(settings_on, cluster)


@pytest.fixture
def roll_out(settings):
    return lambda version, **changes: deploy(DeployConfig(**settings(version, **changes)))
