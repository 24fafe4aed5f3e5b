"""Transfer-learn one backbone.

With pretrained weights there are two phases. The backbone is frozen first: its features are computed once and a head
learns on them, which takes seconds an epoch instead of minutes. Then the last stage of the backbone learns too, at a
low rate. The better of the two, by validation accuracy, is kept. Random weights are not worth freezing: there the whole
network learns in one phase.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from sat_xception import __version__
from sat_xception.data.examples_index import ExamplesIndex, read_index
from sat_xception.errors import DataError
from sat_xception.evaluate.charts import curves_page
from sat_xception.log import duration, get_logger
from sat_xception.model.augment import view
from sat_xception.model.backbones import add_head, build_backbone, freeze_before, get_backbone
from sat_xception.model.head import compile_model, head_layers, uncompiled
from sat_xception.model.input import evaluation_batches, reading, training_batches, weighted_batches
from sat_xception.model.weights import find_weights
from sat_xception.steps import TrainConfig
from sat_xception.storage import atomic_folder, folder_digests, write_json

__all__ = ["TrainResult", "train"]

_log = get_logger(__name__)

# The head's steps are tiny; larger batches keep the overhead of a step small. Measured on 1,140 feature rows: 256 is 5
# times faster an epoch than 32 and ends at the same accuracy.
_HEAD_BATCH = 256
# Keras's 0.99 needs hundreds of steps before the running statistics mean anything; a small data set has a dozen an
# epoch. At 0.9 Xception's validation accuracy on the synthetic sample lagged three epochs behind, at 0.8 it didn't.
_SCRATCH_BATCH_NORM_MOMENTUM = 0.8


@dataclass(frozen=True)
class TrainResult:
    """What train made.

    Attributes:
        folder: Model folder: `model.keras`, `history.json`, `train.json`, `curves.html`.
        backbone: Name of the backbone.
        weights: What it started from.
        phase: The phase whose weights were kept: "head", "fine-tune" or "scratch".
        valid_accuracy: Best validation accuracy, that of the kept weights.
        epochs: Epochs of all phases together.
        seconds: Whole time of training.
    """

    folder: Path
    backbone: str
    weights: str
    phase: str
    valid_accuracy: float
    epochs: int
    seconds: float

    def main_figures(self) -> dict[str, float | str]:
        """Return the figures that runs are compared by, for the Kubeflow UI."""
        return {
            "validation accuracy": self.valid_accuracy,
            "epochs": self.epochs,
            "kept phase": self.phase,
            "seconds": round(self.seconds, 1),
        }

    def summary(self) -> str:
        """Return the accuracy and where the model is."""
        return (
            f"train     {self.backbone} from {self.weights} | validation accuracy {self.valid_accuracy:.4f} "
            f"({self.phase}) | {duration(self.seconds)}\nwrote     {self.folder}/model.keras"
        )


@dataclass
class _Run:
    """One training: what it reads, and what it has learnt so far."""

    config: TrainConfig
    input_size: int
    classes: list[str]
    class_weight: dict[int, float] | None
    logs: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def training(self) -> tf.data.Dataset:
        config = self.config
        batches = training_batches(config.examples, "train", self.input_size, config.batch_size, config.seed)
        return batches.map(lambda images, labels, weights: (images, labels, self.weigh(labels, weights)))

    def weigh(self, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Return how much tiles count in the loss, `float32 [n]`: their own weight times that of their class."""
        by_class = [(self.class_weight or {}).get(index, 1.0) for index in range(len(self.classes))]
        return weights * tf.gather(tf.constant(by_class), labels)

    def validation(self) -> tf.data.Dataset:
        return evaluation_batches(self.config.examples, "valid", self.input_size, self.config.batch_size)

    def fit(self, phase: str, model: keras.Model, data: object, valid: object, epochs: int, patience: int) -> float:
        """Train, restore the best weights, record the history; return the best validation accuracy."""
        started = time.monotonic()
        stopping = keras.callbacks.EarlyStopping(
            "val_accuracy", mode="max", patience=patience, restore_best_weights=True
        )
        board = keras.callbacks.TensorBoard(str(self.logs / phase), write_graph=False)
        model.fit(
            data,
            validation_data=valid,
            epochs=epochs,
            callbacks=[_Reporter(phase, epochs, self.history), stopping, board],
            shuffle=False,  # the data is shuffled already
            verbose=0,
        )
        self.seconds[phase] = round(time.monotonic() - started, 3)
        return max(float(row["val_accuracy"]) for row in self.history if row["phase"] == phase)


