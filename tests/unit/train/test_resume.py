"""A training that is killed at any moment goes on from there, and ends as if nothing had happened."""

import functools
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_xception.errors import PreemptedError
from sat_xception.model.checkpoint import Checkpoints, State, fingerprint
from sat_xception.model.features import FeatureBatches, compute_features, frozen
from sat_xception.model.phase import Phase
from sat_xception.model.settings import TrainConfig
from sat_xception.process import StopRequest, stop_on_signals
from sat_xception.storage import GcsPath, list_files
from sat_xception.train.record import TrainingHistory, TrainingRecord
from sat_xception.train.train import train
from tests.conftest import FROM_SCRATCH
from tests.small_models import steps_run
from tests.storage_proxy import running_emulator

ROWS = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
LABELS = (ROWS[:, 0] + ROWS[:, 1] ** 2 > 0.7).astype(np.int64)
DATA = FeatureBatches(tf.constant(ROWS), tf.constant(LABELS), tf.ones(50), batch_size=8, seed=4)
VALID = tf.data.Dataset.from_tensor_slices((ROWS[:20], LABELS[:20])).batch(8)


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing is saved."""


def network():
    """Return a model with all that a checkpoint must hold: dropout, batch-norm, Adam's slots, a falling rate."""
    keras.utils.set_random_seed(2)
    rows = keras.Input((6,))
    inner = keras.layers.BatchNormalization()(keras.layers.Dense(16, activation="relu")(rows))
    out = keras.layers.Dense(2, activation="softmax")(keras.layers.Dropout(0.4)(inner))
    model = keras.Model(rows, out)
    rate = keras.optimizers.schedules.CosineDecay(0.05, decay_steps=60)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def checkpoints_in(folder, every_s=0.0):
    return Checkpoints(folder, "0123456789abcdef", every_s)


@dataclass
class Anew:
    """One network whose every variable is put back: as good as a new one, and its graphs are traced once."""

    model: keras.Model
    step: Callable[..., Any]
    first: list[np.ndarray]

    @classmethod
    def made(cls):
        model = network()
        model.optimizer.build(model.trainable_variables)
        model.test_on_batch(*next(iter(VALID)))  # makes the metrics
        model.reset_metrics()
        model.make_train_function()
        return cls(model, model.train_function, [variable.numpy() for variable in cls.variables(model)])

    @staticmethod
    def variables(model):
        return [*model.variables, *model.optimizer.variables, *model.metrics_variables]

    def again(self):
        self.model.train_function = self.step
        for variable, value in zip(self.variables(self.model), self.first, strict=True):
            variable.assign(value)
        return self.model


@functools.cache
def anew():
    return Anew.made()


def run_phase(folder, after_steps=None, notice=None, patience=3, at_step=None):
    """Run the phase to its end, or until the killer strikes; return history and weights."""
    model = anew().again()
    phase = Phase("head", model, 8, patience, checkpoints_in(folder), notice or StopRequest())
    step, left = model.train_function, [after_steps]

    def mortal(iterator):
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                (at_step or die)()
        return step(iterator)

    model.train_function = mortal
    phase.run(DATA, VALID, lambda row: None)
    rows = [{name: value for name, value in row if name != "seconds"} for row in phase.progress.rows]
    return rows, [weight.tobytes() for weight in model.get_weights()]


def die():
    raise KilledError


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run_phase(tmp_path_factory.mktemp("undisturbed"))


def test_a_network_that_is_put_back_learns_what_a_new_one_does(undisturbed, tmp_path):
    model = network()
    phase = Phase("head", model, 8, 3, checkpoints_in(tmp_path), StopRequest())
    phase.run(DATA, VALID, lambda row: None)
    assert [weight.tobytes() for weight in model.get_weights()] == undisturbed[1]


def test_ten_kills_at_random_steps_change_nothing(undisturbed, tmp_path):
    kills, rng = 0, random.Random(7)
    while kills < 10:
        try:
            run_phase(tmp_path, after_steps=rng.randrange(1, 7))
        except KilledError:
            kills += 1
    assert run_phase(tmp_path) == undisturbed


