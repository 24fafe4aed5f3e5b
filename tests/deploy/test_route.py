"""The route of a rollout: weights are shares, and what others have written stays as they have written it."""

import copy
import threading

import pytest

from sat_xception.deploy.k8s_client import connect
from sat_xception.deploy.k8s_errors import ConflictError
from sat_xception.deploy.traffic import await_route, read_weights, remove_backend, split_traffic
from sat_xception.errors import ConfigError, ServiceError
from tests.deploy.packages import NAME
from tests.kserve_cluster import GATEWAY, KSERVE
from tests.kubernetes_api import DEFAULT_RULES, KubernetesApi

ROUTE = f"{NAME}-route"
A, B = f"{NAME}-a-predictor", f"{NAME}-b-predictor"
EVERYTHING = DEFAULT_RULES[0]["matches"]
HEALTH = {
    "matches": [{"path": {"type": "Exact", "value": "/healthz"}}],
    "backendRefs": [{"name": "health", "port": 80}],
    "timeouts": {"request": "2s"},
}


def rule(**weights):
    """Return a rule for everything; a weight of None isn't written."""
    refs = [
        {"name": name, "port": 80, **({} if weight is None else {"weight": weight})} for name, weight in weights.items()
    ]
    return {"matches": copy.deepcopy(EVERYTHING), "backendRefs": refs}


class Route:
    """An HTTPRoute on an API server without any controller."""

    def __init__(self, api, cluster):
        self.api, self.cluster = api, cluster

    def write(self, *rules, manager="kubectl-edit"):
        body = {"metadata": {"name": "r"}, "spec": {"parentRefs": [{"name": "gateway"}], "rules": list(rules)}}
        parents = [{"conditions": [{"type": kind, "status": "True"} for kind in ("Accepted", "ResolvedRefs")]}]
        self.api.put("httproutes", {**body, "status": {"parents": parents}}, GATEWAY, manager=manager)
        return self

    @property
    def rules(self):
        return self.api.read("httproutes", "r", GATEWAY)["spec"]["rules"]

    def split(self, force=False, **weights):
        split_traffic(self.cluster, "r", weights, 0, force)


@pytest.fixture
def route(tmp_path):
    class Settings:
        namespace, context = "sat-xception", ""

    with KubernetesApi() as api:
        Settings.kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig")
        with connect(Settings()) as cluster:
            yield Route(api, cluster)


# Shares


@pytest.mark.parametrize(
    ("rules", "shares"),
    [
        ([rule(a=1)], {"a": 100}),
        ([rule(a=7)], {"a": 100}),
        ([rule(a=None)], {"a": 100}),
        ([rule(a=None, b=None)], {"a": 50, "b": 50}),
        ([rule(a=None, b=3)], {"a": 25, "b": 75}),
        ([rule(a=900_000, b=100_000)], {"a": 90, "b": 10}),
        ([rule(a=1, b=0)], {"a": 100}),
        ([rule(a=0, b=0)], {}),
        ([rule(a=1, b=2)], {"a": 100 / 3, "b": 200 / 3}),
        ([rule(a=1), rule(a=1, b=1)], {"a": 100, "b": 50}),
        ([{"matches": EVERYTHING}], {}),
        ([], {}),
    ],
)
def test_weights_are_read_as_shares(rules, shares):
    assert read_weights({"spec": {"rules": rules}}) == pytest.approx(shares)


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ([rule(a=None)], {"a": 100}),
        ([rule(a=1)], {"a": 100}),
        ([rule(a=1, b=0)], {"a": 100}),
        ([rule(a=9, b=1)], {"a": 90, "b": 10}),
        ([rule(a=1, b=2)], {"a": 33.333, "b": 66.667}),
        ([rule(a=9, b=1), rule(a=9, b=1)], {"a": 90, "b": 10}),
        ([HEALTH, rule(a=1)], {"a": 100}),
        ([rule(a=1, other=1)], {"a": 100}),
    ],
)
def test_a_route_is_taken_whose_shares_are_right_whatever_its_weights_are(route, rules, wanted):
    route.write(*rules)
    await_route(route.cluster, "r", wanted, 0)


