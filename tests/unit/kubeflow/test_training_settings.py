"""Settings of the training pipeline: headlines and YAML are merged; every mistake is reported at once, by its name."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import Field
from typer.testing import CliRunner

from sat_xception.cli import add_step
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import ConfigError
from sat_xception.kubeflow.pipelines import PIPELINES
from sat_xception.kubeflow.settings_reference import settings_markdown, settings_yaml, write_reference
from sat_xception.kubeflow.training_settings import TRAINING
from sat_xception.model.settings import TrainConfig
from sat_xception.settings.config import load_config
from sat_xception.settings.step import Step
from tests.setting_values import settings_of

ROOT = Path(__file__).parents[3]
LABELS = {"data_labels": "gs://bucket/schools.geojson", "data_imagery": "https://tiles.example/{z}/{x}/{y}.jpg"}
CLUSTER = {"deploy_target": "kserve", "deploy_model_root": "gs://bucket/models", "deploy_endpoint": "http://gateway"}


def check(settings=None, **headlines):
    """Return the settings of every task, with `settings` as a mapping or a text."""
    text = settings if isinstance(settings, str) else yaml.safe_dump(settings) if settings else ""
    return {task: json.loads(found) for task, found in TRAINING.check({**headlines, "settings": text}).items()}


def message(settings=None, **headlines):
    with pytest.raises(ConfigError) as refused:
        check(settings, **headlines)
    return str(refused.value)


def assembled(checked):
    return AssembleConfig(**checked["assemble"], out="o")


def test_the_defaults_are_right_and_each_text_holds_only_what_differs_from_the_classes_defaults():
    checked = check()
    assert list(checked) == list(TRAINING.tasks)
    assert checked["convert"] == checked["validate"] == checked["gate"] == checked["package"] == {}
    assert checked["xception"] == {"backbone": "xception", "record_divergence": True}
    assert checked["evaluate_serving"] == {"split": "valid", "model_root": "models/serving"}
    assert assembled(checked) == AssembleConfig(data="sample", out="o")


def test_checking_settings_imports_no_tensorflow():
    code = "import sys; from sat_xception.kubeflow.training_settings import TRAINING; TRAINING.check({}); "
    code += "sys.exit(bool({'tensorflow', 'keras', 'kfp'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_equal_settings_give_equal_texts_however_they_are_given():
    headline = TRAINING.check({"gate_min_accuracy": 0.9, "mobilenetv2_alpha": 0.5, "data_seed": 3})
    nested = "train: {seed: 3}\nassemble: {seed: 3}\nmobilenetv2: {alpha: 5e-1}\ngate: {'min-accuracy': '0.90'}"
    assert TRAINING.check({"settings": nested}) == headline
    default = "gate: {min_accuracy: 0.85, max_loss: 0.01}\ntrain: {optimizer: adam}\nconvert:\npackage: {}"
    assert TRAINING.check({"settings": default}) == TRAINING.check({})


def test_a_new_setting_at_its_default_changes_no_text():
    class Extended(TrainConfig):
        more: int = Field(7, description="One more.")

    assert with_train(Extended).check({"gate_max_loss": 0.5}) == TRAINING.check({"gate_max_loss": 0.5})


def with_train(config):
    """Return the pipeline's settings with another settings class of train."""
    tasks = {
        name: dataclasses.replace(task, config=config) if task.config is TrainConfig else task
        for name, task in TRAINING.tasks.items()
    }
    return dataclasses.replace(TRAINING, tasks=tasks)


