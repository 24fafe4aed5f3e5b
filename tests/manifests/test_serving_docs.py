"""docs/serving.md says what the manifests are."""

import re

import pytest
import yaml

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
