"""The parts that a training and a trial of a search share: data, models and learning rates of each phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
from sat_xception.model.parts import Epoch
from sat_xception.model.phase import Batches, Phase
from sat_xception.model.settings import TrainConfig
from sat_xception.model.tensorboard import TensorBoardWriter
from sat_xception.process import StopRequest
from sat_xception.storage import reporting_disk_errors

__all__ = ["Lesson", "TrainingSession", "check_examples", "class_weights", "versions"]

# The head's steps are tiny, so larger batches reduce the overhead per step. On 1,140 feature rows, an epoch with 256
# was 5 times faster than with 32, at the same final accuracy.
_HEAD_BATCH = 256

# A compiled model, its training data and its validation data.
Lesson = tuple[keras.Model, Batches, tf.data.Dataset]


@dataclass
class TrainingSession:
    """One training: its settings, data, checkpoints and history.

    Attributes:
        config: Settings.
        input_size: Height and width of the input, in pixels.
        classes: Class names in index order.
        class_weight: Weight of each class in the loss; None without class weights.
        logs: Folder for the TensorBoard logs of `fit`.
        checkpoints: Checkpoints of this training.
        notice: Stop request.
        xla: Whether steps are compiled by XLA.
        history: Epochs of all phases.
        seconds: Duration of each phase.
    """

    config: TrainConfig
    input_size: int
    classes: list[str]
    class_weight: dict[int, float] | None
    logs: Path = Path()
    checkpoints: Checkpoints = field(default_factory=NoCheckpoints)
    notice: StopRequest = field(default_factory=StopRequest)
    xla: bool = False
    history: list[Epoch] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def weigh(self, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Return sample weights `float32 [n]`: the tile's own weight times that of its class."""
        by_class = [(self.class_weight or {}).get(index, 1.0) for index in range(len(self.classes))]
        return weights * tf.gather(tf.constant(by_class), labels)

    def training(self, crop: float = 1.0) -> TileBatches:
        """Return the training tiles; `crop` as in `augment.random_view`."""
        config, size = self.config, self.input_size
        return training_batches(config.examples, "train", size, config.batch_size, config.seed, self.weigh, crop)

    def validation(self) -> tf.data.Dataset:
        """Return the validation tiles."""
        return evaluation_batches(self.config.examples, "valid", self.input_size, self.config.batch_size)

    def features(self, network: keras.Model) -> tuple[Features, Features]:
        """Compute the frozen features of the train and validation splits; parts in the checkpoints are reused."""
        config, forward = self.config, frozen(network)

        def compute(split: str, views: int) -> Features:
            batches = weighted_batches(config.examples, split, self.input_size, config.batch_size)
            return compute_features(forward, split, batches, views, self.checkpoints, self.notice)

        return compute("train", config.views), compute("valid", 1)

    def head_training(self, layers: Sequence[keras.layers.Layer], train: Features, valid: Features) -> Lesson:
        """Return the head as a model, with frozen features as its data."""
        model = keras.Sequential([keras.Input(train.rows.shape[1:], name="features"), *layers], name="head_model")
        compile_model(model, self.config, self.config.head_learning_rate, self.config.label_smoothing)
        inputs, labels = tf.constant(train.rows), tf.constant(train.labels)
        batches = FeatureBatches(inputs, labels, self.weigh(labels, train.weights), _HEAD_BATCH, self.config.seed)
        checks = tf.data.Dataset.from_tensor_slices((valid.rows, valid.labels)).batch(_HEAD_BATCH)
        return model, batches, checks

    def fine_tuning(self, model: keras.Model) -> Lesson:
        """Return the model, compiled for fine-tuning, with its data."""
        config, batches = self.config, self.training(self.config.fine_tune_crop)
        rate = config.fine_tune_learning_rate or get_backbone(config.backbone).fine_tune_learning_rate
        schedule = _warm_up_and_cosine(rate, config.fine_tune_epochs, batches.steps)
        compile_model(model, config, schedule, config.fine_tune_label_smoothing)
        return model, batches, self.validation()

    def fit(
        self, name: str, model: keras.Model, data: Batches, valid: tf.data.Dataset, epochs: int, patience: int = 0
    ) -> float | None:
        """Train, restore the best weights and record the history; return the best validation accuracy.

        It is None if no epoch had a finite loss; the model's weights are useless then.

        Args:
            name: Name of the phase.
            model: Compiled model.
            data: Training data.
            valid: Validation data.
            epochs: Maximum number of epochs.
            patience: Number of epochs without a better accuracy before it stops. 0: as in the settings.
        """
        model.jit_compile = self.xla
        phase = Phase(name, model, epochs, patience or self.config.patience, self.checkpoints, self.notice)
        # The TensorBoard writers raise TensorFlow's own errors if they can't write.
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
    """Check that the splits and classes that training needs have tiles.

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
    """Return the versions of the libraries that affect the result of a training."""
    return {"sat_xception": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}


def class_weights(examples: ExamplesIndex) -> dict[int, float]:
    """Return class weights that balance the classes in the loss; their mean over the tiles is 1."""
    counts = examples.splits["train"].by_class
    total, classes = sum(counts.values()), examples.classes
    return {index: total / (len(classes) * counts[label]) for index, label in enumerate(classes)}
