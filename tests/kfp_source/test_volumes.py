"""Pipelines with volumes through KFP's own driver: the pods that come of them. Skipped without $KFP_SOURCE."""

from __future__ import annotations

import pytest

from pipelines.compile import compile_spec
from sat_xception.kubeflow.volumes import using_volumes
from tests.kfp_source.cases import BULK, BULK_PARAMETERS, TRAINING, planned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # the first build takes minutes

ONE_PART = next(parts for parts, _ in BULK.values() if len(parts) == 1)
RUNS = {
    "training": {"outputs": TRAINING["defaults"][0]["outputs"]},
    "bulk-inference": {"parameters": BULK_PARAMETERS, "outputs": planned(ONE_PART)},
}


@pytest.mark.parametrize("name", RUNS)
def test_the_driver_mounts_both_claims_once_each(walk, tmp_path, name):
    with using_volumes("tiles", "nas/sat/run 1"):
        compiled = compile_spec(name, tmp_path)
    (run,) = walk(compiled, RUNS[name])
    assert run.errors() == {} and run.phase == "Succeeded"
    pods = [task["pod_spec"] for task in run.tasks.values() if "pod_spec" in task]
    mounting = 0
    for pod in pods:
        volumes = pod.get("volumes", [])
        assert len({volume["name"] for volume in volumes}) == len(volumes)
        claims = [volume["persistentVolumeClaim"] for volume in volumes if "persistentVolumeClaim" in volume]
        (container,) = pod["containers"]
        found = {mount["name"]: mount for mount in container.get("volumeMounts", ())}
        if claims:
            mounting += 1
            assert claims == [{"claimName": "tiles"}, {"claimName": "nas"}]
            assert found["tiles"] == {"name": "tiles", "mountPath": "/data"}
            assert found["nas"] == {"name": "nas", "mountPath": "/results", "subPath": "sat/run 1"}
    assert mounting == {"training": 9, "bulk-inference": 5}[name]
