"""TensorBoard on a cluster: it fits the strictest pod security, reads only, and its flags are TensorBoard's own."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "manifests" / "tensorboard"


@pytest.fixture(scope="module")
def objects():
    names = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert sorted(names) == sorted(path.name for path in FOLDER.glob("*-*.yaml"))
    found = [yaml.safe_load((FOLDER / name).read_text()) for name in names]
    return {item["kind"]: item for item in found}


@pytest.fixture(scope="module")
def pod(objects):
    return objects["Deployment"]["spec"]["template"]


def test_the_pod_fits_the_restricted_standard(pod):
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    kinds = {key for volume in spec["volumes"] for key in volume if key != "name"}
    assert kinds == {"persistentVolumeClaim", "emptyDir"}


def test_nothing_but_a_scratch_folder_can_be_written(pod):
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"tmp"}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["tmp"]["emptyDir"]["sizeLimit"]
    assert volumes["logs"]["persistentVolumeClaim"]["readOnly"] is True


def test_it_has_limits_and_is_asked_whether_it_answers(pod):
    (container,) = pod["spec"]["containers"]
    for kind in ("requests", "limits"):
        assert container["resources"][kind].keys() == {"cpu", "memory"}
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


def test_the_service_finds_the_pod_and_its_port(objects, pod):
    service = objects["Service"]["spec"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert service["ports"][0]["targetPort"] == pod["spec"]["containers"][0]["ports"][0]["name"]


@pytest.mark.slow
def test_tensorboard_takes_the_flags(pod):
    (container,) = pod["spec"]["containers"]
    command = [sys.executable, *container["command"][1:], *container["args"]]
    subprocess.run([*command, "--version_tb"], check=True, capture_output=True, timeout=120)
    assert f"--port={container['ports'][0]['containerPort']}" in container["args"]
