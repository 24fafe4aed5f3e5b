"""What a rollout may do on a cluster is what it does, no more and no less; tests/manifests has the Role itself."""

import pytest

from sat_xception.deploy.kserve import list_deployments
from sat_xception.deploy.preflight import PERMISSIONS
from sat_xception.deploy.settings import DeploymentsConfig
from sat_xception.errors import ConfigError, ModelError, ServiceError
from tests.deploy.packages import NAME
from tests.kserve_cluster import KSERVE

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