@pytest.mark.parametrize(
    ("rules", "wanted", "found"),
    [
        ([rule(a=1)], {"a": 90, "b": 10}, r"it splits \{'a': 100\}, not"),
        ([rule(a=1, b=1)], {"a": 90, "b": 10}, r"it splits \{'a': 50, 'b': 50\}, not"),
        # KServe's rule for gRPC beside that for REST: one of them isn't enough.
        ([rule(a=1), rule(a=9, b=1)], {"a": 90, "b": 10}, r"it splits \{'a': 100\}, not"),
        ([rule(a=1)], {"a": 0, "b": 100}, r"it splits \{'a': 100\}, not \{'b': 100\}"),
        ([HEALTH], {"a": 100}, "it splits nothing, not"),
    ],
)
def test_a_route_whose_shares_are_others_isnt_taken(route, rules, wanted, found):
    route.write(*rules)
    with pytest.raises(ServiceError, match=found):
        await_route(route.cluster, "r", wanted, 0)


def test_a_route_that_kserve_hasnt_made_yet_is_waited_for_where_it_may_come(route):
    for may_come in (False, True):
        with pytest.raises(ConfigError, match=r"the HTTPRoute r is gone .* apply the manifests"):
            await_route(route.cluster, "r", {"a": 100}, 0, may_come)
    coming = threading.Timer(0.3, route.write, [rule(a=1)])
    coming.start()
    await_route(route.cluster, "r", {"a": 100}, 20, may_come=True)
    coming.join()


# Rules of others


def test_the_first_split_takes_the_place_of_the_default_and_leaves_rules_of_others(route):
    route.write(copy.deepcopy(DEFAULT_RULES[0]), HEALTH, manager="kubectl")
    with pytest.raises(ConflictError):
        route.split(a=100, b=0)
    route.split(a=100, b=0, force=True)
    health, ours = route.rules
    assert health["matches"] == HEALTH["matches"] and health["timeouts"] == HEALTH["timeouts"]
    assert ours["matches"] == EVERYTHING and [(ref["name"], ref["port"]) for ref in ours["backendRefs"]] == [("a", 80)]


def test_the_default_alone_is_nobodys(route):
    route.write(copy.deepcopy(DEFAULT_RULES[0]), manager="kubectl")
    route.split(a=100, b=0)
    assert [ref["name"] for ref in route.rules[0]["backendRefs"]] == ["a"] and len(route.rules) == 1


def test_every_rule_that_sends_to_the_endpoint_is_split_and_keeps_what_else_it_says(route):
    special = {**rule(a=1), "filters": [{"type": "RequestMirror"}], "timeouts": {"request": "9s"}}
    special["matches"] = [{"path": {"type": "PathPrefix", "value": "/special"}}]
    special["backendRefs"][0]["port"] = 9000
    route.write(special, HEALTH, rule(a=1))
    route.split(force=True, a=90, b=10)
    first, health, last = route.rules
    assert [(ref["name"], ref["port"], ref["weight"]) for ref in first["backendRefs"]] == [
        ("a", 9000, 90),
        ("b", 9000, 10),
    ]
    assert (first["filters"], first["timeouts"]) == (special["filters"], special["timeouts"])
    assert [ref["name"] for ref in health["backendRefs"]] == ["health"]
    assert [(ref["name"], ref["weight"]) for ref in last["backendRefs"]] == [("a", 90), ("b", 10)]


def test_a_route_that_is_split_right_isnt_written(route):
    before = route.write(rule(a=9, b=1)).api.read("httproutes", "r", GATEWAY)
    route.split(a=90, b=10)
    route.split(a=90, b=10, force=True)
    assert route.api.read("httproutes", "r", GATEWAY) == before


def test_a_rule_that_is_added_while_the_route_is_written_stays(route):
    route.write(rule(a=1))
    read, times = route.api._get, []

    def get(request, key, body):
        found = read(request, key, body)
        times.append(key)
        if len(times) == 1:  # between the read and the write
            route.api.edit("httproutes", "r", lambda body: body["spec"]["rules"].append(HEALTH), GATEWAY)
        return found

    route.api._get = get
    route.split(force=True, a=90, b=10)
    assert [[ref["name"] for ref in one["backendRefs"]] for one in route.rules] == [["a", "b"], ["health"]]


