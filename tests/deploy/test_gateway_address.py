"""An endpoint whose address nobody gives is at the gateway of its HTTPRoute, by a host name of the route."""

from urllib.parse import urlsplit

import pytest

from sat_xception.deploy.deploy import deploy
from sat_xception.deploy.deployment import Deployment
from sat_xception.deploy.kserve import rollback
from sat_xception.deploy.report import deployment_markdown
from sat_xception.deploy.settings import DeployConfig, RollbackConfig
from sat_xception.errors import ConfigError, ServiceError
from tests.deploy.packages import NAME
from tests.kserve_cluster import GATEWAY

ROUTE = f"{NAME}-route"


@pytest.fixture
def put_gateway(cluster):
    """Return a function that makes the route's Gateway; by default the test's proxy is its only address."""

    def put(*, addresses=("127.0.0.1",), listeners=None, conditions=()):
        port = urlsplit(cluster.endpoint).port
        status = {"addresses": [{"value": value} for value in addresses], "conditions": list(conditions)}
        http = [{"name": "tls", "protocol": "HTTPS", "port": 443}, {"name": "web", "protocol": "HTTP", "port": port}]
        body = {"apiVersion": f"{GATEWAY}/v1", "metadata": {"name": "gateway"}, "status": status}
        cluster.api.put("gateways", {**body, "spec": {"listeners": http if listeners is None else listeners}}, GATEWAY)

    return put


def use_parents(cluster, *parents, hosts=("tiles.example.org",)):
    def change(route):
        route["spec"] |= {"parentRefs": list(parents), "hostnames": list(hosts)}

    cluster.api.edit("httproutes", ROUTE, change, GATEWAY)


def found(settings, **changes):
    """Return the row of the preflight about the endpoint."""
    table = deploy(DeployConfig(**settings(1, endpoint="", dry_run=True, **changes))).summary()
    (row,) = [line for line in table.splitlines() if line.startswith("endpoint")]
    return row


def test_a_rollout_and_a_rollback_find_it(cluster, settings, put_gateway, tmp_path):
    put_gateway()
    for version in (1, 2):
        config = DeployConfig(**settings(version, endpoint="", out=tmp_path / str(version)))
        record = deploy(config).record
    assert record.endpoint == cluster.endpoint and record.endpoint_host == "tiles.example.org"
    page = deployment_markdown(Deployment.read(tmp_path / "2"))
    assert f"curl -s -H 'Host: tiles.example.org' {cluster.endpoint}/v1/models/{NAME}/versions/2" in page
    assert f"--endpoint {cluster.endpoint} --host-header tiles.example.org" in page and "](" not in page
    given = settings(1, endpoint="")
    config = RollbackConfig(**{name: given[name] for name in RollbackConfig.model_fields.keys() & given.keys()})
    assert rollback(config).record.endpoint == cluster.endpoint


def test_an_address_that_is_given_is_used_and_the_gateway_not_read(cluster, settings, roll_out):
    cluster.api.reads_gateways = False
    assert roll_out(1).record.endpoint_host == ""
    assert ("get", GATEWAY, "gateways") not in cluster.api.asked


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        ((), "127.0.0.1:8080"),
        (("*.example.org",), f"127.0.0.1:8080 with the host name {NAME}.example.org"),
        (("*.example.org", "b.example"), "127.0.0.1:8080 with the host name b.example"),
    ],
)
def test_the_host_name_is_one_that_the_route_takes(cluster, settings, put_gateway, hosts, told):
    put_gateway(listeners=[{"name": "a", "protocol": "HTTP", "port": 8080}])
    use_parents(cluster, {"name": "gateway"}, hosts=hosts)
    assert found(settings).endswith(f"ok       http://{told}")
    assert found(settings, endpoint_host="own.example").endswith(f"ok       http://{told}")


def test_the_listener_is_the_one_that_the_route_names(cluster, settings, put_gateway):
    ports = [{"name": "a", "protocol": "HTTP", "port": 80}, {"name": "b", "protocol": "HTTP", "port": 81}]
    put_gateway(listeners=ports, addresses=["fd00::1"])
    for parent, told in (
        ({"name": "gateway"}, "http://[fd00::1] with"),
        ({"name": "gateway", "sectionName": "b"}, "http://[fd00::1]:81 with"),
        ({"name": "gateway", "port": 81}, "http://[fd00::1]:81 with"),
        ({"kind": "Service", "name": "mesh"}, "PROBLEM  HTTPRoute school-classifier-route names no Gateway; give the"),
        ({"name": "gateway", "sectionName": "c"}, "Gateway gateway in namespace sat-xception has no listener for HTTP"),
        ({"name": "other", "namespace": "kserve"}, "there is no Gateway other in namespace kserve, which HTTPRoute"),
    ):
        use_parents(cluster, parent)
        assert told in found(settings)


def test_a_gateway_without_an_address_says_why(cluster, settings, put_gateway):
    no_address = {
        "type": "Programmed",
        "status": "False",
        "reason": "AddressNotAssigned",
        "message": "no load balancer",
    }
    put_gateway(addresses=(), conditions=[no_address])
    row = found(settings)
    assert "PROBLEM" in row and "has no address (AddressNotAssigned: no load balancer): where the cluster has no" in row
    with pytest.raises(ConfigError, match="has no address"):
        deploy(DeployConfig(**settings(1, endpoint="")))
    assert cluster.api.read("inferenceservices", f"{NAME}-a", "serving.kserve.io") is None


def test_a_gateway_that_may_not_be_read_names_the_role(cluster, settings, put_gateway):
    put_gateway()
    cluster.api.reads_gateways = False
    with pytest.raises(ServiceError, match="by the ClusterRole sat-xception-preflight"):
        deploy(DeployConfig(**settings(1, endpoint="")))