def train(config: TrainConfig) -> TrainResult:
    """Train, and write `model.keras`, `history.json`, `train.json`, `curves.html` and TensorBoard's logs.

    The model takes `uint8 [n, size, size, 3]` and returns probabilities `float32 [n, classes]` in class order.

    Raises:
        DataError: No usable examples.
        ConfigError: A setting doesn't fit the backbone.
        ModelError: The weights file doesn't fit the backbone.
        ServiceError: The ImageNet weights can't be downloaded.
    """
    started = time.monotonic()
    examples = read_index(config.examples)
    _check_examples(examples)
    weights = find_weights(config.weights, config.backbone, config.alpha)
    keras.utils.set_random_seed(config.seed)
    with atomic_folder(config.out, record="train.json") as work:
        run = _Run(
            config=config,
            input_size=config.input_size or get_backbone(config.backbone).input_size,
            classes=list(examples.classes),
            class_weight=_class_weight(examples) if config.class_weights else None,
            logs=config.tensorboard or work / "tensorboard",
        )
        features = build_backbone(config.backbone, run.input_size, config.alpha, weights)
        with reading(config.examples):
            learn = _train_from_scratch if weights.kind == "none" else _transfer
            model, phase, accuracy = learn(run, features)
        uncompiled(model).save(work / "model.keras")
        write_json(work / "history.json", run.history)
        page = curves_page(config.backbone, run.history, examples.synthetic)
        (work / "curves.html").write_text(page, encoding="utf-8")
        seconds = time.monotonic() - started
        epochs = len(run.history)
        result = TrainResult(config.out, config.backbone, weights.description, phase, accuracy, epochs, seconds)
        description = {
            "backbone": config.backbone,
            "input_size": run.input_size,
            "weights": weights.describe(),
            "classes": run.classes,
            "positive_label": examples.positive_label,
            "source": examples.source,
            "synthetic": examples.synthetic,
            "dataset_digest": examples.dataset_digest,
            "class_weight": run.class_weight,
            "kept_phase": phase,
            "valid_accuracy": accuracy,
            "seconds": {**run.seconds, "all": round(seconds, 3)},
            "hardware": _hardware(),
            "versions": {"sat_xception": __version__, "tensorflow": tf.__version__, "keras": keras.__version__},
            "config": config.resolved(),
        }
        write_json(work / "train.json", {**description, "model": folder_digests(work)["model.keras"]})
    return result


def _transfer(run: _Run, features: keras.Model) -> tuple[keras.Model, str, float]:
    config = run.config
    head = head_layers(config, len(run.classes))
    model = add_head(features, head)
    # Before the head learns, so that a wrong name is told now and not in an hour; the head's training changes no other
    # layer.
    first = config.fine_tune_from or get_backbone(config.backbone).fine_tune_from
    learning = freeze_before(model.get_layer(config.backbone), first)
    accuracy = _train_head(run, features, head)
    if config.fine_tune_epochs == 0:
        return model, "head", accuracy
    _log.info("fine-tune %s weights learn, at rate %g", f"{learning:,}", config.fine_tune_learning_rate)
    before = model.get_weights()
    compile_model(model, config, config.fine_tune_learning_rate)
    tuned = run.fit("fine-tune", model, run.training(), run.validation(), config.fine_tune_epochs, config.patience)
    if tuned > accuracy:
        return model, "fine-tune", tuned
    _log.info("kept      the head: fine-tuning reached %.4f, not more than %.4f", tuned, accuracy)
    model.set_weights(before)
    return model, "head", accuracy


def _train_head(run: _Run, features: keras.Model, head: Sequence[keras.layers.Layer]) -> float:
    config = run.config
    started = time.monotonic()
    inputs, labels, weights = _compute_features(features, run, "train", config.views)
    valid = _compute_features(features, run, "valid", 1)[:2]
    run.seconds["features"] = round(time.monotonic() - started, 3)
    _log.info("features  %s in %s", f"{len(inputs):,} views of tiles", duration(run.seconds["features"]))
    model = keras.Sequential([keras.Input(inputs.shape[1:], name="features"), *head], name="head_model")
    compile_model(model, config, config.head_learning_rate)
    rows_of_training = tf.data.Dataset.from_tensor_slices((inputs, labels, run.weigh(labels, weights)))
    batches = rows_of_training.shuffle(len(inputs), seed=config.seed).batch(_HEAD_BATCH)
    checks = tf.data.Dataset.from_tensor_slices(valid).batch(_HEAD_BATCH)
    return run.fit("head", model, batches, checks, config.head_epochs, config.patience)