def test_what_is_taken_out_leaves_rules_of_others(route):
    route.write(manager="kubectl")
    route.split(a=100, b=0)
    route.api.edit("httproutes", "r", lambda body: body["spec"]["rules"].append(HEALTH), GATEWAY)
    remove_backend(route.cluster, "r", "a")
    assert [[ref["name"] for ref in one["backendRefs"]] for one in route.rules] == [["health"]]
    remove_backend(route.cluster, "r", "a")
    assert [[ref["name"] for ref in one["backendRefs"]] for one in route.rules] == [["health"]]


@pytest.mark.parametrize("owner", ["sat-xception-deploy", "kubectl-edit"])
def test_without_any_rule_the_route_is_as_the_manifests_made_it_whoever_wrote_the_last_one(route, owner):
    route.write(rule(a=1), manager=owner)
    for _ in range(2):
        remove_backend(route.cluster, "r", "a")
        assert route.rules == DEFAULT_RULES
        assert ("spec", "rules") not in route.api.owners[GATEWAY, "httproutes", "sat-xception", "r"]


def test_a_route_that_is_gone_is_told(route):
    for change in (lambda: route.split(a=100), lambda: remove_backend(route.cluster, "r", "a")):
        with pytest.raises(ConfigError, match=r"the HTTPRoute r is gone .* apply the manifests"):
            change()


# The way back


def add_health(cluster):
    """Add a rule and its Service, as somebody does who has nothing to do with rollouts."""
    cluster.api.put("services", {"metadata": {"name": "health"}, "spec": {"ports": [{"port": 80}]}})
    edit(cluster, lambda rules: rules.append(copy.deepcopy(HEALTH)))


def edit(cluster, change):
    cluster.api.edit("httproutes", ROUTE, lambda body: change(body["spec"]["rules"]), GATEWAY)


def names(cluster):
    rules = cluster.api.read("httproutes", ROUTE, GATEWAY)["spec"]["rules"]
    return [sorted(ref["name"] for ref in one.get("backendRefs", ())) for one in rules]


def owners(cluster):
    return cluster.api.owners[GATEWAY, "httproutes", "sat-xception", ROUTE]["spec", "rules"]


def test_the_way_back_leaves_a_route_alone_that_the_rollout_never_changed(cluster, roll_out):
    roll_out(1)
    add_health(cluster)
    before = cluster.api.read("httproutes", ROUTE, GATEWAY)
    cluster.fates[2] = "crash"
    with pytest.raises(Exception, match="rolled back, version 1 has all the traffic again"):
        roll_out(2, force_conflicts=True)  # or the checks would have refused it: the rules are somebody else's
    after = cluster.api.read("httproutes", ROUTE, GATEWAY)
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])
    assert owners(cluster) == {"kubectl-edit"}


def test_a_route_that_others_own_is_left_to_them_when_the_rollout_is_refused(cluster, roll_out):
    roll_out(1)
    add_health(cluster)
    with pytest.raises(ConfigError, match=r"\.spec\.rules \(conflict with \"kubectl-edit\".*--force-conflicts"):
        roll_out(2)
    assert names(cluster) == [[A], ["health"]] and owners(cluster) == {"kubectl-edit"}
    roll_out(2, force_conflicts=True)
    assert names(cluster) == [[B], ["health"]]


def test_the_way_back_takes_back_its_own_split_and_no_rule_that_came_meanwhile(cluster, roll_out):
    roll_out(1)
    cluster.delays_s[B] = 1.0
    added = []

    def add_a_rule(request):
        if not added:
            added.append(add_health(cluster))

    cluster.route_faults[B] = add_a_rule
    with pytest.raises(Exception, match="rolled back, version 1 has all the traffic again"):
        roll_out(2, max_slowdown=2)
    assert names(cluster) == [[A], ["health"]]
    assert f"{NAME}-b" not in cluster.api.names("inferenceservices", KSERVE)


def test_the_way_back_from_a_first_version_removes_its_own_rule_alone(cluster, roll_out):
    cluster.clock.rate, take = 20, cluster._take_route

    def take_and_add(name):
        if names(cluster) == [[A]]:
            add_health(cluster)
        take(name)

    for hook, left in ((take, []), (take_and_add, ["health"])):
        cluster._take_route = hook
        with pytest.raises(ServiceError, match="nothing answers, as before"):
            roll_out(1, endpoint_host="other.example.org")
        assert names(cluster) == [left]
