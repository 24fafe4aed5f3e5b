"""The very same pipeline, run here. What matters is that each expected step ran, not that the runner says SUCCESS."""

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import yaml

from sat_xception.cli import main
from sat_xception.errors import ConfigError, ModelError
from sat_xception.kubeflow.run_arguments import run_arguments
from sat_xception.kubeflow.run_settings import RunConfig
from sat_xception.kubeflow.run_training import StepFailedError, run
from sat_xception.kubeflow.training_settings import LOCAL_ROOT, TRAINING
from sat_xception.model.backbones import BACKBONES
from sat_xception.settings.config import load_config

pytestmark = pytest.mark.timeout(1200)  # a whole pipeline is a dozen processes, half of which import TensorFlow

ROOT = Path(__file__).parents[2]
# On the path of a Python process, it replaces the backbones by networks of a few weights.
SMALL_BACKBONES = Path(__file__).parent / "small_backbones"

SMALL = {"input_size": 71, "scratch_epochs": 1}
EVALUATIONS = {"evaluate", "evaluate-2", "evaluate-serving"}
BEFORE_THE_GATE = EVALUATIONS | {"check", "assemble", "convert", "validate", "train", "train-2", "gate"}


def settings_file(folder, **sections):
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"validate": {"accept": ["*:*:*"]}, **sections}))
    return path


def steps_that_ran(result):
    return steps_in(result.folder)


def steps_in(folder):
    (outputs,) = (path for path in folder.iterdir() if path.is_dir())
    return {path.parent.name for path in outputs.glob("*/executor_output.json")}


def run_config(data, folder, **settings):
    """Return the settings of a run that keeps everything below a folder."""
    places = {name: folder / name for name in ("model_root", "baseline", "store")}
    return RunConfig(data=str(data), out=folder / "runs", **places, **SMALL, **settings)


def log_of(result):
    return (result.folder / "run.log").read_text()


