"""A step of the traffic through gateways that choose backends in different ways, each a real server on loopback.

Two predictors answer behind it. What the rollout draws is seeded; what the gateway draws as well.
"""

import contextlib
import random

import pytest
from aiohttp import web

from sat_xception.deploy.settings import RolloutConfig
from sat_xception.deploy.traffic_checks import Probe
from sat_xception.deploy.visitor import Visitor
from sat_xception.errors import ModelError, ServiceError
from sat_xception.serve.client import EndpointClient
from sat_xception.served_model.golden import GoldenTiles
from tests.deploy.conftest import ALL_STEPS
from tests.deploy.packages import NAME, write_package
from tests.deploy.test_rollout import load
from tests.gateways import Affinity, Late, RandomChoice, SmoothRoundRobin
from tests.kserve_cluster import GATEWAY, until
from tests.predictors import SmallPredictor

ROUTE = f"{NAME}-route"
OLD, NEW = f"{NAME}-a-predictor", f"{NAME}-b-predictor"
GATEWAYS = {
    "turns": SmoothRoundRobin,
    "chance": lambda: RandomChoice(seed=3),
    "turns, late": lambda: Late(SmoothRoundRobin(), lag_requests=30),
    "chance, late": lambda: Late(RandomChoice(seed=3), lag_requests=30),
    "kept by connection": lambda: Affinity("connection", seed=3),
    "kept by cookie": lambda: Affinity("cookie", seed=3),
}


@pytest.fixture(scope="module")
def servers(packages, tmp_path_factory):
    """Predictors of version 1, and of versions 2 that answer otherwise, alike, and like no package; their packages."""
    alike = write_package(tmp_path_factory.mktemp("alike"), 2, seed=1)
    wrong = write_package(tmp_path_factory.mktemp("wrong"), 2, seed=3)
    roots = {"old": packages / "1", "other": packages / "2", "alike": alike, "wrong": wrong}
    return {key: (SmallPredictor(root, NAME), root) for key, root in roots.items()}


@pytest.fixture(autouse=True)
def enough_rounds(fewer_rounds, monkeypatch):
    """Requests enough at each step for its share to be seen."""
    monkeypatch.setattr("sat_xception.deploy.traffic_checks._MIN_ROUNDS", 24)
    monkeypatch.setattr("sat_xception.deploy.traffic_checks._MIN_TILES", 5)


@pytest.fixture
def step(cluster, servers):
    """Return a function that gives the new version a share of the traffic and watches that."""

    def split(old, new):
        def write(route):
            refs = [{"name": name, "port": 80, "weight": weight} for name, weight in ((OLD, old), (NEW, new)) if weight]
            route["spec"]["rules"] = [{"backendRefs": refs}]

        cluster.api.edit("httproutes", ROUTE, write, GATEWAY)
        share = {name: 100 * weight / (old + new) for name, weight in ((OLD, old), (NEW, new)) if weight}
        until(lambda: cluster.weights.get(ROUTE) == share)

    def step(percent, new="other", gateway=None, before=0, becomes=None, **changes):
        (old_server, _), (new_server, root) = servers["old"], servers[new]
        cluster.servers |= {OLD: (old_server, ""), NEW: (new_server, "")}
        split(100 - before, before)
        if gateway is not None:
            cluster.use_gateway(gateway)
        split(100 - percent, percent)
        config = RolloutConfig(
            **{"name": NAME, "endpoint": cluster.endpoint, "timeout_s": 5, "max_slowdown": 0, **changes}
        )
        golden = GoldenTiles.read(root / NAME / "2")
        with contextlib.ExitStack() as stack:
            client = lambda address, **more: stack.enter_context(EndpointClient(address, NAME, **more))  # noqa: E731
            route = client(cluster.endpoint, timeout_s=5, tries_again=False, as_new_client=True)
            direct = [cluster.predictor_url.format(service=backend) for backend in (NEW, OLD)]
            one, other = client(direct[0], version=2), client(direct[1], version=1)
            visitor = stack.enter_context(Visitor(route, one, other, golden, random.Random(5)))
            cluster.servers[NEW] = (servers[becomes or new][0], "")
            return Probe(config, visitor, one, other, golden, lambda: None).watch(percent, 0)

    yield step
    cluster.servers.clear()


@pytest.mark.parametrize(
    ("gateway", "new", "percent"),
    [
        # Asked strictly in turn, a gateway of turns gives the new version no tile at 10 %, the old one none at 50 %.
        ("turns", "other", 10),
        ("turns", "alike", 10),
        ("turns", "other", 50),
        ("turns", "alike", 50),
        ("chance", "alike", 10),
        ("chance", "other", 100),
        ("turns, late", "alike", 50),
        ("turns, late", "other", 100),
        ("chance, late", "alike", 100),
        ("kept by connection", "other", 10),
        ("kept by cookie", "alike", 50),
    ],
)
def test_the_new_version_is_asked_for_enough_tiles_and_its_share_is_seen(step, gateway, new, percent):
    before = {10: 0, 50: 10, 100: 50}[percent]
    figures = step(percent, new, GATEWAYS[gateway](), before)
    assert figures.failed == 0
    assert figures.tiles_by_new >= 5
    if percent == 100:
        assert figures.by_new == 1
    else:  # half of the answers may come before a late gateway has the weights
        least = before if "late" in gateway else percent
        assert least / 100 - 0.2 <= figures.by_new <= percent / 100 + 0.2