def test_early_stopping_counts_over_a_kill(tmp_path):
    alone = run_phase(tmp_path / "alone", patience=1)
    assert len(alone[0]) < 8
    for steps in (3, 8):
        with pytest.raises(KilledError):
            run_phase(tmp_path / "killed", after_steps=steps, patience=1)
    assert run_phase(tmp_path / "killed", patience=1) == alone


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:-9] + b"?" + data[-8:]])
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(undisturbed, tmp_path, caplog, damage):
    with pytest.raises(KilledError):
        run_phase(tmp_path, after_steps=9)
    files = sorted(tmp_path.rglob("head-*.npz"), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 2
    files[1].write_bytes(damage(files[1].read_bytes()))
    caplog.set_level("INFO", "sat_xception")
    assert run_phase(tmp_path) == undisturbed
    assert f"{files[1]} is damaged" in caplog.text
    assert "resume    head: epoch 2, step 1" in caplog.text  # 9 steps of 7 an epoch were done, less the last


def test_with_both_checkpoints_damaged_it_begins_anew(undisturbed, tmp_path):
    with pytest.raises(KilledError):
        run_phase(tmp_path, after_steps=9)
    for file in tmp_path.rglob("head-*.npz"):
        file.write_bytes(b"")
    assert run_phase(tmp_path) == undisturbed


def test_a_notice_ends_the_step_saves_and_says_what_to_do(undisturbed, tmp_path):
    with stop_on_signals(signal.SIGTERM) as notice:
        with pytest.raises(PreemptedError, match=r"0123456789abcdef: run the same command again") as caught:
            run_phase(tmp_path, 3, notice, at_step=lambda: signal.raise_signal(signal.SIGTERM))
    assert caught.value.exit_code == 75
    state = checkpoints_in(tmp_path).load("head")
    assert (state.facts["epoch"], state.facts["step"]) == (0, 4)
    assert run_phase(tmp_path) == undisturbed


def test_a_notice_during_validation_keeps_the_epoch(undisturbed, tmp_path):
    notice, asked = StopRequest(), iter(range(10**6))
    phase = Phase("head", anew().again(), 8, 3, checkpoints_in(tmp_path), notice)

    def batches():
        if next(asked):  # the first batch of all is taken to make the metrics
            notice.signal_number = signal.SIGTERM
        yield from VALID

    valid = tf.data.Dataset.from_generator(batches, output_signature=VALID.element_spec)
    with pytest.raises(PreemptedError):
        phase.run(DATA, valid, lambda row: None)
    state = checkpoints_in(tmp_path).load("head")
    assert (state.facts["epoch"], state.facts["step"]) == (0, DATA.steps)
    assert run_phase(tmp_path) == undisturbed


def test_sigterm_is_left_as_it_was_after_the_training_and_alone_in_other_threads():
    before = signal.getsignal(signal.SIGTERM)
    seen = []
    with stop_on_signals(signal.SIGTERM):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before

    def elsewhere():
        with stop_on_signals(signal.SIGTERM):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.fixture(scope="module")
def backbone():
    """Mean colour as features, which counts the batches that it sees."""
    pixels = keras.Input((4, 4, 3), dtype="uint8")
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pixels)))


@pytest.fixture(scope="module")
def tiles():
    images = np.random.default_rng(3).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
    return tf.data.Dataset.from_tensor_slices((images, np.arange(10), np.ones(10, np.float32))).batch(2)


def compute(backbone, tiles, folder, notice=None, every_s=0.0):
    return compute_features(
        frozen(backbone), "train", tiles, 2, checkpoints_in(folder, every_s), notice or StopRequest()
    )


def test_features_are_computed_once_and_go_on_from_the_parts_that_are_whole(backbone, tiles, tmp_path):
    whole = compute(backbone, tiles, tmp_path / "alone")
    assert whole.rows.shape == (20, 3)
    assert whole.labels.tolist() == [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7, 8, 9, 8, 9]

    def until(batch):
        for number, item in enumerate(tiles):
            if number == batch:
                die()
            yield item

    mortal = tf.data.Dataset.from_generator(lambda: until(3), output_signature=tiles.element_spec)
    with pytest.raises(tf.errors.OpError):
        compute(backbone, mortal, tmp_path / "killed")
    parts = sorted((tmp_path / "killed").rglob("features-train-*.npz"))
    assert len(parts) == 3
    parts[1].write_bytes(parts[1].read_bytes()[:-1])
    again = compute(backbone, tiles, tmp_path / "killed", every_s=1000)  # one part from the damaged one on
    for one, other in ((whole, again), (whole, compute(backbone, tiles, tmp_path / "killed"))):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.labels, other.labels)
    given = StopRequest()
    given.signal_number = signal.SIGTERM
    with pytest.raises(PreemptedError):
        compute(backbone, tiles, tmp_path / "asked", given, every_s=1000)
    assert len(list((tmp_path / "asked").rglob("features-train-*.npz"))) == 1


