"""What a training and a trial of a search share: the data that phases learn from, and how each learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sat_xception import __version__
from sat_xception.errors import DataError
from sat_xception.examples.index import ExamplesIndex
from sat_xception.model.backbones import get_backbone
from sat_xception.model.checkpoint import Checkpoints, NoCheckpoints
from sat_xception.model.features import FeatureBatches, Features, compute_features, frozen
from sat_xception.model.head import compile_model
from sat_xception.model.input import TileBatches, evaluation_batches, training_batches, weighted_batches
from sat_xception.model.phase import Batches, Phase
from sat_xception.model.settings import TrainConfig
from sat_xception.model.stop_request import StopRequest
from sat_xception.model.tensorboard import TensorBoardWriter
from sat_xception.storage import reporting_disk_errors

__all__ = ["Lesson", "TrainingSession", "check_examples", "class_weights", "versions"]

# The head's steps are tiny; larger batches keep the overhead of a step small. Measured on 1,140 feature rows: 256 is 5
# times faster an epoch than 32 and ends at the same accuracy.
_HEAD_BATCH = 256

# A compiled model, what it learns from, and what it is judged by.
Lesson = tuple[keras.Model, Batches, tf.data.Dataset]


@dataclass
class TrainingSession:
    """One training: what it reads, what it has learnt so far, and where that is kept.

    Attributes:
        config: Its settings.
        input_size: Height and width in pixels.
        classes: Class names.
        class_weight: Weight of each class in the loss; None where they aren't weighed.
        logs: Folder for TensorBoard's logs of `fit`.
        checkpoints: Where it is kept.
        notice: Says when to stop.
        xla: Whether steps are compiled by XLA.
        history: A row an epoch, over all phases.
        seconds: Time of each phase.
    """

    config: TrainConfig
    input_size: int
    classes: list[str]
    class_weight: dict[int, float] | None
    logs: Path = Path()
    checkpoints: Checkpoints = field(default_factory=NoCheckpoints)
    notice: StopRequest = field(default_factory=StopRequest)
    xla: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def weigh(self, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Return how much tiles count in the loss, `float32 [n]`: their own weight times that of their class."""
        by_class = [(self.class_weight or {}).get(index, 1.0) for index in range(len(self.classes))]
        return weights * tf.gather(tf.constant(by_class), labels)

    def training(self, crop: float = 1.0) -> TileBatches:
        """Return the tiles to learn from; `crop` as in `augment.random_view`."""
        config, size = self.config, self.input_size
        return training_batches(config.examples, "train", size, config.batch_size, config.seed, self.weigh, crop)

    def validation(self) -> tf.data.Dataset:
        """Return the tiles to judge by."""
        return evaluation_batches(self.config.examples, "valid", self.input_size, self.config.batch_size)

    def features(self, network: keras.Model) -> tuple[Features, Features]:
        """Compute the frozen features of the train and the validation split, or what is left of them."""
        config, forward = self.config, frozen(network)

        def compute(split: str, views: int) -> Features:
            batches = weighted_batches(config.examples, split, self.input_size, config.batch_size)
            return compute_features(forward, split, batches, views, self.checkpoints, self.notice)

        return compute("train", config.views), compute("valid", 1)

    def head_training(self, layers: Sequence[keras.layers.Layer], train: Features, valid: Features) -> Lesson:
        """Return what the head learns from, frozen features, and the head alone as a model."""
        model = keras.Sequential([keras.Input(train.rows.shape[1:], name="features"), *layers], name="head_model")
        compile_model(model, self.config, self.config.head_learning_rate, self.config.label_smoothing)
        inputs, labels = tf.constant(train.rows), tf.constant(train.labels)
        batches = FeatureBatches(inputs, labels, self.weigh(labels, train.weights), _HEAD_BATCH, self.config.seed)
        checks = tf.data.Dataset.from_tensor_slices((valid.rows, valid.labels)).batch(_HEAD_BATCH)
        return model, batches, checks

    def fine_tuning(self, model: keras.Model) -> Lesson:
        """Return what fine-tuning learns from, and the model ready for it."""
        config, batches = self.config, self.training(self.config.fine_tune_crop)
        rate = config.fine_tune_learning_rate or get_backbone(config.backbone).fine_tune_learning_rate
        schedule = _warm_up_and_cosine(rate, config.fine_tune_epochs, batches.steps)
        compile_model(model, config, schedule, config.fine_tune_label_smoothing)
        return model, batches, self.validation()

    def fit(
        self, name: str, model: keras.Model, data: Batches, valid: tf.data.Dataset, epochs: int, patience: int = 0
    ) -> float | None:
        """Train, restore the best weights, record the history; return the best validation accuracy.

        None where no epoch had a finite loss; the model's weights are worth nothing then.

        Args:
            name: Of the phase.
            model: Compiled model.
            data: What it learns from.
            valid: What it is judged by.
            epochs: Most epochs.
            patience: Epochs without a better accuracy before it stops. Default: the settings'.
        """
        model.jit_compile = self.xla
        phase = Phase(name, model, epochs, patience or self.config.patience, self.checkpoints, self.notice)
        # TensorBoard's writers are TensorFlow's: what keeps them from writing comes as its own errors.
        with reporting_disk_errors(self.logs), TensorBoardWriter(self.logs / name, self.config.profile_steps) as board:
            phase.run(data, valid, board.add, board.on_step)
            if isinstance(data, TileBatches):
                board.show_samples(next(iter(data.epoch(0)))[0].numpy())
            found = phase.progress.best >= 0
            if found:
                labels = np.concatenate([batch[1].numpy() for batch in valid])
                board.show_confusion(labels, model.predict(valid, verbose=0), self.classes)
        self.history += phase.progress.rows
        self.seconds[name] = round(phase.progress.seconds, 3)
        return phase.progress.best if found else None


def _warm_up_and_cosine(rate: float, epochs: int, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a rate that rises in the first epoch, while Adam's means settle, and falls to 0 by the last."""
    return keras.optimizers.schedules.CosineDecay(
        rate / 10, decay_steps=max(1, (epochs - 1) * steps), warmup_target=rate, warmup_steps=steps
    )


def check_examples(examples: ExamplesIndex) -> None:
    """Look for a split or a class that training can't do without.

    Raises:
        DataError: Training or validation is empty, or training lacks a class.
    """
    for split in ("train", "valid"):
        if not examples.count(split):
            raise DataError(f"the examples have no tile in the {split} split; run assemble with a share for it")
    for label in examples.classes:
        if not examples.splits["train"].by_class.get(label):
            raise DataError(f"class {label!r} has no tile in the train split; add tiles, or remove the class")


def versions() -> dict[str, str]:
    """Return the versions of what has a say in what is learnt."""
    return {"sat_xception": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}


def class_weights(examples: ExamplesIndex) -> dict[int, float]:
    """Return weights that make every class count the same in the loss; their mean over the tiles is 1."""
    counts = examples.splits["train"].by_class
    total, classes = sum(counts.values()), examples.classes
    return {index: total / (len(classes) * counts[label]) for index, label in enumerate(classes)}