@pytest.mark.parametrize("new", ["other", "alike"])
def test_a_gateway_that_keeps_clients_by_their_address_is_told(step, new):
    with pytest.raises(ServiceError) as caught:
        step(50, new, Affinity("address"), timeout_s=0.1)
    assert "answered 0 of" in str(caught.value) or "answered 6" in str(caught.value)
    assert "expected 50 %" in str(caught.value)
    assert "keeps clients at one backend by their address" in str(caught.value)
    assert "--traffic-steps 100" in str(caught.value)


def test_answers_of_neither_version_end_the_step(step):
    with pytest.raises(ModelError, match="answers golden tiles as neither the new nor the old version: off by 0"):
        step(50, "other", becomes="wrong")


def test_with_all_the_traffic_at_once_it_doesnt_matter_who_is_kept_where(step):
    assert step(100, "alike", Affinity("address")).by_new == 1


def test_a_gateway_that_never_takes_the_weights_is_told_after_the_time_it_has(step):
    with pytest.raises(
        ServiceError, match=r"version 2 answered 0 of \d+ requests .*expected 50 % \(answered: \d+ by version 1\)"
    ):
        step(50, "alike", Late(SmoothRoundRobin(), 3600), timeout_s=0.1)


def test_one_answer_of_the_old_version_is_too_many_once_the_new_one_has_all_the_traffic(step):
    with pytest.raises(ServiceError, match="expected 100 %"):
        step(100, "other", Late(RandomChoice(), 3600), before=90, timeout_s=0.1)


def test_a_step_without_enough_tiles_of_the_new_version_isnt_passed(step, monkeypatch):
    monkeypatch.setattr("sat_xception.deploy.traffic_checks._MIN_TILES", 100_000)
    monkeypatch.setattr("sat_xception.deploy.traffic_checks._PATIENCE_S", 0.5)
    with pytest.raises(ServiceError) as caught:
        step(10, "other", SmoothRoundRobin())
    assert "with 10 % of the traffic" in str(caught.value) and "a step needs 100000" in str(caught.value)
    assert "Begin with a larger share in --traffic-steps" in str(caught.value)


@pytest.mark.parametrize("new", ["other", "alike"])
def test_a_gateways_own_404_is_a_failed_request_and_not_an_answer_of_the_old_version(step, cluster, new):
    """Traefik answers so while it loads a route: what users get then is no answer."""
    cluster.route_faults[NEW] = lambda request: web.Response(status=404, text="404 page not found")
    with pytest.raises(ServiceError, match=r"requests to .* failed at 50 % .*404 page not found"):
        step(50, new, SmoothRoundRobin())


def test_users_are_asked_nothing_but_what_they_ask_where_answers_tell_the_versions(step, cluster):
    asked = []
    cluster.route_faults[OLD] = cluster.route_faults[NEW] = lambda request: asked.append(request.path)
    step(50, "other", SmoothRoundRobin())
    assert set(asked) == {f"/v1/models/{NAME}", f"/v1/models/{NAME}:predict"}
    asked.clear()
    step(50, "alike", SmoothRoundRobin())
    numbers = {f"/v1/models/{NAME}/versions/{number}:predict" for number in (1, 2)}
    assert set(asked) == {f"/v1/models/{NAME}", f"/v1/models/{NAME}:predict"} | numbers
    by_number = sum(path in numbers for path in asked)
    assert by_number < asked.count(f"/v1/models/{NAME}:predict") * 2


# Whole rollouts


@pytest.fixture
def alike(tmp_path):
    """Return a package of version 2 that answers as version 1 does."""
    return write_package(tmp_path / "alike", 2, seed=1)


@pytest.mark.slow
def test_two_versions_with_the_same_answers_roll_out_by_turns(cluster, roll_out, alike, monkeypatch):
    monkeypatch.setattr("sat_xception.deploy.traffic_checks._MIN_ROUNDS", 60)  # as outside of tests
    roll_out(1)
    cluster.use_gateway(SmoothRoundRobin())
    # Without other users, whose requests would change whose turn it is.
    steps = roll_out(2, package=alike, traffic_steps=ALL_STEPS).record.rollout.steps
    assert [step.percent for step in steps] == [10, 50, 100]
    assert all(step.tiles_answered_by_new >= 5 and step.failed == 0 for step in steps)
    assert cluster.weights[ROUTE] == {NEW: 100}


def test_a_gateway_that_keeps_connections_at_their_backend_splits_all_the_same(cluster, roll_out):
    roll_out(1)
    cluster.use_gateway(Affinity("connection"))
    roll_out(2)
    assert cluster.weights[ROUTE] == {NEW: 100}


@pytest.mark.slow
def test_no_user_notices_a_gateway_that_is_late(cluster, roll_out):
    roll_out(1)
    cluster.use_gateway(Late(SmoothRoundRobin(), 0.5))
    with load(cluster.endpoint) as answered:
        roll_out(2, traffic_steps=(10, 90, 100), drain_s=1)
        cluster.delays_s[OLD] = 1.0
        with pytest.raises(ModelError, match="at the 95th percentile"):
            roll_out(3, max_slowdown=2, traffic_steps=(50, 100), drain_s=1)
    assert set(answered) == {200}
    assert cluster.weights[ROUTE] == {NEW: 100}


def test_who_is_kept_by_address_can_be_moved_at_once(cluster, roll_out, alike):
    roll_out(1)
    cluster.clock.rate = 20
    cluster.use_gateway(Affinity("address"))
    with pytest.raises(ServiceError, match=r"rolled back, version 1 .*--traffic-steps 100"):
        roll_out(2, package=alike)
    roll_out(2, package=alike, traffic_steps=(100,))
    assert cluster.weights[ROUTE] == {NEW: 100}