def test_a_field_that_is_added_to_train_is_in_its_help_in_the_tree_in_the_reference_and_reachable():
    class Extended(TrainConfig):
        """Train."""

        gamma_fraction: float = Field(0.25, ge=0, le=1, description="Share of gamma, instead of --alpha.")

    pipeline = with_train(Extended)
    assert "  # Share of gamma, instead of alpha.\n  gamma_fraction: 0.25\n" in settings_yaml(pipeline)
    application = typer.Typer()
    add_step(application, "train", Step(Extended, "sat_xception.train.train:train"))
    add_step(application, "other", Step(TrainConfig, "sat_xception.train.train:train"))
    shown = CliRunner().invoke(application, ["train", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert "--gamma-fraction" in shown.output
    assert "| `gamma_fraction` | `0.25` |  | Share of gamma, instead of alpha. |" in settings_markdown(pipeline)
    texts = pipeline.check({"settings": "train: {gamma_fraction: 0.5}\nxception: {gamma-fraction: 1}"})
    assert json.loads(texts["mobilenetv2"])["gamma_fraction"] == 0.5
    assert json.loads(texts["xception"])["gamma_fraction"] == 1.0
    with pytest.raises(ConfigError, match=r"train\.gamma_fraction: Input should be less than or equal to 1; got 2"):
        pipeline.check({"settings": "train: {gamma_fraction: 2}"})
    with pytest.raises(ConfigError, match=r"unknown setting train\.gama_fraction; did you mean train\.gamma_fraction"):
        pipeline.check({"settings": "train: {gama_fraction: 0.5}"})


@pytest.mark.parametrize("written", ["off", "'off'", "false"])
def test_off_is_text_however_a_yaml_reader_takes_it(written, tmp_path):
    assert check(f"train: {{xla: {written}}}")["xception"]["xla"] == "off"
    (tmp_path / "train.yaml").write_text(f"xla: {written}\nexamples: e\nout: o")
    assert load_config(TrainConfig, tmp_path / "train.yaml").xla == "off"


def test_a_section_of_one_backbone_overrides_that_of_both():
    checked = check({"train": {"optimizer": "adamw", "batch_size": 16}, "xception": {"optimizer": "sgd"}})
    assert (checked["xception"]["optimizer"], checked["mobilenetv2"]["optimizer"]) == ("sgd", "adamw")
    assert checked["xception"]["batch_size"] == checked["mobilenetv2"]["batch_size"] == 16
    # A headline at its default doesn't hide what the text sets for both.
    checked = check({"train": {"weights": "none"}}, mobilenetv2_weights="w.h5")
    assert (checked["xception"]["weights"], checked["mobilenetv2"]["weights"]) == ("none", "w.h5")


def test_evaluations_package_and_deploy_have_the_same_name_and_model_root():
    checked = check({"deploy": {"name": "schools", "model_root": "gs://bucket/m", "endpoint": "http://h:1"}})
    assert checked["package"] == {"name": "schools"}
    serving = {"name": "schools", "model_root": "gs://bucket/m", "endpoint": "http://h:1"}
    assert checked["evaluate_serving"] == {"split": "valid", **serving}
    assert checked["deploy"] == {"dry_run": False, "reason": "", "target": "auto", **serving}
    assert (
        check(deploy_model_name="schools", deploy_model_root="gs://bucket/m", deploy_endpoint="http://h:1") == checked
    )


def test_validate_has_the_baseline_of_the_pipeline():
    assert check(data_baseline="gs://bucket/b")["validate"] == {"baseline": "gs://bucket/b"}


@pytest.mark.parametrize(
    ("headline", "written", "found"),
    [
        (0.85, 0.7, 0.7),  # at its default: the text decides
        (0.9, 0.9, 0.9),
        (0.9, 0.85, 0.9),  # the text repeats the default
        (0.9, "0.85", None),
        (0.9, 0.7, None),
    ],
)
def test_a_headline_and_the_text_may_not_contradict_each_other(headline, written, found):
    given = {"gate": {"min_accuracy": written}}
    if found is None:
        text = message(given, gate_min_accuracy=headline)
        assert f"gate_min_accuracy is {headline}, and gate.min_accuracy in settings is {written!r}; give one" in text
    else:
        assert check(given, gate_min_accuracy=headline)["gate"] == {"min_accuracy": found}


def test_labels_take_the_place_of_the_sample_wherever_they_are_given():
    more = {"assemble": {"zoom": 17, "negatives_ratio": 1.5, "slice_columns": ["setting"], "label": "school"}}
    config = assembled(check(more, **LABELS))
    assert (str(config.labels), config.data, config.zoom) == (LABELS["data_labels"], "", 17)
    assert (config.negatives_ratio, config.slice_columns, config.label) == (1.5, ("setting",), "school")
    whole = {"assemble": {**more["assemble"], "labels": LABELS["data_labels"], "imagery": LABELS["data_imagery"]}}
    assert assembled(check(whole)) == assembled(check(more, **LABELS, data="")) == config
    assert str(assembled(check({"assemble": {"train": "t", "valid": "v"}})).train) == "t"


@pytest.mark.parametrize(
    ("settings", "headlines", "told"),
    [
        ({}, {**LABELS, "data": "tiles"}, "give either data, or assemble.train with assemble.valid, or data_labels"),
        ({}, {"data": ""}, "give either data, or assemble.train with assemble.valid, or data_labels with data_imagery"),
        ({}, {"data_labels": "l.geojson"}, "data_labels and data_imagery go together"),
        ({"assemble": {"labels": "l"}}, {}, "assemble.labels and data_imagery go together"),
        ({}, {"data_zoom": 17}, "data_zoom goes with data_labels, which isn't given"),
        ({"assemble": {"block_zoom": 20}}, LABELS, "assemble.block_zoom 20 is above data_zoom 18"),
        (
            {"train": {"search_trials": 3}},
            {"xception_weights": "none"},
            "train.search_trials tries heads on learnt fea",
        ),
        ({"convert": {"beam_options": ["--a"]}}, {}, "convert.beam_options are for the convert.runner that takes them"),
        ({"deploy": {"tiles": "t"}}, {"deploy_target": "local"}, "deploy.tiles needs deploy_target kserve"),
        ({"xception": {"input_size": 70}}, {}, "xception.input_size: xception takes 71 pixels or more"),
        ({"train": {"input_size": 40}}, {}, "train.input_size: xception takes 71 pixels or more"),
    ],
)
def test_settings_that_do_not_go_together_are_named_as_the_user_can_give_them(settings, headlines, told):
    text = message(settings, **headlines)
    assert told in text
    assert " --" not in text.replace("'--a'", "")


def test_every_mistake_of_every_step_is_reported_at_once_and_each_once():
    settings = {
        "gate": {"min_acuracy": 1, "min_slice_tiles": 0},
        "train": {"batch_size": 0, "goal": "f1"},
        "evaluate": {"goal": "f2"},
        "trian": {"seed": 1},
        "package": [1],
        "deploy": "kserve",
    }
    text = message(settings, gpu_count="x", gate_min_accuracy=1.5, xception_weights="none.zip", data_store="gs://x")
    for told in (
        "unknown setting gate.min_acuracy; did you mean gate.min_accuracy?",
        "gate.min_slice_tiles: Input should be greater than 0; got 0",
        "train.batch_size: Input should be greater than 0; got 0",
        "unknown setting train.goal; did you mean evaluate.goal?",
        "evaluate.goal: expected f1, recall-at-precision:P or",
        "settings: unknown section 'trian'; did you mean 'train'?",
        "package: expected a mapping of settings, such as {",
        "deploy: expected a mapping of settings, such as {",
        "gpu_count: String should match",
        "gate_min_accuracy: Input should be less than or equal to 1; got 1.5",
        "xception_weights: expected 'imagenet', 'none', or",
        "data_store: expected gs://bucket/path/to/folder",
    ):
        assert text.count(told) == 1, told
    assert text.startswith("wrong settings: ")
    assert text.endswith("No data was read; start a run with other values")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            "gate_min_accuracy: 1",
            "unknown section 'gate_min_accuracy': it is a parameter; in settings, gate.min_accuracy",
        ),
        ("data_store: a", "unknown section 'data_store': it is a parameter of the pipeline"),
        ("optimizer: adam", "did you mean train.optimizer or xception.optimizer or mobilenetv2.optimizer?"),
        ("zzz: 1", "unknown section 'zzz'; expected assemble, convert, validate, train, xception, mobilenetv2, eval"),
        ("gate: {zzz: 1}", "unknown setting gate.zzz; `sat_xception settings` lists those of gate"),
        ("train: {backbone: xception}", "train.backbone: the pipeline sets this itself; leave it out"),
        ("xception: {backbone: mobilenetv2}", "xception.backbone: the pipeline sets this itself; leave it out"),
        ("convert: {out: o}", "convert.out: the pipeline sets this itself"),
        ("package: {name: n}", "package.name: this is set as deploy.name"),
        ("validate: {baseline: b}", "validate.baseline: this is set as data_baseline"),
        (
            "backbone: resnet\nseed: 1",
            "backbone: 'resnet' isn't one of this pipeline; expected xception or mobilene",
        ),
        ("backbone: xception\nzzz: 1", "unknown setting xception.zzz"),
        ("backbone: xception\nseed: 1\nxception: {seed: 2}", "xception.seed is given twice: 1 and 2"),
        ("backbone: gate", "backbone: 'gate' isn't one of this pipeline"),
        ("1: 2", "unknown section '1'"),
    ],
)
def test_what_is_unknown_is_named_with_what_it_may_have_been(settings, told):
    assert told in message(settings)


