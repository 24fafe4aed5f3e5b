"""What goes wrong on a cluster, each with the message that people see, and with nothing half done left behind."""

import pytest

from sat_xception.deploy import readiness as wait
from sat_xception.deploy.preflight import PERMISSIONS
from sat_xception.deploy.two_services import TwoServices
from sat_xception.errors import ConfigError, DataError, ModelError, ServiceError
from tests.deploy.packages import NAME
from tests.deploy.test_rollout import records
from tests.kserve_cluster import GATEWAY, KSERVE, Clock, until
from tests.kubernetes_api import Fault

ROUTE = f"{NAME}-route"
A, B = f"{NAME}-a-predictor", f"{NAME}-b-predictor"
TEMPLATE_ALONE = [f"{NAME}-template"]


def services(cluster):
    return cluster.api.names("inferenceservices", KSERVE)


# Calls that fail


def test_a_busy_api_server_is_asked_again_when_it_says(cluster, roll_out):
    cluster.api.faults = [
        Fault(verb, resource, 429, "too many requests", 2, {"Retry-After": "0"})
        for verb, resource in (("patch", "inferenceservices"), ("get", "deployments"), ("update", "leases"))
    ]
    cluster.api.faults.append(Fault("patch", "httproutes", 503, "etcdserver: leader changed", 2))
    roll_out(1)
    assert cluster.weights[ROUTE] == {A: 100}
    assert not any(fault.times for fault in cluster.api.faults)


def test_a_watch_that_expires_is_begun_anew(cluster, roll_out, hurry):
    hurry("k8s_client")
    cluster.hold = "waiting"
    original = cluster.api._get

    def get(request, key, body):
        answer = original(request, key, body)
        if key[3] == f"{NAME}-a":
            cluster.api.expire_watches()  # before the watch that follows
            cluster.hold = "waiting" if cluster.api.expired < 2 else ""
        return answer

    cluster.api._get = get
    roll_out(1)
    assert cluster.api.expired >= 2 and cluster.weights[ROUTE] == {A: 100}


def test_a_field_that_somebody_else_owns_is_named_with_its_owner(cluster, roll_out):
    roll_out(1)
    roll_out(2)

    def by_hand(body):
        body["spec"]["rules"][0]["backendRefs"][0]["weight"] = 7

    cluster.api.edit("httproutes", ROUTE, by_hand, GATEWAY)
    problem = _problem(roll_out, ConfigError)  # before a pod is started
    assert problem.startswith("route") and '.spec.rules (conflict with "kubectl-edit"' in problem
    assert "--force-conflicts" in problem and len(records(cluster)) == 2
    # Nothing was changed of the route, so there is nothing to take back.
    assert cluster.weights[ROUTE] == {B: 100}
    [rule] = cluster.api.read("httproutes", ROUTE, GATEWAY)["spec"]["rules"]
    assert rule["backendRefs"][0]["weight"] == 7
    roll_out(3, force_conflicts=True)
    assert cluster.weights[ROUTE] == {A: 100}


def test_a_webhooks_refusal_is_passed_on_and_nothing_was_changed(cluster, roll_out):
    cluster.api.admission = lambda kind, body: "minReplicas above maxReplicas" if kind == "InferenceService" else ""
    with pytest.raises(
        ConfigError, match=r"an admission webhook or a policy refused it: .*minReplicas above maxReplicas"
    ):
        roll_out(1)
    assert services(cluster) == TEMPLATE_ALONE
    assert cluster.api.read("configmaps", f"{NAME}-deploys") is None


def test_a_verb_that_is_forbidden_in_the_middle_is_told_and_rolled_back(cluster, roll_out, monkeypatch):
    roll_out(1)
    start = TwoServices.start

    def forbidden_from_now_on(self, release, current):
        cluster.api.faults = [Fault("patch", "httproutes", 403, 'User "x" cannot patch resource "httproutes"')]
        return start(self, release, current)

    monkeypatch.setattr(TwoServices, "start", forbidden_from_now_on)
    with pytest.raises(ServiceError, match=r"rolled back, version 1 .*not allowed .*Role sat-xception-deployer"):
        roll_out(2)
    assert cluster.weights[ROUTE] == {A: 100} and f"{NAME}-b" not in services(cluster)


