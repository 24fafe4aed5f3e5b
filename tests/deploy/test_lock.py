"""One rollout at a time: the lock of a holder that is alive is respected, that of one that is gone is taken over."""

import threading
import time

import pytest

from sat_xception.deploy.k8s_client import connect
from sat_xception.deploy.lock import rollout_lock
from sat_xception.errors import ServiceError
from tests.deploy.packages import NAME
from tests.kserve_cluster import KSERVE, until
from tests.kubernetes_api import Fault

LEASE_NAME = f"{NAME}-deploy"
LEASES = ("leases", LEASE_NAME, "coordination.k8s.io")


class Settings:
    namespace, context = "sat-xception", ""

    def __init__(self, kubeconfig):
        self.kubeconfig = kubeconfig


@pytest.fixture
def api(cluster):
    with connect(Settings(cluster.kubeconfig)) as api:
        yield api


def hold(cluster, holder="another-pod", seconds=1):
    spec = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": "2026-01-01T00:00:00.000000Z"}
    cluster.api.put("leases", {"metadata": {"name": LEASE_NAME}, "spec": spec}, "coordination.k8s.io")


def renew_often(cluster, stopped):
    def renew(body):
        body["spec"]["renewTime"] = str(time.monotonic())

    while not stopped.wait(0.2):
        cluster.api.edit(*LEASES[:2], renew, LEASES[2])


def test_a_rollout_of_somebody_who_is_alive_is_left_alone(cluster, roll_out):
    hold(cluster, "pod-of-a-colleague", seconds=30)
    stopped = threading.Event()
    renewing = threading.Thread(target=renew_often, args=(cluster, stopped))
    renewing.start()
    try:
        with pytest.raises(ServiceError, match="a rollout by pod-of-a-colleague is in progress"):
            roll_out(1)
    finally:
        stopped.set()
        renewing.join()
    assert cluster.api.names("inferenceservices", KSERVE) == [f"{NAME}-template"]


def test_the_lock_of_somebody_who_is_gone_is_taken_over(cluster, api):
    hold(cluster)
    with rollout_lock(api, NAME) as lock:
        assert cluster.api.read(*LEASES)["spec"]["holderIdentity"] == lock.holder
    assert cluster.api.read(*LEASES)["spec"]["holderIdentity"] == ""


def test_a_lock_is_renewed_while_it_is_held(cluster, api):
    with rollout_lock(api, NAME, seconds=1) as lock:
        first = cluster.api.read(*LEASES)["spec"]["renewTime"]
        until(lambda: cluster.api.read(*LEASES)["spec"]["renewTime"] != first)
        lock.check()


def test_a_renewal_that_meets_a_conflict_goes_on_with_the_newer_lease(cluster, api):
    with rollout_lock(api, NAME, seconds=1) as lock:
        cluster.api.edit(*LEASES[:2], lambda body: body["metadata"].update(labels={"seen": "yes"}), LEASES[2])
        before = cluster.api.read(*LEASES)["spec"]["renewTime"]
        until(lambda: cluster.api.read(*LEASES)["spec"]["renewTime"] != before)
        lock.check()
        assert cluster.api.read(*LEASES)["metadata"]["labels"] == {"seen": "yes"}


def test_a_lock_that_somebody_took_over_ends_the_work_at_the_next_look(cluster, api):
    with rollout_lock(api, NAME, seconds=1) as lock:
        cluster.api.edit(*LEASES[:2], lambda body: body["spec"].update(holderIdentity="thief"), LEASES[2])
        until(lambda: lock._lost)
        with pytest.raises(ServiceError, match="the lock of the rollout is lost: thief has it now"):
            lock.check()
    assert cluster.api.read(*LEASES)["spec"]["holderIdentity"] == "thief"  # not given back for the thief


def test_a_lock_that_cant_be_renewed_counts_as_lost(cluster, api, monkeypatch):
    monkeypatch.setattr("sat_xception.deploy.k8s_client._RETRY_DELAYS_S", ())
    with rollout_lock(api, NAME, seconds=1) as lock:
        cluster.api.faults = [Fault("update", "leases", 500, "etcd is gone", 1000)]

        def lost():
            try:
                lock.check()
            except ServiceError as error:
                return str(error)

        assert "couldn't be renewed in time" in until(lost)


def test_two_that_begin_at_once_dont_both_get_it(cluster, api):
    got, both = [], threading.Barrier(2)

    def take():
        with connect(Settings(cluster.kubeconfig)) as own:
            both.wait()
            try:
                with rollout_lock(own, NAME, seconds=1) as lock:
                    got.append(lock.holder)
                    assert cluster.api.read(*LEASES)["spec"]["holderIdentity"] == lock.holder
                    threading.Event().wait(1.5)
            except ServiceError as error:
                got.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("is in progress" in one for one in got) == 1, got
