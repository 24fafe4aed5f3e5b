"""Pods of a next version that don't get ready: the error has the reason, and the version before goes on serving."""

import pytest

from sat_xception.deploy import pod_diagnosis as pods
from sat_xception.deploy.deploy import deploy
from sat_xception.deploy.preflight import PERMISSIONS, PREFLIGHT_PERMISSIONS
from sat_xception.deploy.settings import DeployConfig
from sat_xception.errors import ConfigError, ModelError, ServiceError
from tests.deploy.conftest import close_connections, run_cluster, settings_on
from tests.deploy.packages import NAME
from tests.kserve_cluster import KSERVE
from tests.kubernetes_api import KubernetesApi

ROUTE = f"{NAME}-route"
A = f"{NAME}-a-predictor"


@pytest.fixture(scope="module")
def cluster(packages, tmp_path_factory):
    """A cluster that serves version 1, for all tests: what fails leaves it as it was, which each of them checks."""
    api = KubernetesApi(PERMISSIONS, PREFLIGHT_PERMISSIONS)
    for running in run_cluster(api, packages, tmp_path_factory.mktemp("served")):
        deploy(DeployConfig(**settings_on(running, 1)))
        yield running


def services(cluster):
    return cluster.api.names("inferenceservices", KSERVE)


@pytest.fixture(autouse=True)
def nothing_of_other_tests(cluster):
    """No events that tell why earlier pods were refused, and no connections."""
    assert services(cluster) == [f"{NAME}-a", f"{NAME}-template"]
    for name in cluster.api.names("events"):
        cluster.api.remove("events", name)
    yield
    close_connections()


@pytest.mark.parametrize(
    ("fate", "error", "said"),
    [
        ("crash", ModelError, "container storage-initializer of pod .* is in CrashLoopBackOff.*exit code 1"),
        ("crash later", ModelError, "container kserve-container of pod .* is in CrashLoopBackOff.*exit code 134"),
        ("oom", ModelError, "OOMKilled.*raise the template's memory limit"),
        ("deadline", ServiceError, "ProgressDeadlineExceeded"),
    ],
)
def test_a_predictor_that_never_will_be_ready_ends_the_rollout_at_once(cluster, roll_out, fate, error, said):
    cluster.fates[2] = fate
    with pytest.raises(error, match=said) as caught:
        roll_out(2)
    assert "rolled back, version 1 has all the traffic again" in str(caught.value)
    assert cluster.weights[ROUTE] == {A: 100} and f"{NAME}-b" not in services(cluster)


@pytest.fixture
def impatient(monkeypatch):
    """What may last for a while lasts too long at the second look."""
    for kind in pods.PATIENCE_S:
        monkeypatch.setitem(pods.PATIENCE_S, kind, 0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fate", "error", "said"),
    [
        ("quota", ServiceError, "the cluster refuses its pods: .*exceeded quota: .*raise the quota"),
        ("pod security", ConfigError, "the cluster refuses its pods: .*violates PodSecurity"),
        ("webhook", ConfigError, "the cluster refuses its pods: .*images need a signature"),
        ("policy", ConfigError, "the cluster refuses its pods: .*docker.io isn't allowed"),
        ("event", ConfigError, 'the cluster refuses its pods: .*serviceaccount "reader" not found'),
        ("deployment", ConfigError, "the cluster refuses its pods: .*Deployments need an owner"),
        ("webhook away", ServiceError, "the cluster refuses its pods: .*connection refused"),
        ("image", ServiceError, "ImagePullBackOff: its image can't be fetched"),
        ("config map", ServiceError, 'CreateContainerConfigError: .*configmap "settings" not found'),
        ("blocked", ModelError, "BlockedByFailedLoad: ModelLoadFailed: Op type not registered 'DisableCopyOnRead'"),
        ("mount", ServiceError, 'FailedMount: .*configmap "tfs-config-7d" not found'),
    ],
)
def test_what_lasts_too_long_ends_the_rollout_with_its_reason_and_its_exit_code(cluster, roll_out, fate, error, said):
    cluster.fates[2] = fate
    with pytest.raises(error, match=rf"doesn't start: .*{said}.* \(for ") as caught:
        roll_out(2)
    assert type(caught.value) is error
    assert "rolled back, version 1 has all the traffic again" in str(caught.value)
    assert cluster.weights[ROUTE] == {A: 100} and f"{NAME}-b" not in services(cluster)


def test_pods_that_are_refused_have_half_a_minute():
    assert pods.PATIENCE_S["refused"] == 30
