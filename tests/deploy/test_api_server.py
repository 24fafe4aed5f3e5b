"""What a rollout relies on of an API server. The same tests hold for ours and for real ones: see `api_servers.py`."""

import threading
import time
import uuid
from dataclasses import asdict

import pytest

from sat_xception.deploy.history import History
from sat_xception.deploy.k8s_client import connect
from sat_xception.deploy.k8s_errors import ConflictError
from sat_xception.deploy.k8s_kinds import CONFIG_MAP, HTTP_ROUTE, INFERENCE_SERVICE, LEASE, POD, Kind
from sat_xception.deploy.release import Release
from sat_xception.deploy.rollout_record import RolloutRecord
from sat_xception.deploy.traffic import read_weights
from sat_xception.errors import ConfigError
from tests.deploy.api_servers import NAMESPACE, api_server


@pytest.fixture(scope="module", params=["fake", "kube-apiserver", pytest.param("cluster", marks=pytest.mark.cluster)])
def kubeconfig(request, tmp_path_factory):
    with api_server(request.param, tmp_path_factory.mktemp("api")) as kubeconfig:
        yield kubeconfig


@pytest.fixture
def cluster(kubeconfig):
    class Settings:
        namespace, context = NAMESPACE, ""

    Settings.kubeconfig = kubeconfig
    with connect(Settings()) as cluster:
        yield cluster


@pytest.fixture
def name(cluster):
    """A name of this test's own; what has it is removed."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield name
    cluster.delete(INFERENCE_SERVICE, name)


def service(name, replicas):
    model = {"modelFormat": {"name": "tensorflow"}, "runtime": "tfserving", "storageUri": "gs://bucket/models"}
    predictor = {"minReplicas": 1, "maxReplicas": replicas, "model": model}
    return {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"predictor": predictor}}


def merge(cluster, kind, name, change):
    """Change an object as somebody else does, who doesn't apply."""
    resource = cluster._resource(kind)
    kinds = {"content_type": "application/merge-patch+json", "field_manager": "kubectl-edit", "serialize": False}
    # Closed: an answer that isn't read keeps its connection.
    cluster._client.patch(resource, name=name, namespace=NAMESPACE, body=change, **kinds).close()


def test_apply_creates_and_changes_and_a_dry_run_does_neither(cluster, name):
    assert cluster.apply(INFERENCE_SERVICE, service(name, 3), dry_run=True)["spec"]["predictor"]["maxReplicas"] == 3
    assert cluster.get(INFERENCE_SERVICE, name) is None
    made = cluster.apply(INFERENCE_SERVICE, service(name, 3))
    assert (
        cluster.apply(INFERENCE_SERVICE, service(name, 3))["metadata"]["generation"] == made["metadata"]["generation"]
    )
    planned = cluster.apply(INFERENCE_SERVICE, service(name, 4), dry_run=True)
    assert planned["spec"]["predictor"]["maxReplicas"] == 4
    changed = cluster.apply(INFERENCE_SERVICE, service(name, 5))
    assert changed["metadata"]["generation"] == made["metadata"]["generation"] + 1


def test_a_field_of_somebody_else_is_a_conflict_that_names_both(cluster, name):
    cluster.apply(INFERENCE_SERVICE, service(name, 3))
    merge(cluster, INFERENCE_SERVICE, name, {"spec": {"predictor": {"maxReplicas": 9}}})
    with pytest.raises(ConflictError, match=r"\.spec\.predictor\.maxReplicas \(conflict with .*kubectl-edit"):
        cluster.apply(INFERENCE_SERVICE, service(name, 4))
    cluster.apply(INFERENCE_SERVICE, service(name, 9))  # the same value is none
    forced = cluster.apply(INFERENCE_SERVICE, service(name, 4), force=True)
    assert forced["spec"]["predictor"]["maxReplicas"] == 4


def test_rules_that_are_applied_no_more_become_the_default_again(cluster, name):
    metadata = {"metadata": {"name": name, "namespace": NAMESPACE}}
    refs = [{"group": "", "kind": "Service", "name": "a", "port": 80, "weight": 100}]
    # The Role lets a rollout change a route, not create one.
    if cluster.may("create", "httproutes", "gateway.networking.k8s.io"):
        made = cluster.apply(HTTP_ROUTE, {**metadata, "spec": {"rules": [{"backendRefs": refs}]}})
        assert read_weights(made) == {"a": 100}
        again = cluster.apply(HTTP_ROUTE, {**metadata, "spec": {"parentRefs": [{"name": "gateway"}]}})
        assert read_weights(again) == {} and again["spec"]["rules"]
    else:
        with pytest.raises(Exception, match="not allowed"):
            cluster.apply(HTTP_ROUTE, metadata)


def test_what_isnt_there_is_none_and_can_be_deleted(cluster, name):
    assert cluster.get(INFERENCE_SERVICE, name) is None
    cluster.delete(INFERENCE_SERVICE, name)
    assert cluster.find(POD, labels=f"serving.kserve.io/inferenceservice={name}") == []
    cluster.apply(INFERENCE_SERVICE, service(name, 3))
    assert name in [one["metadata"]["name"] for one in cluster.find(INFERENCE_SERVICE)]


def test_a_kind_that_the_cluster_doesnt_know_says_what_to_install(cluster):
    with pytest.raises(ConfigError, match="the cluster doesn't know this kind"):
        cluster.get(Kind("serving.kserve.io", "v9", "unknownthings", "UnknownThing"), "x")


def test_a_change_ends_the_wait_for_it_and_an_expired_watch_too(cluster, name):
    seen = cluster.apply(INFERENCE_SERVICE, service(name, 3))
    change = threading.Timer(0.5, lambda: cluster.apply(INFERENCE_SERVICE, service(name, 4)))
    change.start()
    started = time.monotonic()
    cluster.await_change(INFERENCE_SERVICE, seen, 20)
    assert time.monotonic() - started < 15
    change.join()
    # Long gone on a server that has lived; on a young one the watch tells of what is there.
    cluster.await_change(INFERENCE_SERVICE, {"metadata": {"name": name, "resourceVersion": "1"}}, 20)
    assert time.monotonic() - started < 30


def test_leases_are_created_once_and_replaced_only_as_they_were_read(cluster, name):
    body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"holderIdentity": "me"}}
    made = cluster.create(LEASE, body)
    with pytest.raises(ConflictError, match="already exists"):
        cluster.create(LEASE, body)
    changed = cluster.replace(LEASE, {**made, "spec": {"holderIdentity": "you"}})
    assert changed["spec"]["holderIdentity"] == "you"
    with pytest.raises(ConflictError, match="the object has been modified"):
        cluster.replace(LEASE, {**made, "spec": {"holderIdentity": "me"}})


def test_a_history_is_read_as_it_was_written(cluster, name):
    history = History(cluster, name)
    release = Release(name, 7, "/7", "gs://bucket/7", "0" * 64, "xception", "1" * 64, ("a", "b"))
    how = {"strategy": "two-services", "by": "me", "endpoint": "", "before": None, "new": None, "stage": "start"}
    record = history.begin(RolloutRecord(**asdict(release), **how))
    assert History(cluster, name).unfinished.version == 7
    record = history.end(record, "serving")
    found = History(cluster, name)
    assert found.unfinished is None and found.serving == record and found.serving.release == release
    assert cluster.get(CONFIG_MAP, f"{name}-deploys") is not None


def test_permissions_are_answered(cluster):
    assert cluster.may("patch", "inferenceservices", "serving.kserve.io")
    assert cluster.may("get", "pods", "", "log")
