"""Training: it learns, keeps the better phase, says what it did, and leaves nothing half-written."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import ConfigError, DataError, ModelError
from sat_xception.evaluate.evaluate import evaluate, load_model
from sat_xception.evaluate.settings import EvaluateConfig
from sat_xception.examples.convert import convert
from sat_xception.examples.settings import ConvertConfig
from sat_xception.model.backbones import BACKBONES, Backbone
from sat_xception.model.checkpoint import Checkpoints
from sat_xception.model.network import weights_digest
from sat_xception.model.parts import Weights
from sat_xception.model.session import TrainingSession
from sat_xception.model.settings import TrainConfig
from sat_xception.train.record import TrainingHistory, TrainingRecord
from sat_xception.train.train import train
from tests.small_models import MOBILENET, SMALL_MOBILENET, steps_run

pytestmark = pytest.mark.usefixtures("small_mobilenet", "eager_steps")

COMMON = {"backbone": "mobilenetv2", "alpha": 0.35, "input_size": 32}
# A head that learns, in few large steps.
QUICK_HEAD = {"input_size": 48, "head_epochs": 8, "head_learning_rate": 0.3, "patience": 30}
# A head that hardly learns, so that fine-tuning must.
TUNED = {"head_epochs": 1, "head_learning_rate": 1e-9, "fine_tune_epochs": 4}


def read(folder, name):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((folder / name).read_text(), parse_constant=refuse)


def accuracy_of(folder, examples, out):
    result = evaluate(EvaluateConfig(model=folder, examples=examples, out=out))
    return result.evaluation.metrics.accuracy


@dataclass(frozen=True)
class Transfer:
    """Trains one network from a weights file, fine-tuned with settings that suit it."""

    backbone: Backbone
    settings: dict[str, Any]
    folder: Path

    def run(self, name, **changes):
        eagerly = self.backbone is SMALL_MOBILENET
        with pytest.MonkeyPatch.context() as patch, steps_run(eagerly):
            patch.setitem(BACKBONES, "mobilenetv2", self.backbone)
            return train(TrainConfig(out=self.folder / name, **{**COMMON, **self.settings, **TUNED, **changes}))


@pytest.fixture(scope="module", params=["small", pytest.param("mobilenetv2", marks=pytest.mark.slow)])
def transfer(request, examples, tmp_path_factory):
    """The small network, and the real one with its ImageNet weights."""
    if request.param == "small":
        backbone, weights = SMALL_MOBILENET, request.getfixturevalue("small_weights")
        own = {"input_size": 48, "batch_size": 8, "fine_tune_learning_rate": 2e-2, "fine_tune_from": "last"}
    else:
        backbone, weights = MOBILENET, request.getfixturevalue("mobilenet_weights")
        own = {"input_size": 96, "fine_tune_learning_rate": 2e-3, "fine_tune_from": "block_16_expand"}
    settings = {"examples": examples, "weights": str(weights), "seed": 3, **own}
    return Transfer(backbone, settings, tmp_path_factory.mktemp("transferred"))


@pytest.fixture(scope="module")
def tuned(transfer):
    return transfer.run("tuned")


@pytest.fixture(scope="module")
def ruined(examples, small_weights, tmp_path_factory, small_mobilenet):
    """A head that learns, fine-tuned at a rate that makes every weight infinite."""
    settings = {**COMMON, **QUICK_HEAD, "weights": str(small_weights), "seed": 3}
    ruin = {"fine_tune_epochs": 2, "fine_tune_learning_rate": 1e38, "fine_tune_from": "last"}
    out = tmp_path_factory.mktemp("ruined") / "model"
    with steps_run(eagerly=False):
        return train(TrainConfig(examples=examples, out=out, **settings, **ruin))


@pytest.fixture(scope="module")
def unbalanced(make_folders, tmp_path_factory):
    """Examples with 12 schools and 4 other tiles to train on."""
    folder = tmp_path_factory.mktemp("unbalanced")
    make_folders(folder / "train", count=12, classes=["school"])
    make_folders(folder / "train", count=4, classes=["not-school"])
    make_folders(folder / "valid", count=3, start=50)
    assemble(AssembleConfig(train=folder / "train", valid=folder / "valid", out=folder / "dataset"))
    convert(ConvertConfig(dataset=folder / "dataset", out=folder / "examples"))
    return folder / "examples"


@pytest.fixture(scope="module")
def train_head(unbalanced, small_weights, tmp_path_factory, small_mobilenet):
    """Train no more than a head, in seconds."""
    folder = tmp_path_factory.mktemp("heads")
    settings = {**COMMON, "weights": str(small_weights), "head_epochs": 2, "fine_tune_epochs": 0}

    def run(name, examples=unbalanced, **changes):
        return train(TrainConfig(examples=examples, out=folder / name, **{**settings, **changes}))

    return run


@pytest.fixture(scope="module")
def head_only(train_head):
    return train_head("plain")


@pytest.fixture(scope="module")
def sample(unbalanced, tmp_path_factory):
    """The same examples, called the synthetic sample."""
    sample = shutil.copytree(unbalanced, tmp_path_factory.mktemp("sample") / "examples")
    (sample / "examples.json").write_text(json.dumps({**read(unbalanced, "examples.json"), "synthetic": True}))
    return sample


@pytest.fixture(scope="module")
def head_elsewhere(train_head, sample, tmp_path_factory):
    """The same head on the sample, without class weights, with its logs and checkpoints in folders of their own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    other = folder / "kept" / "0123456789abcdef" / "head-0.npz"  # of another training
    other.parent.mkdir(parents=True)
    other.touch()
    places = {"tensorboard": folder / "logs", "checkpoints": folder / "kept", "checkpoint_minutes": 0}
    return train_head("elsewhere", examples=sample, class_weights=False, **places), folder


