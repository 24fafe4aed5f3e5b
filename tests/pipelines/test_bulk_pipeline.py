"""The bulk pipeline: what Kubeflow gets of it, and a whole run here."""

import inspect
import json
import re

import mercantile
import pytest
import yaml

from pipelines.bulk_inference import bulk_inference
from pipelines.compile import compile_pipelines
from sat_xception.bulk.ledger import report_status
from sat_xception.bulk.settings import BulkStatusConfig
from sat_xception.kubeflow.local_runner import StepFailedError
from sat_xception.kubeflow.run_bulk import pipeline_arguments, run_bulk
from sat_xception.kubeflow.run_settings import BulkRunConfig
from tests.bulk_tiles import package_version
from tests.conftest import draw_tile, encode
from tests.serving_fixtures import NAME

ZOOM, WEST, NORTH, SIDE = 18, 148_000, 93_000, 3


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    paths = {path.name: path for path in compile_pipelines(tmp_path_factory.mktemp("compiled"))}
    return list(yaml.safe_load_all(paths["bulk-inference.yaml"].read_text()))


def tasks(documents):
    parts = [documents[0]["root"], *documents[0]["components"].values()]
    return {name: task for part in parts for name, task in part.get("dag", {}).get("tasks", {}).items()}


def test_parts_are_scored_side_by_side_and_the_ledger_is_closed_after_all_of_them(documents):
    found = tasks(documents)
    loop = next(task for task in found.values() if "parameterIterator" in task)
    items = json.dumps(loop["inputs"]["parameters"][loop["parameterIterator"]["items"]["inputParameter"]])
    assert "bulk-plan" in items
    closing = found["bulk-predict-2"]
    assert closing["inputs"]["parameters"]["part"] == {"runtimeValue": {"constant": ""}}
    assert loop["taskInfo"]["name"] in closing["dependentTasks"] or any(
        name.startswith("for-loop") for name in closing["dependentTasks"]
    )
    assert found["bulk-publish"]["dependentTasks"] == ["bulk-predict-2"]


def test_every_task_acts_outside_and_those_that_score_are_tried_again(documents):
    found = {name: task for name, task in tasks(documents).items() if name.startswith("bulk-")}
    assert found.keys() == {"bulk-plan", "bulk-predict", "bulk-predict-2", "bulk-publish"}
    assert all(not task["cachingOptions"].get("enableCache") for task in found.values())
    assert {name for name, task in found.items() if "retryPolicy" in task} == {"bulk-predict", "bulk-predict-2"}


def test_tasks_are_limited_and_run_as_nobody(documents):
    for name, executor in documents[0]["deploymentSpec"]["executors"].items():
        assert executor["container"]["resources"]["memoryLimit"], name
    for name, config in documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
        assert config["securityContext"]["runAsNonRoot"] is True, name


def test_every_parameter_is_described_and_given_by_a_run_here():
    parameters = inspect.signature(bulk_inference.pipeline_func).parameters
    described = inspect.getdoc(bulk_inference.pipeline_func)
    config = BulkRunConfig(imagery="tiles", bbox="1,2,3,4")
    assert all(re.search(rf"^ *{name}: ", described, re.MULTILINE) for name in parameters)
    given = pipeline_arguments(config)
    assert given.keys() == parameters.keys()
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    here = {"imagery", "model_root", "scores", "area_bbox", "scoring_parts"}
    assert {name: given[name] for name in given if name not in here} == {
        name: value for name, value in defaults.items() if name not in here
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Imagery, a model, and what a run is told of them."""
    folder = tmp_path_factory.mktemp("world")
    for x in range(WEST, WEST + SIDE):
        for y in range(NORTH, NORTH + SIDE):
            path = folder / "imagery" / str(ZOOM) / str(x) / f"{y}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(draw_tile("school" if (x + y) % 2 else "not", x * 7 + y), quality=90))
    (folder / "imagery" / str(ZOOM) / str(WEST) / f"{NORTH}.jpg").write_bytes(b"no image")
    models = package_version(folder / "models")
    corner, other = mercantile.bounds(WEST, NORTH, ZOOM), mercantile.bounds(WEST + SIDE - 1, NORTH + SIDE - 1, ZOOM)
    inset = 1e-6
    box = (corner.west + inset, other.south + inset, other.east - inset, corner.north - inset)
    return folder, {
        "imagery": str(folder / "imagery"),
        "bbox": ",".join(map(str, box)),
        "model_root": models,
        "name": NAME,
        "scores": folder / "scores",
        "shard_tiles": 4,
        "parts": 2,
        "threshold": 0.001,
        "engine": "tensorflow",
    }


@pytest.mark.timeout(900)  # a dozen processes, half of which import TensorFlow
def test_an_area_becomes_a_map_to_review_and_is_not_scored_twice(world):
    folder, settings = world
    result = run_bulk(BulkRunConfig(out=folder / "runs", **settings))
    (scores,) = (folder / "scores").iterdir()
    status = report_status(BulkStatusConfig(scores=scores))
    assert (status.planned, status.scored, status.failed, status.closed) == (9, 8, 1, True)
    assert (result.published / "review" / "index.html").is_file()
    assert "1 failed" in (folder / "runs" / result.folder.name / "run.log").read_text()
    assert f"sat_xception review {result.published}" in result.summary()
    before = {path: path.stat().st_mtime_ns for path in (folder / "scores").rglob("*.parquet")}
    again = run_bulk(BulkRunConfig(out=folder / "again", **{**settings, "parts": 1}))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # What failed is tried anew; what was scored isn't.
    (other,) = (path for path in (folder / "scores").iterdir() if path != scores)
    assert report_status(BulkStatusConfig(scores=other)).planned == 1
    assert again.folder != result.folder


def test_a_step_that_fails_ends_the_run_with_its_reason_and_exit_code(world, tmp_path):
    _, settings = world
    with pytest.raises(StepFailedError, match="step bulk_plan failed: no packaged model at") as failed:
        run_bulk(BulkRunConfig(out=tmp_path / "runs", **{**settings, "model_root": tmp_path / "none"}))
    assert failed.value.exit_code == 2


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="give one of --area, --bbox and --tiles"):
        BulkRunConfig(imagery="tiles", bbox="1,2,3,4", area="area.gpkg")
