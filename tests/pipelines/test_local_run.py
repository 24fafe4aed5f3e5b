"""The very same pipeline, run here. What matters is that each expected step ran, not that the runner says SUCCESS."""

import json
import subprocess
import sys

import pytest

from pipelines.local import RunConfig, StepFailedError, run
from sat_xception.errors import ConfigError, ModelError

pytestmark = pytest.mark.timeout(1200)  # two whole pipelines, each a dozen processes that import TensorFlow

SMALL = {"input_size": 71, "scratch_epochs": 1}
BEFORE_THE_GATE = {"assemble", "convert", "validate", "train", "train-2", "evaluate", "evaluate-2", "gate"}


def steps_that_ran(result):
    (outputs,) = (path for path in result.folder.iterdir() if path.is_dir())
    return {path.parent.name for path in outputs.glob("*/executor_output.json")}


@pytest.fixture(scope="module")
def accepted(class_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("accepted")
    config = RunConfig(
        data=str(class_folders),
        out=folder / "runs",
        model_root=folder / "serving",
        min_accuracy=0.0,
        accept=("*:*:*",),
        **SMALL,
    )
    return config, run(config)


@pytest.fixture(scope="module")
def refused(class_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    limits = {"min_accuracy": 0.0, "max_calibration_error": 0.0}
    config = RunConfig(
        data=str(class_folders),
        out=folder / "runs",
        model_root=folder / "serving",
        accept=("*:*:*",),
        **limits,
        **SMALL,
    )
    return config, run(config)


def test_a_model_that_passes_is_packaged_and_answers(accepted):
    config, result = accepted
    assert steps_that_ran(result) >= BEFORE_THE_GATE | {"package", "deploy"}
    assert result.decision["winner"] in ("xception", "mobilenetv2")
    assert result.deployment["golden_difference"] < 1e-3
    version = config.model_root / config.name / str(result.deployment["version"])
    assert (version / "saved_model.pb").is_file()


def test_the_summary_says_what_happened_and_what_to_do_next(accepted):
    config, result = accepted
    text = result.summary()
    for expected in ("xception", "mobilenetv2", "validation accuracy", "random weights", "winner", "report.html"):
        assert expected in text
    assert f"sat_xception serve --model-root {config.model_root}" in text
    report = (result.folder / "report.html").read_text()
    assert str(result.deployment["version"]) in report


def test_nothing_is_packaged_or_deployed_when_no_model_passes(refused):
    config, result = refused
    assert steps_that_ran(result) >= BEFORE_THE_GATE
    assert not steps_that_ran(result) & {"package", "deploy"}
    assert result.decision["winner"] == "none"
    assert not config.model_root.exists()
    assert "calibration error" in result.summary()
    report = (result.folder / "report.html").read_text()
    assert "Nothing was packaged or deployed" in report
    assert "calibration error" in report


def test_notify_ran_on_both_sides(accepted, refused):
    for _, result in (accepted, refused):
        assert "notify    school-classifier-training: SUCCEEDED" in (result.folder / "run.log").read_text()


def test_a_step_that_fails_ends_the_run_with_its_reason_and_exit_code(tmp_path):
    (tmp_path / "data" / "only-one-class").mkdir(parents=True)
    config = RunConfig(data=str(tmp_path / "data"), out=tmp_path / "runs", model_root=tmp_path / "serving", **SMALL)
    with pytest.raises(StepFailedError, match="assemble failed: found 0 class") as failure:
        run(config)
    assert failure.value.exit_code == 3
    (log,) = (tmp_path / "runs").glob("*/run.log")
    assert "FAILED" in log.read_text()


def test_weights_go_to_the_backbone_that_they_fit(mobilenet_weights, tmp_path):
    from pipelines.local import pipeline_arguments

    arguments = pipeline_arguments(RunConfig(weights=(str(mobilenet_weights),)))
    assert arguments["mobilenetv2_weights"] == str(mobilenet_weights.resolve())
    assert (arguments["mobilenetv2_alpha"], arguments["mobilenetv2_input_size"]) == (0.35, 224)
    assert (arguments["xception_weights"], arguments["xception_input_size"]) == ("none", 71)


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
