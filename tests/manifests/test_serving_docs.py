"""docs/serving.md says what the manifests are."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from sat_xception.deploy.settings import DeployConfig
from tests.manifests import check
from tests.manifests.pods import violations
from tests.manifests.schemas import Schemas

TEXT = (check.ROOT.parent / "docs" / "serving.md").read_text()


def rows(heading):
    """Return the cells of the table whose first column is headed so."""
    table = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_every_folder_that_is_named_is_there():
    named = re.findall(r"-k (manifests/\S+)", TEXT)
    assert named
    assert [name for name in named if not (check.ROOT.parent / name.strip("`.") / "kustomization.yaml").is_file()] == []


def test_the_pod_that_copies_a_model_is_one_that_the_namespace_takes(tmp_path):
    pod = yaml.safe_load(re.search(r"<<'END'\n(.*?)\nEND", TEXT, re.DOTALL)[1])
    assert Schemas(tmp_path).errors(pod) == []
    assert violations(pod["spec"]) == []


def test_the_gateway_of_the_local_cluster_is_the_one_that_the_route_names(rendered):
    objects = list(yaml.safe_load_all(re.search(r"<<'GATEWAY'\n(.*?)\nGATEWAY", TEXT, re.DOTALL)[1]))
    if check.CRDS.is_dir():
        assert [item["kind"] for item in objects] == ["GatewayClass", "Gateway"]
    gateway = objects[1]["metadata"]
    [parent] = rendered("overlays/local")["HTTPRoute", "school-classifier-route"]["spec"]["parentRefs"]
    assert parent == {"name": gateway["name"], "namespace": gateway["namespace"]}


def test_the_local_deployment_has_flags_that_fit_the_manifests(rendered, tmp_path):
    command = re.search(r"^\$ sat_xception (deploy --target kserve (?:.*\\\n)*.*)", TEXT, re.MULTILINE)[1]
    words = shlex.split(command.replace("\\\n", " "))[1:]
    flags = {
        flag.removeprefix("--").replace("-", "_"): value for flag, value in zip(words[::2], words[1::2], strict=True)
    }
    config = DeployConfig(**flags)
    overlay = rendered("overlays/local")
    assert config.storage_uri == f"pvc://{overlay['PersistentVolumeClaim', 'sat-xception-models']['metadata']['name']}"
    assert config.endpoint_host in overlay["HTTPRoute", "school-classifier-route"]["spec"]["hostnames"]
    assert "/services/school-classifier-a-predictor:80/proxy" in config.predictor_url.format(
        service="school-classifier-a-predictor", namespace=config.namespace
    )


def test_the_patch_for_kserves_canary_takes_the_label_away(tmp_path):
    patch = yaml.safe_load(re.search(r"```yaml\n(patches:\n.*?)```", TEXT, re.DOTALL)[1])
    here = Path(tmp_path).resolve()
    base = "/".join([".."] * (len(here.parts) - 1)) + str(check.ROOT / "base")
    (here / "kustomization.yaml").write_text(yaml.safe_dump({"resources": [base], **patch}))
    [template] = [item for item in check.render(here) if item["kind"] == "InferenceService"]
    assert "networking.kserve.io/visibility" not in template["metadata"]["labels"]


def test_every_overlay_and_option_is_described():
    overlays = {path.name for path in check.ROOT.glob("overlays/*")}
    assert {row[0].strip("`") for row in rows("overlay")} == overlays
    options = {row[0].strip("`"): row[1] for row in rows("option in `components/`")}
    assert options.keys() == {path.name for path in check.components()}


def test_every_alert_is_described_with_its_severity(rendered):
    (group,) = rendered("overlays/prod")["PrometheusRule", "school-classifier"]["spec"]["groups"]
    described = {row[0].strip("`"): row[2] for row in rows("alert")}
    assert described == {rule["alert"]: rule["labels"]["severity"] for rule in group["rules"]}


@pytest.mark.parametrize("row", [0, 1, 2])
def test_costs_are_those_of_the_template(row, rendered):
    name, pods, each, most = rows("applied")[row]
    name = name.strip("`")
    overlay = rendered(name if name == "base" else f"overlays/{name}")
    predictor = overlay["InferenceService", "school-classifier-template"]["spec"]["predictor"]
    requests = predictor["model"]["resources"]["requests"]
    assert pods == f"{predictor['minReplicas']} to {predictor['maxReplicas']}"
    gpu = ", 1 GPU" if "nvidia.com/gpu" in requests else ""
    assert each == f"{requests['cpu']} CPUs, {requests['memory'].removesuffix('Gi')} GiB{gpu}"
    assert most.startswith(f"{2 * (predictor['maxReplicas'] + 1)} pods")
