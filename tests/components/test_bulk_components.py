"""Components of the compiled bulk pipeline, run by kfp's own executor on what the real driver and launcher write."""

import inspect
import json

import pytest
from google.protobuf import json_format

from pipelines.bulk_inference import bulk_inference
from sat_xception.bulk.ledger import report_status
from sat_xception.bulk.settings import BulkStatusConfig
from tests.bulk_tiles import ZOOM, package_version, write_imagery
from tests.components.launcher import Launcher
from tests.serving_fixtures import NAME


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    monkeypatch.setattr("sat_xception.bulk.measure._MEASURE_S", 0.2)
    return Launcher(json_format.MessageToDict(bulk_inference.pipeline_spec), tmp_path, monkeypatch)


@pytest.fixture
def parameters(tmp_path):
    """Parameters of the pipeline for ten tiles of a drawn archive, one of which is no image."""
    ids = write_imagery(tmp_path / "imagery.mbtiles", 10, bad={3: b"no image"})
    (tmp_path / "tiles.txt").write_text("\n".join(ids))
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(bulk_inference.pipeline_func).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    models = package_version(tmp_path / "models")
    return defaults | {
        "imagery": str(tmp_path / "imagery.mbtiles"),
        "model_root": str(models),
        "model_name": NAME,
        "scores": str(tmp_path / "scores"),
        "area_tiles": str(tmp_path / "tiles.txt"),
        "area_zoom": ZOOM,
        "scoring_parts": 2,
        "settings": "plan: {shard_tiles: 4}\npredict: {engine: tensorflow}\npublish: {threshold: 0.001}",
    }


def test_the_components_plan_score_and_publish(launcher, parameters):
    made = launcher.outputs
    checked = launcher.run("bulk-check", **parameters)
    parts = launcher.run("bulk-plan", settings=checked["plan"], parts=parameters["scoring_parts"])["Output"]
    assert parts == ["1/2", "2/2"]
    scoring = {"settings": made["bulk-check/predict"], "plan": made["bulk-plan/plan"]}
    folders = {launcher.run("bulk-predict", in_group=True, part=part, after=[], **scoring)["Output"] for part in parts}
    scores = launcher.run("bulk-predict", part="", after=[*folders], **scoring)["Output"]
    assert folders == {scores}
    status = report_status(BulkStatusConfig(scores=scores))
    assert (status.planned, status.scored, status.failed, status.closed) == (10, 9, 1, True)
    launcher.run("bulk-publish", settings=checked["publish"], scores=scores)
    assert made["bulk-publish/report"].path.read_text().startswith("<!doctype html>")
    assert (made["bulk-publish/publication"].path / "review" / "index.html").is_file()


def test_on_a_cluster_scores_on_the_pods_own_disk_are_refused_before_anything_is_read(
    launcher, parameters, tmp_path, monkeypatch
):
    monkeypatch.setenv("SAT_XCEPTION_TERMINATION_LOG", str(tmp_path / "reason.json"))
    monkeypatch.setenv("KFP_POD_NAME", "run-1-system-container-impl-1")
    with pytest.raises(SystemExit) as ended:
        launcher.run("bulk-check", **parameters)
    assert ended.value.code == 2
    reason = json.loads((tmp_path / "reason.json").read_text())["error"]
    assert f"scores: {parameters['scores']!r} is lost with its pod; give an address in a bucket" in reason
    assert f"model_root: {parameters['model_root']!r} is lost with its pod" in reason  # though it is there