def test_fine_tuning_learns_the_task_and_is_kept_where_it_is_better(tuned, transfer, examples, tmp_path):
    assert tuned.phase == "fine-tune"
    assert tuned.valid_accuracy >= 0.85
    history = TrainingHistory.read(tuned.folder).epochs
    assert [(row.phase, row.epoch) for row in history] == [("head", 1), *(("fine-tune", n) for n in (1, 2, 3, 4))]
    # It has risen after the first epoch, and falls along a cosine to nothing.
    rate = transfer.settings["fine_tune_learning_rate"]
    expected = [1e-9, rate, 0.75 * rate, 0.25 * rate, 0]
    assert [row.learning_rate for row in history] == pytest.approx(expected, abs=1e-8)
    assert tuned.valid_accuracy == max(row.val_accuracy for row in history)
    assert TrainingRecord.read(tuned.folder).seconds.keys() == {"features", "head", "fine-tune", "all"}
    assert accuracy_of(tuned.folder, examples, tmp_path / "evaluation") == pytest.approx(tuned.valid_accuracy, abs=1e-6)


def test_fine_tuning_changes_the_layers_from_the_named_one_on_and_no_batch_norm(tuned, transfer):
    side = transfer.settings["input_size"]
    before = transfer.backbone.build(include_top=False, weights=None, input_shape=(side, side, 3), alpha=0.35)
    before.load_weights(transfer.settings["weights"])
    network = load_model(tuned.folder)[0].get_layer("mobilenetv2")
    stage = [layer.name for layer in before.layers].index(transfer.settings["fine_tune_from"])
    for place, (old, new) in enumerate(zip(before.layers, network.layers, strict=True)):
        changed = any(
            not np.array_equal(one, other) for one, other in zip(old.get_weights(), new.get_weights(), strict=True)
        )
        learns = place >= stage and old.weights and not isinstance(old, keras.layers.BatchNormalization)
        assert changed == bool(learns), old.name