def test_keys_and_passwords_in_addresses_are_masked_in_messages():
    given = {"data_labels": "l", "data_imagery": "https://a.example/{z}/{x}/{y}?key=secret"}
    text = message({"assemble": {"imagery": "https://user:secret@b.example/{z}/{x}/{y}"}}, **given)
    assert "data_imagery is 'https://a.example/{z}/{x}/{y}?key=***', and assemble.imagery in settings is" in text
    assert "secret" not in text


def test_a_text_that_is_no_yaml_is_reported_together_with_wrong_parameters():
    text = message("gate: {min_accuracy: 1\ntrain", gate_min_recall=2.0, data_labels="l.geojson")
    assert "settings, line 2: not valid YAML" in text
    assert "gate_min_recall: Input should be less than or equal to 1; got 2.0" in text
    assert "go together" not in text  # the text may hold the other


def test_a_flat_mapping_of_a_backbone_is_its_section_and_may_stand_beside_sections():
    flat = "backbone: mobilenetv2\nalpha: 0.5\noptimizer: adamw\nseed: 0\ngate: {max_loss: 0.5}"
    checked = check(flat)
    assert checked["mobilenetv2"] == check()["mobilenetv2"] | {"alpha": 0.5, "optimizer": "adamw"}
    assert checked["xception"] == check()["xception"]
    assert checked["gate"] == {"max_loss": 0.5}
    assert (
        check("mobilenetv2: {backbone: mobilenetv2, alpha: 0.5, optimizer: adamw}")["mobilenetv2"]
        == (checked["mobilenetv2"])
    )


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("data_seed", "no"),
        ("deploy_endpoint", "example.org:8501"),
        ("deploy_model_name", "School Classifier"),
        ("gate_max_loss", 1.1),
        ("gate_min_precision", 85),
        ("gate_min_recall", float("nan")),
        ("gpu_count", "-1"),
        ("gpu_count", "one"),
        ("gpu_type", "a GPU"),
        ("gpu_node_selector", "pool"),
        ("mobilenetv2_alpha", 0.0),
        ("mobilenetv2_weights", "random"),
        ("train_fine_tune_epochs", -1),
        ("xception_weights", "imagenet21k"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value(parameter, value):
    text = message(**{parameter: value})
    assert text.startswith(f"wrong settings: {parameter}")
    assert str(value) in text


@pytest.mark.parametrize(
    ("toleration", "position"),
    [
        ({"operator": "Equal"}, "gpu_tolerations[0]: a toleration without a key"),
        ({"key": "gpu", "operator": "Is"}, "gpu_tolerations[0].operator"),
        ({"key": "gpu", "effect": "NoRun"}, "gpu_tolerations[0].effect"),
        ({"key": "gpu", "toleration_seconds": 3}, "gpu_tolerations[0].toleration_seconds"),
    ],
)
def test_a_wrong_toleration_is_named_with_its_position(toleration, position):
    assert position in message(gpu_tolerations=[toleration])


def test_what_kubernetes_takes_is_right():
    taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    numbers = {"key": "preemptible", "operator": "Equal", "value": "true", "tolerationSeconds": 30.0}
    check(gpu_tolerations=[taint, numbers], gpu_node_selector={"pool": "gpu"})
    check(gpu_count="0", gpu_type="amd.com/gpu")


@pytest.fixture
def in_a_pod(monkeypatch):
    monkeypatch.setenv("KFP_POD_NAME", "run-abc-system-container-impl-123")


@pytest.mark.usefixtures("in_a_pod")
def test_in_a_pod_a_local_target_is_refused_with_what_to_set():
    check()
    text = message(deploy_target="local")
    assert (
        "deploy_model_root: 'models/serving' is lost with its pod, and nothing could serve it; give an address in a"
        in text
    )
    assert "deploy_target: 'local' needs deploy_endpoint on a cluster" in text
    assert "set deploy_target to 'kserve' to deploy to KServe, or to 'none' to end with a packaged model" in text


@pytest.mark.usefixtures("in_a_pod")
@pytest.mark.parametrize(
    ("settings", "headlines"),
    [
        ({}, CLUSTER),
        ({"deploy": {"target": "none"}}, {}),
        ({}, {"deploy_endpoint": "http://server:8501", "deploy_model_root": "gs://bucket/models"}),
        ({}, {**CLUSTER, "data_store": "gs://bucket/datasets", "data_baseline": "gs://bucket/baseline"}),
        ({"train": {"checkpoints": "gs://bucket/c"}}, CLUSTER),
    ],
)
def test_in_a_pod_what_can_work_there_is_accepted(settings, headlines):
    check(settings, **headlines)


@pytest.mark.usefixtures("in_a_pod")
def test_in_a_pod_a_mounted_folder_is_accepted(volumes_here, monkeypatch):
    monkeypatch.setenv("RESULTS_VOLUME", "nas/sat")
    results = volumes_here / "results"
    names = ("data_baseline", "data_store", "train_checkpoints", "deploy_model_root")
    checked = check({}, **{**CLUSTER, **{name: str(results / name) for name in names}})
    assert checked["xception"]["checkpoints"] == str(results / "train_checkpoints")
    assert checked["deploy"]["model_root"] == str(results / "deploy_model_root")
    assert checked["deploy"]["storage_uri"] == "pvc://nas/sat/deploy_model_root"


@pytest.mark.usefixtures("in_a_pod")
def test_in_a_pod_results_in_the_volume_for_data_are_refused(volumes_here, monkeypatch):
    monkeypatch.setenv("DATA_VOLUME", "tiles")
    path = str(volumes_here / "data" / "x")
    for name in ("data_baseline", "data_store", "train_checkpoints", "deploy_model_root"):
        assert f"{name}: {path!r} is in the volume for data, which no task writes to" in message(
            **{**CLUSTER, name: path}
        )


@pytest.mark.usefixtures("in_a_pod")
def test_in_a_pod_a_volume_that_isnt_mounted_is_told_of(monkeypatch):
    monkeypatch.setenv("RESULTS_VOLUME", "nas")
    assert "RESULTS_VOLUME: nas isn't mounted at /results: compile the pipeline again" in message(**CLUSTER)


@pytest.mark.parametrize("given", ["pvc://nas/sat/models", "/results/models"])
def test_a_model_root_on_a_claim_is_written_through_its_mount_and_served_from_the_claim(given, monkeypatch):
    monkeypatch.setenv("RESULTS_VOLUME", "nas/sat")
    checked = check(**{**CLUSTER, "deploy_model_root": given})
    assert checked["deploy"]["model_root"] == checked["evaluate_serving"]["model_root"] == "/results/models"
    assert checked["deploy"]["storage_uri"] == "pvc://nas/sat/models"
    # As the pods of another namespace address it.
    checked = check({"deploy": {"storage_uri": "pvc://other/models"}}, **{**CLUSTER, "deploy_model_root": given})
    assert checked["deploy"]["storage_uri"] == "pvc://other/models"
    for target in ("local", "none"):
        checked = check(deploy_target=target, deploy_model_root=given, deploy_endpoint="http://server:8501")
        assert "storage_uri" not in checked["deploy"]


def test_a_claim_that_isnt_mounted_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setenv("RESULTS_VOLUME", "nas/sat")
    for root in ("pvc://nas/models", "pvc://other/models"):
        assert f"deploy_model_root: {root} isn't mounted in the tasks" in message(
            **{**CLUSTER, "deploy_model_root": root}
        )


@pytest.mark.usefixtures("in_a_pod")
@pytest.mark.parametrize("name", ["data_baseline", "data_store", "train_checkpoints"])
@pytest.mark.parametrize("path", ["kept/here", "/not/mounted"])
def test_in_a_pod_what_would_be_lost_with_it_is_refused(name, path):
    text = message(**CLUSTER, **{name: path})
    assert (
        f"{name}: {path!r} is lost with its pod; give an address in a bucket, or mount a volume for a path below"
        in text
    )


@pytest.mark.usefixtures("in_a_pod")
@pytest.mark.parametrize("address", ["assemble.tile_cache", "train.tensorboard", "mobilenetv2.checkpoints"])
def test_in_a_pod_settings_of_the_text_that_would_be_lost_are_refused(address):
    section, name = address.split(".")
    text = message({section: {name: "kept"}}, **CLUSTER, **LABELS)
    assert text.count(f"{address}: 'kept' is lost with its pod") == 1


def test_elsewhere_the_same_paths_are_accepted():
    check({"assemble": {"tile_cache": "cache"}}, data_baseline="kept/here", data_store="store", **LABELS)


def test_the_printed_tree_is_yaml_that_changes_nothing_and_hides_nothing():
    text = settings_yaml(TRAINING)
    assert check(text) == check()
    assert check(text, gate_min_accuracy=0.5, xception_weights="none")["xception"]["weights"] == "none"
    assert check(f"{text}".replace("weights: imagenet", "weights: none"))["xception"]["weights"] == "none"
    assert "# Parameters alone: data_baseline, data_store, gpu_count, gpu_node_selector, " in text
    for name in TRAINING.headlines:
        assert f"Parameter {name}." in text.replace("\n  # ", " ")


def test_the_command_prints_the_tree_of_a_pipeline_and_refuses_unknown_ones():
    command = [sys.executable, "-m", "sat_xception", "settings"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert finished.stdout == settings_yaml(TRAINING) + "\n"
    finished = subprocess.run([*command, "trainin"], capture_output=True, text=True, check=False, timeout=60)
    assert finished.returncode == 2
    assert "there is no pipeline 'trainin'; expected training or bulk" in finished.stderr


def test_the_reference_in_the_docs_is_current(tmp_path):
    document = ROOT / "docs" / "settings.md"
    copy = tmp_path / "settings.md"
    copy.write_text(document.read_text())
    write_reference(copy)
    assert copy.read_text() == document.read_text(), "run `python -m sat_xception.kubeflow.settings_reference`"
    for section, name in (each for pipeline in PIPELINES.values() for each in settings_of(pipeline)):
        if section not in ("xception", "mobilenetv2"):
            assert f"| `{name}` |" in document.read_text()