def test_an_api_server_that_is_gone_ends_the_rollout_with_its_address(cluster, roll_out, monkeypatch, tmp_path):
    monkeypatch.setattr("sat_xception.deploy.k8s_client._RETRY_DELAYS_S", (0.01,))
    text = cluster.kubeconfig.read_text().replace(cluster.api.url, "http://127.0.0.1:9")
    (tmp_path / "other").write_text(text)
    with pytest.raises(ServiceError, match=r"PROBLEM  the cluster at http://127.0.0.1:9 doesn't answer"):
        roll_out(1, kubeconfig=tmp_path / "other")


def test_no_cluster_at_all_is_a_matter_of_settings(cluster, roll_out, tmp_path):
    with pytest.raises(ConfigError, match=r"no cluster to deploy to: .*Give --kubeconfig"):
        roll_out(1, kubeconfig=tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"no cluster to deploy to: .*nowhere"):
        roll_out(1, context="nowhere")


# What the preflight finds


def _problem(roll_out, kind, **changes):
    with pytest.raises(kind) as caught:
        roll_out(1, **changes)
    assert "nothing was changed: 1 to put right" in str(caught.value), str(caught.value)
    return next(line for line in str(caught.value).splitlines() if "PROBLEM" in line)


def test_a_missing_definition_says_what_to_install(cluster, roll_out):
    cluster.api.remove("customresourcedefinitions", f"inferenceservices.{KSERVE}", "apiextensions.k8s.io", "")
    assert f"no CustomResourceDefinition inferenceservices.{KSERVE}: install KServe" in _problem(roll_out, ConfigError)


def test_missing_permissions_are_listed_all_at_once(cluster, roll_out):
    allowed = {**PERMISSIONS, ("apps", "deployments"): (), ("", "pods/log"): ()}
    cluster.api.allowed = allowed
    problem = _problem(roll_out, ServiceError)
    assert "may not get deployments.apps, get pods/log in namespace sat-xception" in problem


def test_a_missing_template_names_what_is_there(cluster, roll_out):
    cluster.api.remove("inferenceservices", f"{NAME}-template", KSERVE)
    assert f"no InferenceService {NAME}-template" in _problem(roll_out, ConfigError)


