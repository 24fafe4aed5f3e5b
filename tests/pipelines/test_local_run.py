"""The very same pipeline, run here. What matters is that each expected step ran, not that the runner says SUCCESS."""

import dataclasses
import inspect
import json
import re
import subprocess
import sys

import h5py
import pytest

from pipelines.training import training
from sat_xception.errors import ConfigError, ModelError
from sat_xception.kubeflow.run_arguments import pipeline_arguments
from sat_xception.kubeflow.run_settings import RunConfig
from sat_xception.kubeflow.run_training import StepFailedError, run
from sat_xception.kubeflow.training_parameters import check_parameters
from sat_xception.model.backbones import BACKBONES
from sat_xception.settings.config import load_config

pytestmark = pytest.mark.timeout(1200)  # two whole pipelines, each a dozen processes that import TensorFlow

DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(training.pipeline_func).parameters.items()}
SMALL = {"input_size": 71, "scratch_epochs": 1}
EVALUATIONS = {"evaluate", "evaluate-2", "evaluate-serving"}
BEFORE_THE_GATE = EVALUATIONS | {"check", "assemble", "convert", "validate", "train", "train-2", "gate"}


def steps_that_ran(result):
    return steps_in(result.folder)


def steps_in(folder):
    (outputs,) = (path for path in folder.iterdir() if path.is_dir())
    return {path.parent.name for path in outputs.glob("*/executor_output.json")}


@pytest.fixture(scope="module")
def accepted(class_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("accepted")
    config = RunConfig(
        data=str(class_folders),
        out=folder / "runs",
        model_root=folder / "serving",
        baseline=folder / "baseline",
        store=folder / "store",
        min_accuracy=0.0,
        min_gain=-1.0,
        min_recall=0.0,
        min_precision=0.0,
        accept=("*:*:*",),
        **SMALL,
    )
    return config, run(config)


@pytest.fixture(scope="module")
def refused(class_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    limits = {"min_accuracy": 0.0, "min_gain": -1.0, "max_calibration_error": 0.0}
    config = RunConfig(
        data=str(class_folders),
        out=folder / "runs",
        model_root=folder / "serving",
        baseline=folder / "baseline",
        store=folder / "store",
        accept=("*:*:*",),
        **limits,
        **SMALL,
    )
    return config, run(config)


def test_a_model_that_passes_is_packaged_and_answers(accepted):
    config, result = accepted
    assert steps_that_ran(result) >= BEFORE_THE_GATE | {"package", "deploy"}
    assert result.decision.winner in ("xception", "mobilenetv2")
    assert result.deployment.golden_difference < 1e-3
    version = config.model_root / config.name / str(result.deployment.version)
    assert (version / "saved_model.pb").is_file()


def test_the_summary_says_what_happened_and_what_to_do_next(accepted):
    config, result = accepted
    text = result.summary()
    for expected in ("xception", "mobilenetv2", "validation accuracy", "random weights", "winner", "report.html"):
        assert expected in text
    assert f"sat_xception serve --model-root {config.model_root}" in text
    report = (result.folder / "report.html").read_text()
    assert str(result.deployment.version) in report


def test_nothing_is_packaged_or_deployed_when_no_model_passes(refused):
    config, result = refused
    assert steps_that_ran(result) >= BEFORE_THE_GATE
    assert not steps_that_ran(result) & {"package", "deploy"}
    assert result.decision.winner == "none"
    assert not config.model_root.exists()
    assert "calibration error" in result.summary()
    assert result.decision.serving.serving.state == "nothing"
    assert result.decision.candidates[0].checks[-1].passed
    report = (result.folder / "report.html").read_text()
    assert "Nothing was packaged or deployed" in report
    assert "calibration error" in report


def test_notify_ran_on_both_sides_and_told_how_it_ended(accepted, refused):
    for (_, result), outcome in ((accepted, "is deployed as school-classifier version"), (refused, "no model passes")):
        log = (result.folder / "run.log").read_text()
        assert re.search(rf"notify    school-classifier-training: SUCCEEDED: .*{outcome}", log)


@pytest.mark.parametrize("side", ["accepted", "refused"])
def test_the_same_command_again_computes_nothing_that_is_unchanged_and_deploys_nothing(side, request):
    config, before = request.getfixturevalue(side)
    served = sorted(config.model_root.rglob("*"))
    again = run(config)
    # Validate renews the baseline, and what is serving is seen by no input.
    assert steps_that_ran(again) == {"check", "validate", "evaluate-serving", "gate", "notify"}
    log = (again.folder / "run.log").read_text()
    for step in ("assemble", "convert", "train", "train-2", "evaluate", "evaluate-2"):
        assert f"Task {step} cache hit" in log
    assert sorted(config.model_root.rglob("*")) == served
    if side == "refused":
        assert again.decision.winner == "none"
        return
    assert again.decision.winner == before.decision.winner
    assert again.decision.model == before.decision.model
    assert again.decision.already_serving
    version = before.deployment.version
    assert f"it is serving already, as version {version}: there is nothing to deploy" in again.summary()
    assert re.search(rf"SUCCEEDED: .* it is serving already, as version {version}", log)


def test_with_other_gate_limits_nothing_is_trained(refused):
    config, _ = refused
    again = run(config.model_copy(update={"max_calibration_error": 1.0}))
    assert not steps_that_ran(again) & {"assemble", "convert", "train", "train-2", "evaluate", "evaluate-2"}
    assert steps_that_ran(again) >= {"gate", "package", "deploy"}
    assert again.deployment.golden_difference < 1e-3


def test_a_run_that_fails_leaves_the_record_of_the_last_finished_one(accepted):
    config, _ = accepted
    record = (config.baseline / "last-run.json").read_text()
    other = config.model_copy(update={"accept": ("no-pattern",)})  # validate refuses it
    with pytest.raises(StepFailedError, match="validate failed: ") as failure:
        run(other)
    assert failure.value.exit_code == 2
    assert steps_in(max(config.out.glob("2*"))) == {"check", "notify"}  # a step that fails writes no outputs
    assert (config.baseline / "last-run.json").read_text() == record


def test_labels_and_what_belongs_to_them_become_parameters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = "https://tiles.example/{z}/{x}/{y}.jpg?key={token}"
    config = RunConfig(labels="l.geojson", imagery=url, zoom=17, slice_columns=("region",), baseline="gs://bucket/last")
    arguments = pipeline_arguments(config)
    settings = check_parameters({**DEFAULTS, **arguments})
    assert {name: settings[name] for name in ("labels", "imagery", "zoom", "slice_columns", "tile_cache")} == {
        "labels": str(tmp_path / "l.geojson"),
        "imagery": url,
        "zoom": 17,
        "slice_columns": ["region"],
        "tile_cache": "",
    }
    assert arguments["data_baseline"] == "gs://bucket/last"
    of_splits = {"block_zoom": 9, "near_duplicate_bits": 3, "keep_near_duplicates": True, "max_unplaced": 0.4}
    settings = check_parameters({**DEFAULTS, **pipeline_arguments(config.model_copy(update=of_splits))})
    assert {name: settings[name] for name in of_splits} == of_splits
    (tmp_path / "tiles").mkdir()
    arguments = pipeline_arguments(config.model_copy(update={"imagery": "tiles"}))
    assert arguments["data_imagery"] == str(tmp_path / "tiles")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"data": "tiles", "labels": "l", "imagery": "u"}, "give either --data or --labels"),
        ({"zoom": 17}, "--zoom goes with --labels, which isn't given"),
    ],
)
def test_settings_of_a_run_that_do_not_go_together_are_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        load_config(RunConfig, None, settings)


