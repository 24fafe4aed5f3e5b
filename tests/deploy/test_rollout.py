"""A rollout on a cluster, seen over HTTP: traffic moves in steps without a failed request, or goes back by itself."""

from tests.deploy.conftest import NAME
from tests.kserve_cluster import KSERVE


def test_a_first_version_gets_all_the_traffic(cluster, roll_out):
    result = roll_out(1)
    assert cluster.weights[f"{NAME}-route"] == {f"{NAME}-a-predictor": 100}
    assert cluster.api.names("inferenceservices", KSERVE) == [f"{NAME}-a", f"{NAME}-template"]
    assert result.record["version"] == 1 and result.record["version_before"] is None
    assert "answers its 3 golden tiles" in result.summary()


def test_the_next_version_takes_over_in_steps(cluster, roll_out):
    roll_out(1)
    record = roll_out(2).record
    assert cluster.weights[f"{NAME}-route"] == {f"{NAME}-b-predictor": 100}
    assert cluster.api.names("inferenceservices", KSERVE) == [f"{NAME}-b", f"{NAME}-template"]
    assert [step["percent"] for step in record["rollout"]["steps"]] == [10, 50, 100]
