"""The bulk pipeline: what Kubeflow gets of it, and a whole run here."""

import inspect
import json
from pathlib import Path

import mercantile
import pytest
import yaml

from components.bulk_check.component import bulk_check
from pipelines.bulk_inference import PIPELINE_NAME, bulk_inference
from sat_xception.bulk.ledger import report_status
from sat_xception.bulk.settings import BulkStatusConfig
from sat_xception.cli import main
from sat_xception.errors import ConfigError
from sat_xception.kubeflow.bulk_settings import BULK, BulkParameters
from sat_xception.kubeflow.local_runner import StepFailedError
from sat_xception.kubeflow.pipeline_settings import SETTINGS
from sat_xception.kubeflow.run_bulk import bulk_arguments, run_bulk
from sat_xception.kubeflow.run_settings import BulkRunConfig
from tests.bulk_tiles import package_version
from tests.conftest import draw_tile, encode
from tests.serving_fixtures import NAME

ZOOM, WEST, NORTH, SIDE = 18, 148_000, 93_000, 3


@pytest.fixture(scope="module")
def documents(compiled_files):
    (path,) = (path for path in compiled_files if path.name == "bulk-inference.yaml")
    return list(yaml.safe_load_all(path.read_text()))


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
    assert found["bulk-publish"]["dependentTasks"] == ["bulk-check", "bulk-predict-2"]


def test_every_task_acts_outside_and_those_that_score_are_tried_again(documents):
    found = {name: task for name, task in tasks(documents).items() if name.startswith("bulk-")}
    assert found.keys() == {"bulk-check", "bulk-plan", "bulk-predict", "bulk-predict-2", "bulk-publish"}
    assert all(not task["cachingOptions"].get("enableCache") for task in found.values())
    assert {name for name, task in found.items() if "retryPolicy" in task} == {"bulk-predict", "bulk-predict-2"}


def test_tasks_are_limited_and_run_as_nobody(documents):
    for name, executor in documents[0]["deploymentSpec"]["executors"].items():
        assert executor["container"]["resources"]["memoryLimit"], name
    for name, config in documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
        assert config["securityContext"]["runAsNonRoot"] is True, name


def test_the_signature_is_the_headlines_and_the_pipelines_own_parameters_and_settings():
    parameters = inspect.signature(bulk_inference.pipeline_func).parameters
    assert sorted(parameters) == sorted([*BULK.headlines, *BulkParameters.model_fields, SETTINGS])
    assert sorted([*parameters, "predict"]) == sorted(inspect.signature(bulk_check.python_func).parameters)
    assert PIPELINE_NAME == BULK.name
    types = {name: parameter.annotation for name, parameter in parameters.items()}
    assert types == {name: str for name in types} | {"area_zoom": int, "publish_threshold": float, "scoring_parts": int}
    for name, parameter in parameters.items():
        if name in ("imagery", "model_root", "scores"):  # as a run without them makes no sense
            assert parameter.default is inspect.Parameter.empty
        else:
            assert parameter.default == BULK.default_of(name)
    described = " ".join(inspect.getdoc(bulk_inference.pipeline_func).split())
    for name in parameters:
        assert f"{name}: {BULK.help_of(name)}" in described


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
    settings = folder / "run.yaml"
    settings.write_text("plan: {shard_tiles: 4}\npredict: {engine: tensorflow}\n")
    box = (corner.west + inset, other.south + inset, other.east - inset, corner.north - inset)
    return folder, {
        "imagery": str(folder / "imagery"),
        "bbox": ",".join(map(str, box)),
        "model_root": models,
        "name": NAME,
        "scores": folder / "scores",
        "parts": 2,
        "threshold": 0.001,
        "settings": settings,
    }


@pytest.mark.slow  # a dozen processes, half of which import TensorFlow; tests/components runs the steps in its own
@pytest.mark.timeout(900)
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


def test_settings_that_are_wrong_are_refused_by_the_flags_and_addresses_that_were_written(tmp_path):
    settings = tmp_path / "run.yaml"
    settings.write_text("plan: {shard_tiles: 0}\nimagery: {imagery_bands: [1, 2]}\npredict: {enginee: auto}\n")
    two = {"imagery": "tiles", "bbox": "1,2,3,4", "area": "area.gpkg"}
    with pytest.raises(ConfigError, match="give one of --area, --bbox, --tiles and plan"):
        bulk_arguments(BulkRunConfig(**two))
    with pytest.raises(ConfigError) as refused:
        bulk_arguments(BulkRunConfig(**two, settings=settings))
    assert "plan.shard_tiles: Input should be greater than 0; got 0" in str(refused.value)
    assert "imagery.imagery_bands takes one band" in str(refused.value)
    assert "unknown setting predict.enginee; did you mean predict.engine?" in str(refused.value)


def test_a_run_here_gives_the_pipeline_what_it_was_given_with_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("publish: {known_distance_m: 50}\nplan: {prices: p.yaml}\nimagery: {workers: 2}\n")
    config = BulkRunConfig(imagery="tiles", tiles=Path("t.csv"), known=Path("k.gpkg"), settings=Path("run.yaml"))
    arguments = bulk_arguments(config)
    texts = {task: json.loads(text) for task, text in BULK.check(arguments).items()}
    assert arguments.keys() <= inspect.signature(bulk_inference.pipeline_func).parameters.keys()
    assert texts["plan"]["tiles"] == str(tmp_path / "t.csv")
    assert texts["plan"]["prices"] == str(tmp_path / "p.yaml")
    assert texts["plan"]["model"] == texts["predict"]["model"] == str(tmp_path / "models/serving")
    assert texts["predict"]["out"] == texts["plan"]["scored_under"] == str(tmp_path / "scores")
    assert texts["publish"] == {
        "imagery": str(tmp_path / "tiles"),
        "known": str(tmp_path / "k.gpkg"),
        "known_distance_m": 50.0,
        "workers": 2,
    }
    assert {texts[task]["workers"] for task in ("plan", "predict", "publish")} == {2}


@pytest.mark.parametrize(
    ("flag", "address"),
    [
        ("--engine", "predict.engine"),
        ("--shard-tiles=4", "plan.shard_tiles"),
        ("--no-imagery-tms", "imagery.imagery_tms"),
    ],
)
def test_a_flag_that_became_a_setting_is_named_with_its_address(capsys, flag, address):
    with pytest.raises(SystemExit) as ended:
        main(["bulk", "run", "--imagery", "tiles", flag])
    assert ended.value.code == 2
    assert f"is no flag of this command any more: it is now `{address}`" in capsys.readouterr().err
