"""Back to a version that proved itself: the last one before, or one that is named."""

import json

import pytest

from sat_xception.deploy.deployment import Deployment
from sat_xception.deploy.kserve import list_deployments, rollback
from sat_xception.deploy.settings import DeploymentsConfig, RollbackConfig
from sat_xception.errors import ConfigError, DataError, ModelError
from tests.deploy.packages import NAME
from tests.kserve_cluster import KSERVE

ROUTE = f"{NAME}-route"
A, B = f"{NAME}-a-predictor", f"{NAME}-b-predictor"


@pytest.fixture
def go_back(settings):
    left_out = ("target", "package", "model_root", "storage_uri")
    kept = {key: value for key, value in settings(1).items() if key not in left_out}
    return lambda **changes: rollback(RollbackConfig(**{**kept, **changes}))


@pytest.fixture
def listed(cluster):
    def listed(**changes):
        return list_deployments(DeploymentsConfig(name=NAME, kubeconfig=cluster.kubeconfig, **changes)).summary()

    return listed


def serving(cluster):
    [service] = [name for name in cluster.api.names("inferenceservices", KSERVE) if not name.endswith("template")]
    return cluster.api.read("inferenceservices", service, KSERVE)["metadata"]["annotations"]["sat-xception/version"]


def test_rollback_goes_to_the_version_before_and_twice_to_where_it_was(cluster, roll_out, go_back, tmp_path):
    roll_out(1)
    roll_out(2)
    record = go_back(out=tmp_path / "deployment").record
    assert (record.version, record.version_before) == (1, 2)
    assert cluster.weights[ROUTE] == {A: 100} and serving(cluster) == "1"
    assert Deployment.read(tmp_path / "deployment") == record
    go_back()
    assert serving(cluster) == "2"


def test_rollback_to_a_version_skips_those_between(cluster, roll_out, go_back, listed):
    for version in (1, 2, 3):
        roll_out(version)
    go_back(to=1)
    assert serving(cluster) == "1"
    assert [line.split()[:2] for line in listed().splitlines()[1:]] == [
        ["1", "serving"],
        ["3", "replaced"],
        ["2", "replaced"],
        ["1", "replaced"],
    ]
    assert [record["version"] for record in json.loads(listed(as_json=True))] == [1, 3, 2, 1]


def test_a_version_that_never_proved_itself_is_no_target(cluster, roll_out, go_back, listed):
    with pytest.raises(ConfigError, match="no rollout of an earlier version that passed its proof is on record"):
        go_back()
    roll_out(1)
    cluster.fates[2] = "crash"
    with pytest.raises(ModelError):
        roll_out(2)
    with pytest.raises(ConfigError, match="no rollout of version 2 that passed its proof is on record; on record: 1"):
        go_back(to=2)
    assert "rolled back" in listed() and "CrashLoopBackOff" in listed()
    assert serving(cluster) == "1"


def test_a_release_whose_files_were_changed_is_no_target(cluster, roll_out, go_back):
    roll_out(1)
    roll_out(2)
    release = cluster.root / f"{NAME}-releases" / "1" / "1"
    (release / "golden.json").write_text("{}")
    with pytest.raises(DataError, match=r"golden\.json changed since it was packaged"):
        go_back()
    assert serving(cluster) == "2"


def test_an_endpoint_without_history_says_so(cluster, listed):
    assert listed() == f"no rollout of {NAME} is on record in namespace sat-xception"
