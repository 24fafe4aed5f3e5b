"""Who reaches the endpoint's pods, and whom they reach, as NetworkPolicies are read by a cluster."""

import ipaddress

import pytest

POD = {"component": "predictor", "serving.kserve.io/inferenceservice": "school-classifier-a"}
DEPLOYER = {"app.kubernetes.io/component": "deploy"}
HERE = "sat-xception"


def selects(selector, labels):
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    for term in selector.get("matchExpressions", []):
        assert term["operator"] in ("Exists", "In")
        wanted &= term["key"] in labels if term["operator"] == "Exists" else labels.get(term["key"]) in term["values"]
    return wanted


def matches(peer, namespace, labels, address):
    """Tell whether a peer of a policy in our namespace is the one that is asked about."""
    if block := peer.get("ipBlock"):
        if address is None:
            return False
        ip = ipaddress.ip_address(address)
        inside = [ipaddress.ip_network(cidr) for cidr in (block["cidr"], *block.get("except", []))]
        return ip in inside[0] and not any(ip in network for network in inside[1:])
    if namespace is None:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace}):
            return False
    elif namespace != HERE:
        return False
    return selects(peer.get("podSelector", {}), labels)


@pytest.fixture
def allowed(overlay):
    """Return a function that tells whether a pod of ours may exchange packets with somebody."""
    policies = [
        item["spec"] for item in overlay if item["kind"] == "NetworkPolicy" and item["metadata"]["namespace"] == HERE
    ]

    def ask(direction, pod, port, *, namespace=None, labels=None, address=None, protocol="TCP"):
        peers, kind = {"in": ("from", "Ingress"), "out": ("to", "Egress")}[direction]
        ours = [spec for spec in policies if kind in spec["policyTypes"] and selects(spec["podSelector"], pod)]
        assert ours, "a pod that no policy selects may do anything"
        for rule in (rule for spec in ours for rule in spec.get(kind.lower(), [])):
            ports = [(entry["protocol"], entry["port"]) for entry in rule.get("ports", [])]
            if ports and (protocol, port) not in ports:
                continue
            if peers not in rule or any(matches(peer, namespace, labels or {}, address) for peer in rule[peers]):
                return True
        return False

    return ask


def test_gateway_pipelines_and_deployers_reach_both_ports(allowed):
    for port in (8080, 9000):
        assert allowed("in", POD, port, namespace="envoy-gateway-system")
        assert allowed("in", POD, port, namespace="kubeflow")
        assert allowed("in", POD, port, namespace=HERE, labels=DEPLOYER)


def test_prometheus_reaches_the_metrics_alone(allowed):
    assert allowed("in", POD, 8080, namespace="monitoring")
    assert not allowed("in", POD, 9000, namespace="monitoring")


def test_nobody_else_reaches_the_server(allowed):
    for port in (8080, 9000, 22):
        assert not allowed("in", POD, port, namespace="default")
        assert not allowed("in", POD, port, namespace=HERE, labels=POD)
        assert not allowed("in", POD, port, address="203.0.113.7")
    assert not allowed("in", POD, 22, namespace="kubeflow")


def test_the_server_reaches_names_and_buckets_and_nothing_of_the_cluster(allowed):
    for protocol in ("UDP", "TCP"):
        assert allowed("out", POD, 53, namespace="kube-system", protocol=protocol)
        assert allowed("out", POD, 53, address="169.254.20.10", protocol=protocol)
    assert allowed("out", POD, 443, address="142.250.74.123")
    assert allowed("out", POD, 443, address="2a00:1450:400a:803::201b")
    for address in ("10.96.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "fd00::1", "fe80::1"):
        assert not allowed("out", POD, 443, address=address)
    assert not allowed("out", POD, 80, address="142.250.74.123")
    assert not allowed("out", POD, 8080, namespace="kubeflow")


def test_the_nodes_metadata_server_is_reached_for_workload_identity_alone(allowed, overlay):
    identity = any("annotations" in item["metadata"] for item in overlay if item["kind"] == "ServiceAccount")
    assert allowed("out", POD, 80, address="169.254.169.254") is identity
    assert allowed("out", POD, 988, address="169.254.169.252") is identity


def test_a_deployment_reaches_kubernetes_the_endpoint_and_its_gateway(allowed):
    for port in (443, 6443):
        assert allowed("out", DEPLOYER, port, address="10.96.0.1")
    assert allowed("out", DEPLOYER, 8080, namespace=HERE, labels=POD)
    assert allowed("out", DEPLOYER, 10080, namespace="envoy-gateway-system")
    assert not allowed("out", DEPLOYER, 8080, namespace="kubeflow")
    assert not allowed("in", DEPLOYER, 8080, namespace=HERE, labels=POD)


def test_any_other_pod_of_the_namespace_is_cut_off(allowed):
    assert not allowed("in", {"app": "other"}, 80, namespace=HERE)
    assert not allowed("out", {"app": "other"}, 443, address="142.250.74.123")