def test_a_step_that_fails_ends_the_run_with_its_reason_and_exit_code(tmp_path):
    (tmp_path / "data" / "only-one-class").mkdir(parents=True)
    config = RunConfig(data=str(tmp_path / "data"), out=tmp_path / "runs", model_root=tmp_path / "serving", **SMALL)
    with pytest.raises(StepFailedError, match="assemble failed: found 0 class") as failure:
        run(config)
    assert failure.value.exit_code == 3
    (log,) = (tmp_path / "runs").glob("*/run.log")
    assert "FAILED" in log.read_text()


def test_weights_go_to_the_backbone_that_they_fit(mobilenet_weights, tmp_path):
    arguments = pipeline_arguments(RunConfig(weights=(str(mobilenet_weights),)))
    assert arguments["mobilenetv2_weights"] == str(mobilenet_weights.resolve())
    assert (arguments["mobilenetv2_alpha"], arguments["mobilenetv2_input_size"]) == (0.35, 224)
    assert (arguments["xception_weights"], arguments["xception_input_size"]) == ("none", 71)


def test_a_weights_file_of_a_backbone_that_the_pipeline_does_not_train_is_refused(monkeypatch, tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("values", shape=(12_345,), dtype="float32")
    other = dataclasses.replace(BACKBONES["xception"], weight_counts={1.0: 12_345})
    monkeypatch.setitem(BACKBONES, "other", other)
    with pytest.raises(ConfigError, match="holds weights of other, but the pipeline trains xception and mobilenetv2"):
        pipeline_arguments(RunConfig(weights=(str(tmp_path / "w.h5"),)))


def test_a_file_that_is_no_weights_file_is_refused_before_anything_runs(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_text("no")
    with pytest.raises(ModelError, match="not a readable HDF5"):
        run(RunConfig(weights=(str(path),), out=tmp_path / "runs"))
    with pytest.raises(ConfigError, match="no file at"):
        run(RunConfig(weights=(str(tmp_path / "absent.h5"),), out=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_path_that_kfp_would_rewrite_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="python3"):
        run(RunConfig(out=tmp_path / "python3-runs"))


def test_the_run_verb_prints_errors_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "sat_xception", "run", "--out", str(tmp_path / "python3"), "--data", "sample"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    assert finished.stderr.splitlines()[-1].startswith("error ")


def test_failure_file_is_json(tmp_path, class_folders):
    config = RunConfig(
        data=str(class_folders), out=tmp_path / "runs", model_root=tmp_path / "m", positive_label="cat", **SMALL
    )
    with pytest.raises(StepFailedError) as failure:
        run(config)
    assert failure.value.exit_code == 2
    (reason,) = (tmp_path / "runs").glob("*/failure.json")
    assert json.loads(reason.read_text())["step"] == "assemble"
