"""Flink for bulk runs: pods of the strictest standard, ports that find each other, options that Beam has."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "manifests" / "flink"


@pytest.fixture(scope="module")
def objects():
    names = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert sorted(names) == sorted(path.name for path in FOLDER.glob("flink-*.yaml"))
    found = [yaml.safe_load((FOLDER / name).read_text()) for name in names]
    return {(item["kind"], item["metadata"]["name"]): item for item in found}


@pytest.fixture(scope="module")
def pods(objects):
    return {name: item["spec"]["template"] for (kind, name), item in objects.items() if kind == "Deployment"}


def test_the_pods_fit_the_restricted_standard_and_write_to_scratch_alone(pods):
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    for pod in pods.values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        scratch = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
        assert all(volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"] if "emptyDir" in volume)
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {kind: value.keys() for kind, value in container["resources"].items()} == {
                "requests": {"cpu", "memory"},
                "limits": {"cpu", "memory"},
            }
            writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            assert writable <= scratch


def test_services_selectors_and_probes_find_their_pods_and_ports(objects, pods):
    service = objects["Service", "flink-jobmanager"]["spec"]
    manager = pods["flink-jobmanager"]
    assert service["selector"].items() <= manager["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in manager["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports
    config = yaml.safe_load(objects["ConfigMap", "flink"]["data"]["config.yaml"])
    assert config["jobmanager"]["rpc"] == {"address": "flink-jobmanager", "port": ports["rpc"]}
    assert (config["rest"]["port"], config["blob"]["server"]["port"]) == (ports["rest"], ports["blob"])
    for name, pod in pods.items():
        assert (
            objects["Deployment", name]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        )
        for container in pod["spec"]["containers"]:
            known = {port["name"] for port in container["ports"]}
            probe = container["readinessProbe"]
            assert (probe.get("httpGet") or probe["tcpSocket"])["port"] in known


def test_the_version_and_the_worker_pool_are_those_that_beam_knows(pods):
    from apache_beam.options.pipeline_options import FlinkRunnerOptions

    flink, pool = pods["flink-taskmanager"]["spec"]["containers"]
    version = re.fullmatch(r"flink:(\d+\.\d+)-java\d+", flink["image"])[1]
    assert version in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    (port,) = (port["containerPort"] for port in pool["ports"])
    assert pool["args"] == [f"--service_port={port}"]
    docs = (ROOT / "docs" / "bulk.md").read_text()
    assert f"--beam-options=--environment_config=localhost:{port}" in docs
    assert "--beam-options=--flink_master=flink-jobmanager:8081" in docs


def test_the_options_of_every_runner_in_the_docs_are_beams():
    from sat_xception.bulk.settings import BulkPredictConfig
    from sat_xception.examples.beam import pipeline_options

    blocks = re.findall(r"sat_xception bulk predict (?:[^\n]*\\\n)*[^\n]*--runner(?:[^\n]*\\\n)*[^\n]*", _docs())
    assert len(blocks) == 3
    for block in blocks:
        runner = re.search(r"--runner (\w+)", block)[1]
        options = tuple(re.findall(r"--beam-options=(\S+)", block))
        pipeline_options(runner, options)
        BulkPredictConfig(plan="p", model="m", out="o", runner=runner, beam_options=options)


def _docs():
    return (ROOT / "docs" / "bulk.md").read_text(encoding="utf-8")