def _compute_features(
    features: keras.Model, run: _Run, split: str, views: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return pooled features `float32 [views * n, d]`, labels `int64 [views * n]` and weights `float32 [views * n]`."""
    forward = tf.function(lambda images: features(images, training=False), reduce_retracing=True)
    rows, labels, weights = [], [], []
    batches = weighted_batches(run.config.examples, split, run.input_size, run.config.batch_size)
    for images, label, weight in batches:
        for index in range(views):
            rows.append(forward(view(images, index)).numpy())
            labels.append(label.numpy())
            weights.append(weight.numpy())
    return np.concatenate(rows), np.concatenate(labels), np.concatenate(weights)


def _train_from_scratch(run: _Run, features: keras.Model) -> tuple[keras.Model, str, float]:
    config = run.config
    for layer in features.get_layer(config.backbone).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = _SCRATCH_BATCH_NORM_MOMENTUM
    model = add_head(features, head_layers(config, len(run.classes)), batch_norm_trains=True)
    batches = run.training()
    # Most of the gain comes while the rate falls in the last third, so all epochs are run.
    rate = keras.optimizers.schedules.CosineDecay(
        config.scratch_learning_rate or get_backbone(config.backbone).scratch_learning_rate,
        decay_steps=config.scratch_epochs * len(batches),
    )
    compile_model(model, config, rate)
    epochs = config.scratch_epochs
    return model, "scratch", run.fit("scratch", model, batches, run.validation(), epochs, patience=epochs)


class _Reporter(keras.callbacks.Callback):  # type: ignore[misc]
    """Record each epoch, and say how it went: every epoch of a slow phase, now and then in a fast one."""

    _EVERY_S = 5.0

    def __init__(self, phase: str, epochs: int, history: list[dict[str, Any]]) -> None:
        super().__init__()
        self._phase, self._epochs, self._history = phase, epochs, history
        self._best = -1.0
        self._started = self._told = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        now = time.monotonic()
        row = {name: float(value) for name, value in (logs or {}).items()}
        rate = float(self.model.optimizer.learning_rate)
        self._history.append(
            {
                "phase": self._phase,
                "epoch": epoch + 1,
                "learning_rate": rate,
                "seconds": round(now - self._started, 3),
                # JSON has no NaN, which a loss becomes when the rate is far too high.
                **{name: value if math.isfinite(value) else None for name, value in row.items()},
            }
        )
        self._best = max(self._best, row["val_accuracy"])
        if now - self._told >= self._EVERY_S or epoch == 0:
            self._told = now
            self._say(epoch, row)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        _log.info("%-9s best validation accuracy %.4f after %d epochs", self._phase, self._best, len(self._own()))

    def _own(self) -> list[dict[str, Any]]:
        return [row for row in self._history if row["phase"] == self._phase]

    def _say(self, epoch: int, row: dict[str, float]) -> None:
        _log.info(
            "%-9s epoch %d/%d  loss %.4f  accuracy %.4f  validation loss %.4f  accuracy %.4f (best %.4f)",
            self._phase,
            epoch + 1,
            self._epochs,
            row["loss"],
            row["accuracy"],
            row["val_loss"],
            row["val_accuracy"],
            self._best,
        )


def _check_examples(examples: ExamplesIndex) -> None:
    for split in ("train", "valid"):
        if not examples.count(split):
            raise DataError(f"the examples have no tile in the {split} split; run assemble with a share for it")
    for label in examples.classes:
        if not examples.splits["train"].by_class.get(label):
            raise DataError(f"class {label!r} has no tile in the train split; add tiles, or remove the class")


def _class_weight(examples: ExamplesIndex) -> dict[int, float]:
    """Return weights that make every class count the same in the loss; their mean over the tiles is 1."""
    counts = examples.splits["train"].by_class
    total, classes = sum(counts.values()), examples.classes
    return {index: total / (len(classes) * counts[label]) for index, label in enumerate(classes)}


def _hardware() -> dict[str, Any]:
    gpus = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in _gpus()]
    return {"machine": platform.machine(), "cores": os.cpu_count(), "gpus": gpus}


def _gpus() -> list[Any]:
    gpus: list[Any] = tf.config.list_physical_devices("GPU")
    return gpus
