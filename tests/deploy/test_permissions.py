"""What a rollout may do on a cluster is what it does, no more and no less."""

from pathlib import Path

import pytest
import yaml

from sat_xception.deploy.endpoint import list_deployments
from sat_xception.deploy.preflight import PERMISSIONS, PREFLIGHT_PERMISSIONS
from sat_xception.errors import ConfigError, ModelError, ServiceError
from sat_xception.steps import DeploymentsConfig
from tests.deploy.packages import NAME
from tests.kserve_cluster import KSERVE

BASE = Path(__file__).parents[2] / "manifests" / "base"
ASKED_FOR = {(verb, group, resource) for (group, resource), verbs in PERMISSIONS.items() for verb in verbs}


def test_every_permission_is_used_and_no_other(cluster, roll_out):
    roll_out(1)
    roll_out(2)
    cluster.fates[3] = "crash"
    with pytest.raises(ModelError):  # reads pods, their logs
        roll_out(3)
    cluster.fates[3] = "never"
    with pytest.raises(ServiceError):  # and their events
        roll_out(3, start_minutes=0.02)
    list_deployments(DeploymentsConfig(name=NAME, kubeconfig=cluster.kubeconfig))
    template = cluster.api.read("inferenceservices", f"{NAME}-template", KSERVE)
    cluster.api.remove("inferenceservices", f"{NAME}-template", KSERVE)
    with pytest.raises(ConfigError):  # lists what is there instead
        roll_out(3)
    cluster.api.put("inferenceservices", template, KSERVE)
    definitions = ("get", "apiextensions.k8s.io", "customresourcedefinitions")
    elsewhere = ("get", "", "configmaps")  # of KServe's namespace, if that is allowed
    assert cluster.api.asked - {definitions, elsewhere} == ASKED_FOR - {elsewhere}
    assert elsewhere in ASKED_FOR and definitions in cluster.api.asked


def rules(kind):
    files = sorted(BASE.glob("*role*.yaml")) if BASE.is_dir() else []
    objects = [one for file in files for one in yaml.safe_load_all(file.read_text()) if one]
    found = [one for one in objects if one["kind"] == kind and "sat-xception" in one["metadata"]["name"]]
    if not found:
        pytest.skip(f"no {kind} in {BASE}/*role*.yaml")
    return found


def test_the_role_of_the_manifests_allows_what_a_rollout_does():
    [role] = [one for one in rules("Role") if one["metadata"]["name"] == "sat-xception-deployer"]
    allowed = {
        (verb, group, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert allowed == ASKED_FOR


def test_the_cluster_role_of_the_manifests_allows_what_the_preflight_reads():
    [role] = [one for one in rules("ClusterRole") if one["metadata"]["name"] == "sat-xception-preflight"]
    names = {name for rule in role["rules"] for name in rule.get("resourceNames", ())}
    assert set(PREFLIGHT_PERMISSIONS) <= names
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get"}