def test_a_template_in_another_mode_is_refused(cluster, roll_out):
    def serverless(body):
        body["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] = "Knative"

    cluster.api.edit("inferenceservices", f"{NAME}-template", serverless, KSERVE)
    assert "has the deployment mode Knative" in _problem(roll_out, ConfigError)


def test_a_runtime_that_names_the_model_for_the_inference_service_is_refused(cluster, roll_out):
    def by_placeholder(body):
        body["spec"]["containers"][0]["args"][0] = "--model_name={{.Name}}"

    cluster.api.edit("servingruntimes", "tfserving", by_placeholder, KSERVE)
    assert f"set --model_name={NAME}" in _problem(roll_out, ConfigError)


def test_a_missing_runtime_and_a_route_without_gateway_are_told(cluster, roll_out):
    cluster.api.remove("servingruntimes", "tfserving", KSERVE)
    assert "no ServingRuntime tfserving" in _problem(roll_out, ConfigError)


def test_a_route_without_gateway_is_told(cluster, roll_out):
    cluster.api.edit("httproutes", ROUTE, lambda body: body["spec"].pop("parentRefs"), GATEWAY)
    assert "has no parentRefs" in _problem(roll_out, ConfigError)


@pytest.mark.parametrize(
    ("parents", "said"),
    [
        ([], "no gateway controller has set its status"),
        (
            [{"conditions": [{"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners"}]}],
            "NotAllowedByListeners",
        ),
    ],
)
def test_a_route_that_no_gateway_takes_is_told_before_anything_is_made(cluster, roll_out, parents, said):
    cluster.said_of_routes = parents
    until(lambda: cluster.api.read("httproutes", ROUTE, GATEWAY).get("status") == {"parents": parents})
    assert said in _problem(roll_out, ConfigError)
    assert services(cluster) == TEMPLATE_ALONE


def test_several_problems_are_told_in_one_table(cluster, roll_out):
    cluster.api.remove("httproutes", ROUTE, GATEWAY)
    cluster.api.remove("servingruntimes", "tfserving", KSERVE)
    shown = roll_out(1, dry_run=True).summary()
    assert shown.count("PROBLEM") == 2 and "plan      none" in shown
    assert services(cluster) == TEMPLATE_ALONE


def test_a_damaged_history_says_which_record(cluster, roll_out):
    cluster.api.put("configmaps", {"metadata": {"name": f"{NAME}-deploys"}, "data": {"2026-1.json": "{"}})
    with pytest.raises(
        DataError, match=r"record 2026-1.json in ConfigMap school-classifier-deploys .* can't be read.*; remove"
    ):
        roll_out(1)


# Pods that don't get ready


@pytest.fixture
def time_flies(cluster, monkeypatch):
    """From when pods have been through all that becomes of them, half a minute passes at each look at the clock."""
    clock = Clock()

    def monotonic():
        if any(tick > 6 for tick in cluster.ticks.values()):
            clock.ahead_s += 30
        return Clock.monotonic(clock)

    clock.monotonic = monotonic
    monkeypatch.setattr(wait, "time", clock)


@pytest.mark.parametrize("fate", ["image once", "blocked once"])
def test_one_failed_pull_or_download_is_not_the_end(cluster, roll_out, fate):
    cluster.fates[1] = fate
    roll_out(1)
    assert cluster.weights[ROUTE] == {A: 100}


@pytest.mark.usefixtures("time_flies")
def test_events_of_an_earlier_deployment_of_the_same_name_refuse_nothing(cluster, roll_out):
    """Events are kept for an hour: longer than it takes to raise a quota and deploy again."""
    cluster.fates[1] = "no node"
    event = {
        "metadata": {"name": "event"},
        "involvedObject": {"kind": "ReplicaSet", "name": f"{A}-6b7f9c4d5"},
        "type": "Warning",
        "reason": "FailedCreate",
        "message": "exceeded quota",
        "lastTimestamp": "2020-01-01T00:00:00Z",
    }
    cluster.api.put("events", event)
    with pytest.raises(ServiceError, match="has no node"):
        roll_out(1)


def test_the_log_of_a_container_that_ends_is_in_the_message(cluster, roll_out):
    cluster.fates[1] = "crash"
    with pytest.raises(ModelError, match="its log ends:\nfirst line\nthe last line of its log"):
        roll_out(1)


@pytest.mark.usefixtures("time_flies")
@pytest.mark.parametrize(
    ("fate", "said"), [("no node", "has no node: 0/3 nodes are available"), ("never", "isn't ready after 1 m 00 s")]
)
def test_a_predictor_that_isnt_ready_in_time_ends_the_rollout_with_what_it_waits_for(cluster, roll_out, fate, said):
    cluster.fates[1] = fate
    with pytest.raises(ServiceError, match=said):
        roll_out(1)
    assert services(cluster) == TEMPLATE_ALONE


@pytest.mark.usefixtures("time_flies")
def test_events_of_a_pod_say_what_it_waits_for(cluster, roll_out):
    cluster.fates[1] = "never"
    event = {
        "metadata": {"name": "event"},
        "involvedObject": {"name": A},
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'secret "models" not found',
    }
    cluster.api.put("events", event)
    with pytest.raises(ServiceError, match='waits: FailedMount: secret "models" not found'):
        roll_out(1)


def test_ready_is_not_believed_before_the_new_model_is_behind_it(cluster, roll_out, monkeypatch):
    """The controller says Ready and UpToDate from the first moment on, as KServe does (kserve#4626, #6081)."""
    waited_for = []
    original = wait._not_rolled_out

    def seen(*arguments):
        waited_for.append(original(*arguments))
        return waited_for[-1]

    monkeypatch.setattr(wait, "_not_rolled_out", seen)
    roll_out(1)
    said_ready = [what for what in waited_for if what]
    assert said_ready and waited_for[-1] == ""


def test_somebody_who_changes_the_predictor_meanwhile_ends_the_rollout(cluster, roll_out):
    cluster.fates[1] = "never"
    original = cluster.api._get
    looks = []

    def get(request, key, body):
        answer = original(request, key, body)
        if key[3] == f"{NAME}-a":
            looks.append(key)
            if len(looks) == 4:
                cluster.api.edit(
                    "inferenceservices", f"{NAME}-a", lambda one: one["spec"]["predictor"].update(maxReplicas=1), KSERVE
                )
        return answer

    cluster.api._get = get
    with pytest.raises(ServiceError, match="somebody changed the InferenceService school-classifier-a"):
        roll_out(1)
