"""A phase whose loss becomes infinite or not a number: such an epoch is never the best one, and is the last."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sat_xception.errors import ServiceError
from sat_xception.model.checkpoint import Checkpoints
from sat_xception.model.features import FeatureBatches
from sat_xception.model.phase import Phase
from sat_xception.process import StopRequest

pytestmark = pytest.mark.usefixtures("eager_steps")

ROWS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
LABELS = (ROWS[:, 0] > 0).astype(np.int64)
STEPS = 5
DATA = FeatureBatches(tf.constant(ROWS), tf.constant(LABELS), tf.ones(40), batch_size=8, seed=4)
# All of the first class: what a model of NaN says of every tile is right here.
VALID = tf.data.Dataset.from_tensor_slices((ROWS[:20], np.zeros(20, np.int64))).batch(8)


def learn(folder, sound_epochs, on_epoch=lambda row: None):
    """Run a phase whose rate is absurd after some epochs; return it, its model and its history."""
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, activation="softmax")])
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([sound_epochs * STEPS], [1e-3, 1e38])
    if not sound_epochs:
        rate = 1e38
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    checkpoints = Checkpoints(folder, "0123456789abcdef", 3600.0)
    phase = Phase("fine-tune", model, 9, 9, checkpoints, StopRequest())
    rows = []

    def add(row):
        on_epoch(row)
        rows.append(row)

    with checkpoints.naming_what_is_kept():
        phase.run(DATA, VALID, add)
    return phase, model, rows


def test_an_epoch_that_diverges_is_the_last_one_and_never_the_best(tmp_path, caplog):
    phase, model, rows = learn(tmp_path, sound_epochs=2)
    assert rows[-1].val_accuracy == 1, "the largest of NaN is the first class, which is right here"
    assert rows[-1].val_loss is None
    assert len(rows) < 9 and all(row.val_loss is not None for row in rows[:-1])
    assert phase.progress.best == max(row.val_accuracy for row in rows[:-1]) < 1
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert model.evaluate(VALID, verbose=0, return_dict=True)["accuracy"] == pytest.approx(phase.progress.best)
    assert f"ended: the loss or a weight isn't finite after epoch {len(rows)}" in caplog.text


def test_a_phase_without_a_finite_loss_has_no_best_epoch_and_begins_anew(tmp_path, caplog):
    phase, _, rows = learn(tmp_path, sound_epochs=0)
    assert (len(rows), phase.progress.best, phase.progress.diverged) == (1, -1, True)
    assert "best validation accuracy" not in caplog.text
    again, _, rows = learn(tmp_path, sound_epochs=2)
    assert again.progress.best >= 0 and len(rows) > 1


def test_a_phase_that_diverged_and_is_run_again_keeps_its_best_epoch(tmp_path):
    phase, model, rows = learn(tmp_path, sound_epochs=2)
    again, twin, nothing = learn(tmp_path, sound_epochs=2)
    assert (nothing, again.progress.rows, again.progress.best) == ([], rows, phase.progress.best)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_that_are_not_finite_are_never_kept_whatever_the_loss_says(tmp_path, monkeypatch):
    run_epoch = Phase._run_epoch

    def spoil(phase, *given):
        row = run_epoch(phase, *given)
        if row.epoch == 2:
            kernel = phase.model.layers[-1].kernel
            kernel.assign(tf.fill(kernel.shape, np.inf))
            return row.model_copy(update={"val_accuracy": 1.0})
        return row

    monkeypatch.setattr(Phase, "_run_epoch", spoil)
    phase, model, rows = learn(tmp_path, sound_epochs=8)
    assert (len(rows), phase.progress.diverged) == (2, True)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_an_epoch_that_cant_be_shown_is_kept_and_the_error_names_where(tmp_path):
    def show(row):
        if row.epoch == 3:
            raise ServiceError("no space left while writing events")

    undisturbed, model, _ = learn(tmp_path / "a", sound_epochs=5)
    with pytest.raises(ServiceError) as caught:
        learn(tmp_path / "b", sound_epochs=5, on_epoch=show)
    folder = tmp_path / "b" / "0123456789abcdef"
    assert str(caught.value) == (
        f"no space left while writing events. What was learnt before is kept in {folder}: "
        "the same command goes on from there"
    )
    again, twin, rows = learn(tmp_path / "b", sound_epochs=5)
    assert rows[0].epoch == 4 and len(again.progress.rows) == len(undisturbed.progress.rows)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_error_before_anything_is_kept_stays_as_it_is(tmp_path):
    def show(row):
        raise ServiceError("no space left while writing events")

    with pytest.raises(ServiceError, match=r"events$"):
        learn(tmp_path, sound_epochs=0, on_epoch=show)