def test_checkpoints_of_another_training_are_told_and_left_alone(tmp_path, caplog):
    caplog.set_level("INFO", "sat_xception")
    names = [fingerprint({"seed": seed}) for seed in (0, 1)]
    first = Checkpoints(tmp_path, names[0], 0)
    first.save("head", State({"epoch": 1}))
    second = Checkpoints(tmp_path, names[1], 0)
    assert second.load("head") is None
    assert "of other settings, data or weights; they aren't used" in caplog.text
    second.save("head", State({"epoch": 2}))
    second.remove()
    assert Checkpoints(tmp_path, names[0], 0).load("head").facts["epoch"] == 1
    Checkpoints(tmp_path, names[0], 0).remove()
    assert not tmp_path.exists()  # nobody keeps anything there any more


def test_a_place_of_ones_own_is_removed_with_what_older_settings_left_there(tmp_path):
    for name in ("0" * 16, "1" * 16):
        Checkpoints(tmp_path, name, 0).save("head", State({"epoch": 1}))
    Checkpoints(tmp_path, "1" * 16, 0, shared=False).remove()
    assert not tmp_path.exists()


def test_checkpoints_come_by_time_and_at_epochs_unless_that_is_too_often(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    checkpoints = checkpoints_in(tmp_path, every_s=600)
    for wait, at_step, at_epoch in ((4, False, False), (6, False, True), (599, False, True), (600, True, True)):
        now[0] = 100.0 + wait
        assert (checkpoints.due(), checkpoints.due(at_rest=True)) == (at_step, at_epoch)


NAMES = ("backbone", "weights", "alpha", "input_size", "scratch_epochs")


def end_of(folder):
    epochs = [row.model_copy(update={"seconds": None}) for row in TrainingHistory.read(folder).epochs]
    return epochs, TrainingRecord.read(folder).weights_digest


def test_a_training_that_is_killed_and_the_same_again_give_the_model_of_an_undisturbed_one(
    examples, tmp_path, monkeypatch, small_mobilenet
):
    settings = {"examples": examples, "checkpoint_minutes": 0, **FROM_SCRATCH}
    with steps_run(eagerly=True):
        undisturbed = train(TrainConfig(out=tmp_path / "alone", **settings))
        save, saved = Checkpoints.save, []

        def save_and_die(self, name, state):
            save(self, name, state)
            saved.append((state.facts["epoch"], state.facts["step"]))
            if len(saved) == 3:
                die()

        with monkeypatch.context() as patch, pytest.raises(KilledError):
            patch.setattr(Checkpoints, "save", save_and_die)
            train(TrainConfig(out=tmp_path / "m", **settings))
        assert saved == [(0, 1), (0, 2), (1, 0)]
        assert not (tmp_path / "m").exists()
        again = train(TrainConfig(out=tmp_path / "m", **settings))
    assert end_of(again.folder) == end_of(undisturbed.folder)
    assert not (tmp_path / "m.checkpoints").exists()


# The command, with the small network in place of MobileNetV2.
COMMAND = """
from sat_xception.model.backbones import BACKBONES
from tests.small_models import SMALL_MOBILENET
BACKBONES["mobilenetv2"] = SMALL_MOBILENET
from sat_xception.cli import console
console()
"""


@pytest.mark.slow  # a process that imports TensorFlow
def test_sigkill_of_the_command_and_the_same_again_give_the_model_of_an_undisturbed_one(
    trained, examples, tmp_path, small_mobilenet
):
    settings = TrainingRecord.read(trained).config
    flags = [item for name in NAMES for item in (f"--{name.replace('_', '-')}", str(settings[name]))]
    command = [sys.executable, "-c", COMMAND, "train", "--examples", str(examples), "--out", str(tmp_path / "m")]
    process = subprocess.Popen(
        [*command, *flags, "--checkpoint-minutes", "0"], stderr=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("m.checkpoints/*/scratch-*.npz"))) < 2 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    train(TrainConfig(examples=examples, out=tmp_path / "m", **{name: settings[name] for name in NAMES}))
    assert end_of(tmp_path / "m") == end_of(trained)
    assert not (tmp_path / "m.checkpoints").exists()


def test_checkpoints_in_a_bucket_are_found_and_removed(monkeypatch, caplog):
    caplog.set_level("INFO", "sat_xception")
    with running_emulator("models") as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        place = GcsPath("gs://models/checkpoints")
        rows = np.arange(6, dtype=np.float32).reshape(2, 3)
        for epoch in range(3):
            Checkpoints(place, "0" * 16, 0).save_part(f"head-{epoch % 2}", State({"number": epoch}, {"best": [rows]}))
        found = Checkpoints(place, "0" * 16, 0)
        assert f"from the checkpoints in {place}/{'0' * 16}" in caplog.text
        state = found.load("head")
        assert state.facts["number"] == 2
        np.testing.assert_array_equal(state.arrays["best"][0], rows)
        other = Checkpoints(place, "1" * 16, 0)
        assert other.load("head") is None
        found.remove()
        assert list_files(place) == []
