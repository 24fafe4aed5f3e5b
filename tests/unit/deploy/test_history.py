"""The history of rollouts, on a cluster that may fail to write it."""

import json

import pytest

from sat_xception.deploy.history import History
from sat_xception.deploy.rollout_record import FAILED, INTERRUPTED, SERVING
from sat_xception.errors import DataError, ServiceError
from tests.unit.deploy.test_deployment_report import ROLLOUT

BEGUN = ROLLOUT.model_copy(update={"id": "", "state": "in progress", "started_at": "", "finished_at": ""})


class Cluster:
    """Keeps one ConfigMap."""

    namespace = "models"

    def __init__(self, data=None):
        self.data, self.fails = data or {}, False

    def get(self, kind, name):
        assert name == "schools-deploys"
        return {"data": self.data}

    def apply(self, kind, manifest, force):
        if self.fails:
            raise ServiceError("the API server is away")
        self.data = manifest["data"]


def states(history):
    return [(record.version, record.state) for record in history.records]


def rolled_out(cluster, version):
    history = History(cluster, "schools")
    history.end(history.begin(BEGUN.model_copy(update={"version": version})), SERVING)
    return history


def test_the_newest_that_serves_replaces_the_one_before():
    cluster = Cluster()
    rolled_out(cluster, 1)
    history = rolled_out(cluster, 2)
    assert states(history) == states(History(cluster, "schools")) == [(2, "serving"), (1, "replaced")]
    assert history.serving.version == 2 and history.proved().version == 1 and history.unfinished is None


def test_an_end_that_cant_be_written_leaves_what_served_before():
    cluster = Cluster()
    rolled_out(cluster, 1)
    history = History(cluster, "schools")
    record = history.begin(BEGUN)
    cluster.fails = True
    with pytest.raises(ServiceError):
        history.end(record, SERVING)
    cluster.fails = False
    history.end(record, FAILED, "the API server is away")
    assert states(History(cluster, "schools")) == [(2, "rolled back"), (1, "serving")]


def test_a_change_is_stored_by_the_next_write():
    cluster = Cluster()
    history = History(cluster, "schools")
    record = history.change(history.begin(BEGUN), stage="50 % of the traffic")
    assert History(cluster, "schools").unfinished.stage == BEGUN.stage
    history.write()
    assert History(cluster, "schools").unfinished == record
    assert history.end(record, INTERRUPTED).id == record.id


def test_records_of_the_version_before_are_read_by_their_keys():
    content = json.loads(ROLLOUT.to_json())
    del content["schema_version"], content["id"]
    cluster = Cluster({"20261124T104844.000-2.json": json.dumps(content)})
    assert History(cluster, "schools").records == [ROLLOUT]


def test_a_record_of_a_newer_version_says_to_update():
    cluster = Cluster({"2030-1.json": json.dumps({**json.loads(ROLLOUT.to_json()), "schema_version": 2})})
    where = "record 2030-1.json in ConfigMap schools-deploys of namespace models has the schema_version 2"
    advice = "Update sat-xception, or remove it with `kubectl edit configmap schools-deploys -n models`"
    with pytest.raises(DataError, match=f"{where}.*{advice}"):
        History(cluster, "schools")
