"""Which strategy a rollout takes: KServe's own canary only where KServe is known to make a route that it splits."""

import pytest

from sat_xception.errors import ConfigError
from tests.deploy.packages import NAME
from tests.deploy.test_native_canary import NATIVE
from tests.kserve_cluster import GATEWAY, KSERVE


@NATIVE
def test_an_endpoint_stays_with_its_strategy(cluster, roll_out):
    roll_out(1)
    with pytest.raises(ConfigError, match="is served by the strategy canary; leave --strategy out"):
        roll_out(2, strategy="two-services")


def test_a_kserve_without_the_field_is_told_for_the_strategy_that_needs_it(cluster, roll_out):
    with pytest.raises(ConfigError, match=r"this KServe has no spec\.canary"):
        roll_out(1, strategy="canary")


def chosen(roll_out, **changes):
    table = roll_out(1, dry_run=True, **changes).summary()
    return next(line for line in table.splitlines() if line.startswith("strategy"))


def make_cluster_local(cluster):
    def label(body):
        body["metadata"]["labels"]["networking.kserve.io/visibility"] = "cluster-local"

    cluster.api.edit("inferenceservices", f"{NAME}-template", label, KSERVE)


@NATIVE
def test_a_template_that_kserve_makes_no_route_for_takes_two_services(cluster, roll_out):
    assert "canary: this KServe splits traffic itself" in chosen(roll_out)
    make_cluster_local(cluster)
    assert "two-services" in chosen(roll_out) and "PROBLEM" not in chosen(roll_out)
    shown = chosen(roll_out, strategy="canary")
    assert "PROBLEM" in shown and "remove its label networking.kserve.io/visibility: cluster-local" in shown
    with pytest.raises(ConfigError, match="nothing was changed: 1 to put right"):
        roll_out(1, strategy="canary")
    assert cluster.api.names("inferenceservices", KSERVE) == [f"{NAME}-template"]


@NATIVE
@pytest.mark.parametrize(
    ("ingress", "why"),
    [
        ("{}", "enableGatewayApi"),
        ('{"enableGatewayApi": false}', "enableGatewayApi"),
        ('{"enableGatewayApi": true, "disableIngressCreation": true}', "disableIngressCreation"),
        ('{"enableGatewayApi": true, "ingressDomain": "svc.cluster.local"}', "ingressDomain"),
    ],
)
def test_a_kserve_that_makes_no_routes_takes_two_services(cluster, roll_out, ingress, why):
    settings = {"metadata": {"name": "inferenceservice-config"}, "data": {"ingress": ingress}}
    cluster.api.put("configmaps", settings, namespace="kserve")
    assert "two-services" in chosen(roll_out) and "PROBLEM" not in chosen(roll_out)
    shown = chosen(roll_out, strategy="canary")
    assert "PROBLEM" in shown and why in shown


@NATIVE
@pytest.mark.parametrize("ingress", [None, "no JSON", "[]"])
def test_a_kserve_whose_settings_cant_be_read_has_a_canary_only_where_it_is_asked_for(cluster, roll_out, ingress):
    if ingress is None:
        cluster.api.reads_kserve = False
    else:
        settings = {"metadata": {"name": "inferenceservice-config"}, "data": {"ingress": ingress}}
        cluster.api.put("configmaps", settings, namespace="kserve")
    assert "two-services" in chosen(roll_out)
    assert "canary, as asked for" in chosen(roll_out, strategy="canary")


@NATIVE
def test_the_route_of_kserve_is_among_the_checks(cluster, roll_out):
    assert f"route        ok       KServe makes {NAME} with the first version" in roll_out(1, dry_run=True).summary()
    roll_out(1)
    assert f"route        ok       {NAME}: {NAME}-v1-predictor 100 %" in roll_out(2, dry_run=True).summary()
    cluster.canary = ""  # it stops making one
    cluster.api.remove("httproutes", NAME, GATEWAY)
    assert f"PROBLEM  KServe has made no HTTPRoute {NAME}" in roll_out(2, dry_run=True).summary()
