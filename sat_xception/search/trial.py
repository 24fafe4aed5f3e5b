"""One trial of a search: a head on features that all trials share, and fine-tuning if requested."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sat_xception.errors import DivergedError
from sat_xception.log import duration, get_logger
from sat_xception.model.backbones import get_backbone
from sat_xception.model.checkpoint import NoCheckpoints
from sat_xception.model.features import Features
from sat_xception.model.head import head_layers
from sat_xception.model.input import reading
from sat_xception.model.network import add_head, build_backbone, freeze_before
from sat_xception.model.parts import Epoch
from sat_xception.model.phase import Phase
from sat_xception.model.session import Lesson, TrainingSession
from sat_xception.model.settings import TrainConfig
from sat_xception.model.weights import WeightsOrigin
from sat_xception.process import StopRequest
from sat_xception.storage import scratch_folder, write_json

__all__ = ["Outcome", "Report", "TrialData", "prepare_features", "run_trial"]

_log = get_logger(__name__)
_ARRAYS = ("rows", "labels", "weights")
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
    """Data that all trials share; it is passed between processes.

    Attributes:
        features: Folder of the frozen features.
        weights: Initial weights of the backbone.
        input_size: Height and width in pixels.
        classes: Class names.
        class_weight: Weight of each class, where classes are weighed.
    """

    features: Path
    weights: WeightsOrigin
    input_size: int
    classes: list[str]
    class_weight: dict[int, float]

    def run(self, config: TrainConfig) -> TrainingSession:
        """Return what a training with these settings reads."""
        weights = self.class_weight if config.class_weights else None
        return TrainingSession(config, self.input_size, self.classes, weights)

    def backbone(self, config: TrainConfig) -> keras.Model:
        """Build the backbone."""
        return build_backbone(config.backbone, self.input_size, config.alpha, self.weights)

    def state_after_backbone(self) -> tuple[Any, ...]:
        """Return the state of Python's random numbers after a backbone is built."""
        version, state, gauss = json.loads((self.features / _RANDOM).read_text(encoding="utf-8"))
        return version, tuple(state), gauss

    def load(self, split: str) -> Features:
        """Return the features of a split."""
        return Features(*(np.load(self.features / f"{split}-{name}.npy", mmap_mode="r") for name in _ARRAYS))


def prepare_features(data: TrialData, config: TrainConfig) -> None:
    """Compute the features of both splits, unless an earlier run has; the folder is written atomically."""
    if data.features.is_dir():
        _log.info("features  those of an earlier run, in %s", data.features)
        return
    keras.utils.set_random_seed(config.seed)
    run, network = data.run(config), data.backbone(config)
    version, state, gauss = random.getstate()
    started = tf.timestamp()
    with reading(config.examples):
        found = dict(zip(("train", "valid"), run.features(network), strict=True))
    with scratch_folder(".features-", data.features.parent) as work:
        for split, features in found.items():
            for name in _ARRAYS:
                np.save(work / f"{split}-{name}.npy", getattr(features, name))
        write_json(work / _RANDOM, [version, state, gauss])
        os.replace(work, data.features)
    seconds = float(tf.timestamp() - started)
    _log.info("features  %s views of tiles in %s, for all trials", f"{len(found['train'].rows):,}", duration(seconds))


def run_trial(data: TrialData, config: TrainConfig, report: Report) -> Outcome:
    """Train with a trial's settings; nothing is written.

    Args:
        data: Data that all trials share.
        config: The trial's settings; with `fine_tune_epochs` the backbone learns, too.
        report: Told every epoch. Steps of fine-tuning come after the last that the head may have.

    Raises:
        DivergedError: The loss isn't finite.
        Exception: Raised by `report` to end the trial.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(config.seed)
    # Keras draws the seeds of layers from Python's generator. In train the backbone's come first: with the state after
    # them the head begins with the weights that it has there, and learns the same.
    random.setstate(data.state_after_backbone())
    run = data.run(config)
    head = head_layers(config, len(data.classes))
    lesson = run.head_training(head, data.load("train"), data.load("valid"))
    outcome = _learn("head", lesson, config.head_epochs, config, report, 0)
    if config.fine_tune_epochs == 0:
        return outcome
    model = add_head(data.backbone(config), head)
    first = config.fine_tune_from or get_backbone(config.backbone).fine_tune_from
    freeze_before(model.get_layer(config.backbone), first)
    with reading(config.examples):
        lesson = run.fine_tuning(model)
        tuned = _learn("fine-tune", lesson, config.fine_tune_epochs, config, report, config.head_epochs)
    return max(tuned, outcome, key=lambda one: one.accuracy)  # the first of equals, as in train


def _learn(phase: str, lesson: Lesson, epochs: int, config: TrainConfig, report: Report, first_step: int) -> Outcome:
    model, batches, checks = lesson
    learning = Phase(phase, model, epochs, config.patience, NoCheckpoints(), StopRequest(), silent=True)

    def tell(row: Epoch) -> None:
        if not learning.progress.diverged:
            report(first_step + row.epoch - 1, row.score)

    learning.run(batches, checks, tell)
    if learning.progress.diverged:
        raise DivergedError(f"{phase}: the loss or a weight isn't finite after epoch {learning.progress.epoch}")
    best = max(learning.progress.rows, key=lambda row: row.score)
    assert best.val_loss is not None  # else it has diverged
    return Outcome(best.score, best.val_loss, phase)
