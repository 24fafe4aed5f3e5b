"""One trial of a search: a head on features that all trials share, and fine-tuning where it is asked for."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from sat_xception.log import duration, get_logger
from sat_xception.model.backbones import add_head, build_backbone, freeze_before, get_backbone
from sat_xception.model.head import compile_model, head_layers
from sat_xception.model.input import reading
from sat_xception.model.train import _HEAD_BATCH, _compute_features, _Run
from sat_xception.model.weights import WeightsOrigin
from sat_xception.steps import TrainConfig
from sat_xception.storage import write_json

__all__ = ["Outcome", "Report", "TrialData", "prepare_features", "run_trial"]

_log = get_logger(__name__)
_ARRAYS = ("inputs", "labels", "weights", "valid_inputs", "valid_labels")
_RANDOM = "random.json"

# Told the step and the validation accuracy after each epoch; ends the trial by an exception.
Report = Callable[[int, float], None]


@dataclass(frozen=True)
class Outcome:
    """How well a trial did: the accuracy and the loss on the validation split, and the phase that reached it."""

    accuracy: float
    loss: float
    phase: str


@dataclass(frozen=True)
class TrialData:
    """What trials share; it goes from process to process.

    Attributes:
        features: Folder of the frozen features.
        weights: What the backbone starts from.
        input_size: Height and width in pixels.
        classes: Class names.
        class_weight: Weight of each class, where classes are weighed.
    """

    features: Path
    weights: WeightsOrigin
    input_size: int
    classes: list[str]
    class_weight: dict[int, float]

    def run(self, config: TrainConfig) -> _Run:
        """Return what a training with these settings reads."""
        weights = self.class_weight if config.class_weights else None
        return _Run(config, self.input_size, self.classes, weights, logs=config.out)

    def backbone(self, config: TrainConfig) -> keras.Model:
        """Build the backbone."""
        return build_backbone(config.backbone, self.input_size, config.alpha, self.weights)

    def state_after_backbone(self) -> tuple[Any, ...]:
        """Return the state of Python's random numbers after a backbone is built."""
        version, state, gauss = json.loads((self.features / _RANDOM).read_text(encoding="utf-8"))
        return version, tuple(state), gauss

    def load(self) -> dict[str, Any]:
        """Return the features: `inputs float32 [n, d]`, `labels int64 [n]`, `weights float32 [n]`, `valid_…`."""
        return {name: np.load(self.features / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}


def prepare_features(data: TrialData, config: TrainConfig) -> None:
    """Compute the features of both splits, unless an earlier run has; the folder appears whole or not at all."""
    if data.features.is_dir():
        _log.info("features  those of an earlier run, in %s", data.features)
        return
    keras.utils.set_random_seed(config.seed)
    run, network = data.run(config), data.backbone(config)
    version, state, gauss = random.getstate()
    started = tf.timestamp()
    with reading(config.examples):
        train = _compute_features(network, run, "train", config.views)
        valid = _compute_features(network, run, "valid", 1)[:2]
    work = Path(tempfile.mkdtemp(prefix=".features-", dir=data.features.parent))
    try:
        arrays: tuple[npt.NDArray[Any], ...] = (*train, *valid)
        for name, array in zip(_ARRAYS, arrays, strict=True):
            np.save(work / f"{name}.npy", array)
        write_json(work / _RANDOM, [version, state, gauss])
        os.replace(work, data.features)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    seconds = float(tf.timestamp() - started)
    _log.info("features  %s views of tiles in %s, for all trials", f"{len(train[0]):,}", duration(seconds))


def run_trial(data: TrialData, config: TrainConfig, report: Report) -> Outcome:
    """Train with a trial's settings; nothing is written.

    Args:
        data: What trials share.
        config: The trial's settings; with `fine_tune_epochs` the backbone learns, too.
        report: Told every epoch. Steps of fine-tuning come after the last that the head may have.

    Raises:
        Exception: What `report` raises to end the trial.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(config.seed)
    # Keras draws the seeds of layers from Python's generator. In train the backbone's come first: with the state after
    # them the head begins with the weights that it has there, and learns the same.
    random.setstate(data.state_after_backbone())
    run = data.run(config)
    head = head_layers(config, len(data.classes))
    outcome = _train_head(run, data.load(), head, report)
    if config.fine_tune_epochs == 0:
        return outcome
    model = add_head(data.backbone(config), head)
    first = config.fine_tune_from or get_backbone(config.backbone).fine_tune_from
    freeze_before(model.get_layer(config.backbone), first)
    compile_model(model, config, config.fine_tune_learning_rate)
    with reading(config.examples):
        batches, checks = run.training(), run.validation()
        tuned = _fit("fine-tune", model, batches, checks, config, config.fine_tune_epochs, report, config.head_epochs)
    return max(outcome, tuned, key=lambda one: one.accuracy)


def _train_head(run: _Run, rows: dict[str, Any], head: list[keras.layers.Layer], report: Report) -> Outcome:
    config = run.config
    model = keras.Sequential([keras.Input(rows["inputs"].shape[1:]), *head], name="head_model")
    compile_model(model, config, config.head_learning_rate)
    weights = run.weigh(rows["labels"], rows["weights"])
    batches = tf.data.Dataset.from_tensor_slices((rows["inputs"], rows["labels"], weights))
    batches = batches.shuffle(len(rows["inputs"]), seed=config.seed).batch(_HEAD_BATCH)
    checks = tf.data.Dataset.from_tensor_slices((rows["valid_inputs"], rows["valid_labels"])).batch(_HEAD_BATCH)
    return _fit("head", model, batches, checks, config, config.head_epochs, report, 0)


def _fit(
    phase: str,
    model: keras.Model,
    batches: tf.data.Dataset,
    checks: tf.data.Dataset,
    config: TrainConfig,
    epochs: int,
    report: Report,
    first_step: int,
) -> Outcome:
    stopping = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=config.patience, restore_best_weights=True
    )
    watch = _Watch(report, first_step)
    model.fit(batches, validation_data=checks, epochs=epochs, callbacks=[watch, stopping], shuffle=False, verbose=0)
    return Outcome(watch.accuracy, watch.loss, phase)


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Remember the best epoch, as early stopping sees it, and pass each on."""

    def __init__(self, report: Report, first_step: int) -> None:
        super().__init__()
        self._report, self._first_step = report, first_step
        self.accuracy, self.loss = -1.0, 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        row = logs or {}
        accuracy, loss = float(row["val_accuracy"]), float(row["val_loss"])
        if accuracy > self.accuracy:
            self.accuracy, self.loss = accuracy, loss
        self._report(self._first_step + epoch, accuracy)