def test_a_model_that_passes_is_packaged_and_answers(class_folders, tmp_path, monkeypatch):
    """The one whole run among the quick tests, with networks of a few weights."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (SMALL_BACKBONES, ROOT))))
    settings = settings_file(tmp_path, gate={"min_gain": -1})
    config = run_config(class_folders, tmp_path, settings=settings, min_accuracy=0.0, min_recall=0.0, min_precision=0.0)
    result = run(config)
    assert steps_that_ran(result) >= BEFORE_THE_GATE | {"package", "deploy"}
    assert result.decision.winner in ("xception", "mobilenetv2")
    assert result.deployment.golden_difference < 1e-3
    version = config.model_root / config.name / str(result.deployment.version)
    assert (version / "saved_model.pb").is_file()
    # No step had a network of millions of weights.
    assert (version / "variables" / "variables.data-00000-of-00001").stat().st_size < 100_000
    # The summary lists what happened and what to do next.
    text = result.summary()
    for expected in ("xception", "mobilenetv2", "validation accuracy", "random weights", "winner", "report.html"):
        assert expected in text
    assert f"sat_xception serve --model-root {config.model_root}" in text
    assert str(result.deployment.version) in (result.folder / "report.html").read_text()
    outcome = "is deployed as school-classifier version"
    assert re.search(rf"notify    school-classifier-training: SUCCEEDED: .*{outcome}", log_of(result))


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_runs_with_the_real_networks_share_what_is_unchanged(class_folders, tmp_path):
    """One whole run that no model passes, and others after it: with other limits, the same again, one that fails."""
    limits = {"min_accuracy": 0.0, "min_gain": -1.0}
    config = run_config(
        class_folders, tmp_path, settings=settings_file(tmp_path, gate=limits | {"max_calibration_error": 0.0})
    )
    check_that_nothing_is_packaged_or_deployed(config, run(config))
    (tmp_path / "other").mkdir()
    accepting = config.model_copy(update={"settings": settings_file(tmp_path / "other", gate=limits)})
    deployed = run(accepting)
    assert not steps_that_ran(deployed) & {"assemble", "convert", "train", "train-2", "evaluate", "evaluate-2"}
    assert steps_that_ran(deployed) >= {"gate", "package", "deploy"}
    assert deployed.deployment.golden_difference < 1e-3
    assert run_again(config).decision.winner == "none"
    check_that_it_is_serving_already(deployed, run_again(accepting))
    check_that_a_failed_run_leaves_the_record_of_the_last_one(config, tmp_path / "failing")


def check_that_nothing_is_packaged_or_deployed(config, result):
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
    assert re.search(r"notify    school-classifier-training: SUCCEEDED: .*no model passes", log_of(result))


def run_again(config):
    """Run the same command again, and check that it computes nothing that is unchanged and deploys nothing."""
    served = sorted(config.model_root.rglob("*"))
    again = run(config)
    # Validate renews the baseline, and what is serving is seen by no input.
    assert steps_that_ran(again) == {"check", "validate", "evaluate-serving", "gate", "notify"}
    for step in ("assemble", "convert", "train", "train-2", "evaluate", "evaluate-2"):
        assert f"Task {step} cache hit" in log_of(again)
    assert sorted(config.model_root.rglob("*")) == served
    return again


def check_that_it_is_serving_already(before, again):
    assert again.decision.winner == before.decision.winner
    assert again.decision.model == before.decision.model
    assert again.decision.already_serving
    version = before.deployment.version
    assert f"it is serving already, as version {version}: there is nothing to deploy" in again.summary()
    assert re.search(rf"SUCCEEDED: .* it is serving already, as version {version}", log_of(again))


def check_that_a_failed_run_leaves_the_record_of_the_last_one(config, folder):
    record = (config.baseline / "last-run.json").read_text()
    folder.mkdir()
    settings = settings_file(folder, validate={"accept": ["no-pattern"]})  # validate refuses it
    with pytest.raises(StepFailedError, match="validate failed: ") as failure:
        run(config.model_copy(update={"settings": settings}))
    assert failure.value.exit_code == 2
    assert steps_in(max(config.out.glob("2*"))) == {"check", "notify"}  # a step that fails writes no outputs
    assert (config.baseline / "last-run.json").read_text() == record


def checked(**settings):
    """Return the settings of every task of a run, as its first task returns them."""
    texts = TRAINING.check(run_arguments(RunConfig(**settings)).for_pipeline())
    return {task: json.loads(text) for task, text in texts.items()}


def test_labels_and_what_belongs_to_them_become_settings_with_whole_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = "https://tiles.example/{z}/{x}/{y}.jpg?key={token}"
    more = {
        "slice_columns": ["region"],
        "negatives_within": "area.gpkg",
        "tile_cache": "gone/../cache",
        "block_zoom": 9,
    }
    settings = settings_file(tmp_path, assemble=more, train={"checkpoints": "gs://bucket/c"})
    given = {"labels": "l.geojson", "imagery": url, "zoom": 17, "settings": settings, "baseline": "gs://bucket/last"}
    found = checked(**given)
    assert found["assemble"] == {
        "labels": str(tmp_path / "l.geojson"),
        "imagery": url,
        "zoom": 17,
        "slice_columns": ["region"],
        "negatives_within": str(tmp_path / "area.gpkg"),
        "tile_cache": str(tmp_path / "cache"),
        "block_zoom": 9,
    }
    assert found["xception"]["checkpoints"] == "gs://bucket/c"
    assert found["validate"] == {"accept": ["*:*:*"], "baseline": "gs://bucket/last"}
    arguments = run_arguments(RunConfig(**given))
    assert arguments.paths(read=True) == [tmp_path / "area.gpkg", tmp_path / "l.geojson"]
    assert arguments.paths(read=False) == [tmp_path / "cache"]
    (tmp_path / "tiles").mkdir()
    assert checked(**{**given, "imagery": "tiles"})["assemble"]["imagery"] == str(tmp_path / "tiles")


def test_a_run_has_defaults_of_its_own_that_flags_and_the_file_override(tmp_path):
    found = checked()
    assert found["gate"] == {"min_accuracy": 0.8}
    assert {name: found["xception"][name] for name in ("weights", "input_size", "scratch_epochs")} == {
        "weights": "none",
        "input_size": 71,
        "scratch_epochs": 5,
    }
    assert (found["mobilenetv2"]["alpha"], found["mobilenetv2"]["input_size"]) == (0.35, 96)
    own = {"gate": {"min_accuracy": 0.6}, "train": {"scratch_epochs": 7}, "xception": {"input_size": 80}}
    found = checked(settings=settings_file(tmp_path, **own), min_recall=0.1, input_size=100)
    assert found["gate"] == {"min_accuracy": 0.6, "min_recall": 0.1}
    assert [found[name]["scratch_epochs"] for name in ("xception", "mobilenetv2")] == [7, 7]
    assert [found[name]["input_size"] for name in ("xception", "mobilenetv2")] == [80, 100]


@pytest.mark.parametrize(("section", "name"), [(s, n) for s, names in TRAINING.sections.items() for n in names])
def test_the_tree_of_settings_can_be_given_here_too(section, name, tmp_path):
    """A setting at the pipeline's default, in the file, overrides the run's own default."""
    default = TRAINING.default_at(f"{section}.{name}")
    found = checked(settings=settings_file(tmp_path, **{section: {name: default}}))
    if (section, name) == ("deploy", "model_root"):
        default = LOCAL_ROOT  # an empty one is that of the target
    for task, each in TRAINING.tasks.items():
        if section in each.sections:
            assert found[task].get(name, default) == default


def test_a_file_of_search_is_taken_as_it_is(tmp_path):
    path = tmp_path / "best.yaml"
    path.write_text("# Best.\nbackbone: mobilenetv2\nweights: imagenet\nalpha: 0.5\ndropout: 0.4\nseed: 0\n")
    found = checked(settings=path)["mobilenetv2"]
    assert (found["alpha"], found["dropout"], found["input_size"]) == (0.5, 0.4, 224)
    assert "weights" not in found  # imagenet is the step's own default


@pytest.mark.parametrize(
    ("settings", "sections", "told"),
    [
        ({"data": "tiles", "labels": "l", "imagery": "u"}, {}, "give either --data or --labels"),
        ({"zoom": 17}, {}, "--zoom goes with --labels, which isn't given"),
        ({"labels": "l"}, {}, "--labels and --imagery go together"),
        ({}, {"gate": {"min_acuracy": 1}}, "unknown setting gate.min_acuracy; did you mean gate.min_accuracy?"),
        (
            {"min_accuracy": 0.3},
            {"gate": {"min_accuracy": 0.4}},
            "--min-accuracy is 0.3, and gate.min_accuracy in sett",
        ),
        (
            {},
            {"train": {"batch_size": 0}, "gate": {"max_loss": 2}},
            "train.batch_size: Input should be greater than 0; ",
        ),
    ],
)
def test_settings_of_a_run_that_do_not_go_together_are_refused(settings, sections, told, tmp_path):
    with pytest.raises(ConfigError) as refused:
        run(
            load_config(
                RunConfig, None, {"out": tmp_path / "runs", **settings, "settings": settings_file(tmp_path, **sections)}
            )
        )
    assert told in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_a_settings_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"can't read the settings .*absent"):
        run_arguments(RunConfig(settings=tmp_path / "absent.yaml"))
    path = tmp_path / "list.yaml"
    path.write_text("a: 1\n- b")
    with pytest.raises(ConfigError, match=r"list\.yaml, line 2: not valid YAML"):
        run_arguments(RunConfig(settings=path))


# Flags of earlier versions, but for those that are still there.
MOVED = {
    "accept": "validate.accept",
    "block-zoom": "assemble.block_zoom",
    "goal": "evaluate.goal",
    "imagery-token-env": "assemble.imagery_token_env",
    "no-keep-near-duplicates": "assemble.keep_near_duplicates",
    "label": "assemble.label",
    "max-calibration-error": "gate.max_calibration_error",
    "min-gain": "gate.min_gain",
    "min-slice-recall": "gate.min_slice_recall",
    "negatives-ratio": "assemble.negatives_ratio",
    "search-trials": "train.search_trials",
    "tile-cache": "assemble.tile_cache",
    "workers": "assemble.workers",
}


@pytest.mark.parametrize("flag", MOVED)
def test_a_flag_that_became_a_setting_is_named_with_its_address(flag, tmp_path):
    with pytest.raises(SystemExit) as ended, pytest.MonkeyPatch.context() as patch:
        shown = io.StringIO()
        patch.setattr(sys, "stderr", shown)
        main(["run", "--data", "d", f"--{flag}", "2"])
    assert ended.value.code == 2
    section, _, setting = MOVED[flag].partition(".")
    assert f"--{flag} is no flag of this command any more: it is now `{section}.{setting}`; put {section}: " in (
        shown.getvalue()
    )
    file = tmp_path / "run.yaml"
    file.write_text(f"{setting}: 2")
    with pytest.raises(
        ConfigError, match=rf"'{setting}' in .* is no setting of this command any more: it is now `{section}"
    ):
        load_config(RunConfig, file)


def test_flags_that_are_there_or_never_were_have_not_moved():
    assert {RunConfig.moved(name) for name in (*RunConfig.model_fields, "nothing")} == {""}
    with pytest.raises(ConfigError, match="unknown setting 'nothing'"):
        load_config(RunConfig, None, {"nothing": 1})


def test_a_step_that_fails_ends_the_run_with_its_reason_and_exit_code(tmp_path):
    (tmp_path / "data" / "only-one-class").mkdir(parents=True)
    config = RunConfig(data=str(tmp_path / "data"), out=tmp_path / "runs", model_root=tmp_path / "serving", **SMALL)
    with pytest.raises(StepFailedError, match="assemble failed: found 0 class") as failure:
        run(config)
    assert failure.value.exit_code == 3
    (log,) = (tmp_path / "runs").glob("*/run.log")
    assert "FAILED" in log.read_text()
    assert json.loads((log.parent / "failure.json").read_text())["step"] == "assemble"


def test_weights_go_to_the_backbone_that_they_fit(mobilenet_weights, tmp_path):
    found = checked(weights=(str(mobilenet_weights),), alpha=0.75)
    assert found["mobilenetv2"]["weights"] == str(mobilenet_weights.resolve())
    assert (found["mobilenetv2"]["alpha"], found["mobilenetv2"]["input_size"]) == (0.35, 224)
    assert (found["xception"]["weights"], found["xception"]["input_size"]) == ("none", 71)


def test_a_weights_file_of_a_backbone_that_the_pipeline_does_not_train_is_refused(monkeypatch, tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("values", shape=(12_345,), dtype="float32")
    other = dataclasses.replace(BACKBONES["xception"], weight_counts={1.0: 12_345})
    monkeypatch.setitem(BACKBONES, "other", other)
    with pytest.raises(ConfigError, match="holds weights of other, but the pipeline trains xception and mobilenetv2"):
        run_arguments(RunConfig(weights=(str(tmp_path / "w.h5"),)))


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


@pytest.mark.slow
def test_a_class_that_the_data_does_not_have_ends_the_run_as_a_wrong_setting(tmp_path, class_folders):
    config = RunConfig(
        data=str(class_folders), out=tmp_path / "runs", model_root=tmp_path / "m", positive_label="cat", **SMALL
    )
    with pytest.raises(StepFailedError) as failure:
        run(config)
    assert failure.value.exit_code == 2
    (reason,) = (tmp_path / "runs").glob("*/failure.json")
    assert json.loads(reason.read_text())["step"] == "assemble"