def test_a_phase_without_a_finite_loss_is_thrown_away(ruined, examples, tmp_path):
    assert ruined.valid_accuracy >= 0.85
    history = TrainingHistory.read(ruined.folder).epochs
    head = max(row.val_accuracy for row in history if row.phase == "head")
    tuned = [row.val_loss for row in history if row.phase == "fine-tune"]
    assert tuned == [None], "it ended after the first of two epochs"
    assert (ruined.phase, ruined.valid_accuracy) == ("head", head)
    assert TrainingRecord.read(ruined.folder).kept_phase == "head"
    assert accuracy_of(ruined.folder, examples, tmp_path / "evaluation") == pytest.approx(head, abs=1e-6)


def test_fine_tuning_is_shown_parts_of_tiles_and_labels_that_are_smoothed(examples):
    config = TrainConfig(examples=examples, out="-", **COMMON, fine_tune_crop=0.3, fine_tune_label_smoothing=0.4)
    run = TrainingSession(config, 32, ["not-school", "school"], None)
    layers = [keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax", kernel_initializer="zeros")]
    model, batches, _ = run.fine_tuning(keras.Sequential([keras.Input((32, 32, 3), dtype="uint8"), *layers]))
    shown, parts, whole = (next(iter(data.epoch(0)))[0] for data in (batches, run.training(0.3), run.training()))
    np.testing.assert_array_equal(shown, parts)
    assert not np.array_equal(parts, whole)
    layers[1].bias.assign(np.log([0.9, 0.1]))
    label_0 = np.zeros((1, 32, 32, 3), np.uint8), np.array([0])
    # Of 0.4 each class gets a half.
    expected = -(0.8 * np.log(0.9) + 0.2 * np.log(0.1))
    assert model.evaluate(*label_0, verbose=0, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-5)


def test_of_a_phase_the_best_epoch_is_kept_and_not_the_last(make_folders, small_weights, tmp_path):
    make_folders(tmp_path / "train", count=16)
    swapped = make_folders(tmp_path / "valid", count=6, start=50)
    (swapped / "school").rename(swapped / "other")
    (swapped / "not-school").rename(swapped / "school")
    (swapped / "other").rename(swapped / "not-school")  # the more it learns, the more of these it gets wrong
    assemble(AssembleConfig(train=tmp_path / "train", valid=swapped, out=tmp_path / "dataset"))
    convert(ConvertConfig(dataset=tmp_path / "dataset", out=tmp_path / "examples"))
    settings = {**COMMON, **QUICK_HEAD, "weights": str(small_weights), "fine_tune_epochs": 0}
    config = TrainConfig(examples=tmp_path / "examples", out=tmp_path / "model", **settings)
    result = train(config)
    shares = [row.val_accuracy for row in TrainingHistory.read(result.folder).epochs]
    assert shares[-1] < max(shares) == result.valid_accuracy
    accuracy = accuracy_of(result.folder, tmp_path / "examples", tmp_path / "evaluation")
    assert accuracy == pytest.approx(result.valid_accuracy, abs=1e-6)


def test_a_loss_that_is_no_number_is_recorded_as_json_and_drawn(ruined):
    tuned = [row for row in TrainingHistory.read(ruined.folder).epochs if row.phase == "fine-tune"]
    assert [row.val_loss for row in tuned] == [None]
    assert "<svg" in (ruined.folder / "curves.html").read_text()


def test_a_head_without_a_finite_loss_is_an_error_that_names_the_rate(train_head, monkeypatch):
    monkeypatch.setattr("sat_xception.model.session._HEAD_BATCH", 8)  # more than one step in the first epoch
    with pytest.raises(ModelError, match=r"no epoch had a finite loss.*lower --head-learning-rate \(1e\+38\)") as ended:
        train_head("diverged", head_learning_rate=1e38)
    assert ended.value.exit_code == 3


def test_a_network_without_a_finite_loss_is_an_error_that_names_the_rate(unbalanced, tmp_path):
    settings = {**COMMON, "weights": "none", "scratch_epochs": 2, "scratch_learning_rate": 1e38}
    with pytest.raises(ModelError, match=r"no epoch had a finite loss.*lower --scratch-learning-rate \(1e\+38\)"):
        train(TrainConfig(examples=unbalanced, out=tmp_path / "model", **settings))
    assert not (tmp_path / "model").exists()


def assert_records_its_failure(result, examples, tmp_path, phase):
    facts = TrainingRecord.read(result.folder)
    assert result.failed == facts.failed == f"no epoch had a finite loss ({phase}, learning rate 1e+38)"
    assert (facts.model, facts.weights_digest, facts.kept_phase, facts.valid_accuracy) == (None,) * 4
    assert (result.phase, result.valid_accuracy) == ("", None)
    assert f"failed, there is no model: {facts.failed}" in result.summary()
    assert {path.name for path in result.folder.iterdir()} == {
        "train.json",
        "history.json",
        "curves.html",
        "tensorboard",
    }
    (row,) = TrainingHistory.read(result.folder).epochs
    assert None in (row.loss, row.val_loss)
    assert not result.folder.with_name(f"{result.folder.name}.checkpoints").exists()
    with pytest.raises(ModelError, match="holds no model, since its training failed: no epoch had a finite loss"):
        load_model(result.folder)
    judged = evaluate(EvaluateConfig(model=result.folder, examples=examples, out=tmp_path / "evaluation"))
    evaluation = read(judged.folder, "evaluation.json")
    assert (evaluation["failed"], evaluation["metrics"], evaluation["model"]) == (facts.failed, None, None)
    assert evaluation["backbone"] == "mobilenetv2"
    assert evaluation["training"]["history"] == [row.content()]
    for text in (judged.summary(), (judged.folder / "report.html").read_text()):
        assert "no epoch had a finite loss" in text


def test_a_head_that_diverged_is_recorded_where_that_is_asked_for(train_head, unbalanced, tmp_path, monkeypatch):
    monkeypatch.setattr("sat_xception.model.session._HEAD_BATCH", 8)
    result = train_head("recorded", head_learning_rate=1e38, record_divergence=True)
    assert_records_its_failure(result, unbalanced, tmp_path, "head")


def test_a_network_that_diverged_is_recorded_where_that_is_asked_for(unbalanced, tmp_path):
    settings = {**COMMON, "weights": "none", "scratch_epochs": 2, "scratch_learning_rate": 1e38}
    config = TrainConfig(examples=unbalanced, out=tmp_path / "model", record_divergence=True, **settings)
    assert_records_its_failure(train(config), unbalanced, tmp_path, "scratch")


def test_a_rate_beyond_float32_is_null_in_the_history(train_head):
    result = train_head("infinite", head_learning_rate=1e39, record_divergence=True)
    assert [row.learning_rate for row in TrainingHistory.read(result.folder).epochs] == [None]
    assert TrainingRecord.read(result.folder).config["head_learning_rate"] == 1e39


def test_no_other_failure_is_recorded(small_weights, unbalanced, tmp_path):
    settings = {**COMMON, "weights": str(small_weights), "alpha": 0.5}
    with pytest.raises(ModelError, match=r"alpha 0\.5 is to be trained"):
        train(TrainConfig(examples=unbalanced, out=tmp_path / "model", record_divergence=True, **settings))
    assert not (tmp_path / "model").exists()


def test_the_same_seed_gives_the_same_weights_and_another_one_others(transfer, tuned, train_head, head_only):
    digest = TrainingRecord.read(transfer.run("again").folder).weights_digest
    assert digest == TrainingRecord.read(tuned.folder).weights_digest == weights_digest(load_model(tuned.folder)[0])
    others = [TrainingRecord.read(result.folder).weights_digest for result in (head_only, train_head("1", seed=1))]
    assert len({digest, *others}) == 3


def test_train_json_says_what_was_done(head_only, unbalanced):
    facts = TrainingRecord.read(head_only.folder)
    described = read(unbalanced, "examples.json")
    assert facts.backbone == "mobilenetv2"
    assert facts.input_size == 32
    assert facts.classes == ("not-school", "school")
    assert facts.positive_label == "school"
    assert facts.dataset_digest == described["dataset_digest"]
    assert facts.weights.kind == "file"
    assert facts.weights.description == "weights file small.weights.h5"
    assert facts.kept_phase == head_only.phase == "head"
    assert facts.valid_accuracy == head_only.valid_accuracy
    assert facts.seconds.keys() == {"features", "head", "all"}
    assert facts.seconds["all"] >= facts.seconds["features"] + facts.seconds["head"]
    assert facts.hardware.cores >= 1
    assert facts.config["head_epochs"] == 2
    load_model(head_only.folder)  # the digest is that of the model


def test_classes_weigh_the_same_whatever_their_counts(head_only, head_elsewhere):
    # 16 tiles, 4 of not-school (index 0) and 12 of school.
    assert TrainingRecord.read(head_only.folder).class_weight == pytest.approx({0: 16 / (2 * 4), 1: 16 / (2 * 12)})
    without, _ = head_elsewhere
    assert TrainingRecord.read(without.folder).class_weight is None
    weighted, unweighted = (TrainingHistory.read(folder).epochs for folder in (head_only.folder, without.folder))
    assert weighted[1].loss != unweighted[1].loss


def test_without_fine_tuning_there_is_one_phase(head_only):
    assert [(row.phase, row.epoch) for row in TrainingHistory.read(head_only.folder).epochs] == [
        ("head", 1),
        ("head", 2),
    ]
    assert "(head)" in head_only.summary()


@pytest.mark.parametrize("network", ["trained", pytest.param("trained_mobilenet", marks=pytest.mark.slow)])
def test_without_pretrained_weights_there_is_one_phase_of_the_whole_network(network, request, examples, tmp_path):
    trained = request.getfixturevalue(network)
    history = TrainingHistory.read(trained).epochs
    assert [(row.phase, row.epoch) for row in history] == [("scratch", 1), ("scratch", 2)]
    # A cosine from the backbone's rate to nothing, as it is after each of the two epochs.
    assert [row.learning_rate for row in history] == pytest.approx([2e-3, 0], abs=1e-6)
    facts = TrainingRecord.read(trained)
    assert facts.weights == Weights(kind="none", description="random weights")
    assert facts.valid_accuracy == max(row.val_accuracy for row in history)
    assert accuracy_of(trained, examples, tmp_path / "evaluation") == pytest.approx(facts.valid_accuracy, abs=1e-6)


def test_tensorboards_logs_are_with_the_model_or_where_they_are_asked_for(trained, head_elsewhere):
    for kind in ("train", "validation"):
        assert list((trained / "tensorboard" / "scratch" / kind).glob("events.out.tfevents.*"))
    result, folder = head_elsewhere
    assert list((folder / "logs" / "head" / "train").glob("events.out.tfevents.*"))
    assert not (result.folder / "tensorboard").exists()


def test_curves_stand_alone_and_say_synthetic_only_of_the_sample(head_only, head_elsewhere):
    page = (head_only.folder / "curves.html").read_text()
    addresses = {part.split('"')[0] for part in page.replace("'", '"').split('"') if "//" in part}
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "synthetic sample" not in page
    drawn, _ = head_elsewhere
    assert "synthetic sample" in (drawn.folder / "curves.html").read_text()
    assert TrainingRecord.read(drawn.folder).synthetic is True


def test_no_epochs_for_the_head_is_refused(train_head):
    with pytest.raises(ValueError, match="head_epochs"):
        train_head("nothing", head_epochs=0)


def test_a_wrong_layer_is_told_before_anything_learns(train_head, caplog):
    caplog.set_level("INFO", "sat_xception")
    with pytest.raises(ConfigError, match="--fine-tune-from 'block_99'"):
        train_head("wrong layer", fine_tune_epochs=1, fine_tune_from="block_99")
    assert "features" not in [record.getMessage().split()[0] for record in caplog.records]


def test_nothing_is_left_of_the_checkpoints_of_a_training_that_ended(head_only, head_elsewhere):
    assert not head_only.folder.with_name("plain.checkpoints").exists()
    (left,) = [path for path in (head_elsewhere[1] / "kept").rglob("*") if path.is_file()]
    assert left.parent.name == "0123456789abcdef"  # of another training


@pytest.mark.parametrize("split", ["train", "valid"])
def test_examples_without_a_tile_to_learn_from_or_to_check_on_are_refused(train_head, unbalanced, tmp_path, split):
    described = read(unbalanced, "examples.json")
    del described["splits"][split]
    (tmp_path / "examples.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match=f"no tile in the {split} split"):
        train_head("no split", examples=tmp_path)


def test_a_class_without_a_tile_to_learn_from_is_refused(train_head, unbalanced, tmp_path):
    described = read(unbalanced, "examples.json")
    described["classes"].append("stadium")
    (tmp_path / "examples.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match="class 'stadium' has no tile in the train split"):
        train_head("no class", examples=tmp_path)


def test_a_folder_that_holds_no_examples_is_refused(train_head, tmp_path):
    with pytest.raises(DataError, match=r"examples\.json is missing"):
        train_head("no examples", examples=tmp_path)
    (tmp_path / "examples.json").write_text("{")
    with pytest.raises(DataError, match="can't be read"):
        train_head("broken examples", examples=tmp_path)


def test_a_damaged_file_of_examples_is_told_and_leaves_nothing(unbalanced, small_weights, tmp_path):
    damaged = shutil.copytree(unbalanced, tmp_path / "examples")
    file = next((damaged / "train").iterdir())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(DataError, match="can't be read: corrupted record at"):
        train(TrainConfig(examples=damaged, out=tmp_path / "out/model", **{**COMMON, "weights": str(small_weights)}))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_of_weights_that_doesnt_fit_leaves_nothing(unbalanced, small_weights, tmp_path):
    settings = {**COMMON, "weights": str(small_weights), "alpha": 0.5}
    with pytest.raises(ModelError, match=r"alpha 0\.5 is to be trained"):
        train(TrainConfig(examples=unbalanced, out=tmp_path / "model", **settings))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_training_leaves_the_model_before_it_and_nothing_else(unbalanced, tmp_path, monkeypatch):
    out = tmp_path / "model"
    out.mkdir()
    (out / "train.json").write_text("the model before")
    due = Checkpoints.due
    calls = []

    def interrupted(self, *args, **kwargs):
        # Raised between two steps: from another thread it could come where Python or Keras swallows it.
        calls.append(self)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return due(self, *args, **kwargs)

    monkeypatch.setattr(Checkpoints, "due", interrupted)
    endless = {"scratch_epochs": 10**6, "patience": 10**6}
    with pytest.raises(KeyboardInterrupt):
        train(TrainConfig(examples=unbalanced, out=out, **{**COMMON, "weights": "none", **endless}))
    # What was learnt is kept beside it, until the same command goes on and ends.
    assert {path.name for path in tmp_path.iterdir()} <= {"model", "model.checkpoints"}
    assert [path.name for path in out.iterdir()] == ["train.json"]
    assert (out / "train.json").read_text() == "the model before"


def test_a_tile_counts_as_much_as_its_weight_times_that_of_its_class(examples):
    config = TrainConfig(examples=examples, out=examples / "out")
    run = TrainingSession(config, 32, ["a", "b"], {0: 0.5, 1: 2.0})
    assert run.weigh(tf.constant([0, 1, 1], tf.int64), tf.constant([1.0, 1.0, 3.0])).numpy().tolist() == [0.5, 2.0, 6.0]
    run.class_weight = None
    assert run.weigh(tf.constant([0, 1], tf.int64), tf.constant([1.0, 3.0])).numpy().tolist() == [1.0, 3.0]
