"""Transfer-learn one backbone.

With pretrained weights there are two phases. The backbone is frozen first: its features are computed once and a head
learns on them, which takes seconds an epoch instead of minutes. Then the last stages of the backbone learn too, at a
low rate, on parts of the tiles. What that made is kept unless its validation accuracy is lower than the head's. Random
weights are not worth freezing: there the whole network learns in one phase.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from sat_xception.data.examples_index import ExamplesIndex, read_index
from sat_xception.errors import ModelError
from sat_xception.evaluate.charts import curves_page
from sat_xception.log import duration, get_logger
from sat_xception.model.backbones import add_head, build_backbone, freeze_before, get_backbone
from sat_xception.model.checkpoint import Checkpoints, fingerprint
from sat_xception.model.devices import Choices, choose, in_float32, using
from sat_xception.model.head import compile_model, head_layers, uncompiled
from sat_xception.model.input import reading
from sat_xception.model.preemption import heeding_sigterm
from sat_xception.model.run import Run, check_examples, class_weights, versions
from sat_xception.model.weights import WeightsOrigin, find_weights
from sat_xception.steps import TrainConfig
from sat_xception.storage import atomic_folder, folder_digests, write_json

if TYPE_CHECKING:
    from sat_xception.model.search import SearchResult

__all__ = ["TrainResult", "train"]

_log = get_logger(__name__)

# Keras's 0.99 needs hundreds of steps before the running statistics mean anything; a small data set has a dozen an
# epoch. At 0.9 Xception's validation accuracy on the synthetic sample lagged three epochs behind, at 0.8 it didn't.
_SCRATCH_BATCH_NORM_MOMENTUM = 0.8
# Settings that change where things are and how often they are written, and no figure.
_WITHOUT_A_SAY = {
    "examples",
    "out",
    "tensorboard",
    "profile_steps",
    "checkpoints",
    "checkpoint_minutes",
    "search_trials",  # what it finds has
}


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

    def summary(self) -> str:
        """Return the accuracy and where the model is."""
        return (
            f"train     {self.backbone} from {self.weights} | validation accuracy {self.valid_accuracy:.4f} "
            f"({self.phase}) | {duration(self.seconds)}\nwrote     {self.folder}/model.keras"
        )


def train(config: TrainConfig) -> TrainResult:
    """Train, and write `model.keras`, `history.json`, `train.json`, `curves.html` and TensorBoard's logs.

    The model takes `uint8 [n, size, size, 3]` and returns probabilities `float32 [n, classes]` in class order.

    Raises:
        DataError: No usable examples.
        ConfigError: A setting doesn't fit the backbone.
        ModelError: The weights file doesn't fit the backbone, or no epoch had a finite loss.
        ServiceError: The ImageNet weights can't be downloaded.
        PreemptedError: SIGTERM came; what was learnt is kept, and the same command goes on from there.
    """
    started = time.monotonic()
    examples = read_index(config.examples)
    check_examples(examples)
    weights = find_weights(config.weights, config.backbone, config.alpha)
    if not config.search_trials:
        return _train(config, examples, weights, started)
    # Imported here: most trainings need no search.
    from sat_xception.model.head_search import searched

    with searched(config) as (settings, found):
        return _train(settings, examples, weights, started, found)


def _train(
    config: TrainConfig,
    examples: ExamplesIndex,
    weights: WeightsOrigin,
    started: float,
    found: SearchResult | None = None,
) -> TrainResult:
    choices = choose(config)
    checkpoints = _open_checkpoints(config, examples, weights, choices)
    keras.utils.set_random_seed(config.seed)
    with (
        checkpoints.naming_what_is_kept(),
        atomic_folder(config.out, record="train.json") as work,
        heeding_sigterm() as notice,
    ):
        run = Run(
            config=config,
            input_size=config.input_size or get_backbone(config.backbone).input_size,
            classes=list(examples.classes),
            class_weight=class_weights(examples) if config.class_weights else None,
            logs=config.tensorboard or work / "tensorboard",
            checkpoints=checkpoints,
            notice=notice,
            xla=choices.xla,
        )
        with using(choices), reading(config.examples):
            features = build_backbone(config.backbone, run.input_size, config.alpha, weights)
            learn = _train_from_scratch if weights.kind == "none" else _transfer
            model, phase, accuracy = learn(run, features)
            in_float32(model)
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
            "weights_digest": weights_digest(model),
            "kept_phase": phase,
            "valid_accuracy": accuracy,
            "seconds": {**run.seconds, "all": round(seconds, 3)},
            "hardware": _hardware(),
            "devices": choices.describe(),
            "versions": versions(),
            "config": config.resolved(),
        }
        if found:
            description["search"] = {
                "counts": found.counts,
                "valid_accuracy": found.valid_accuracy,
                "best": found.tried,
            }
            for page in ("search.json", "search.html"):
                shutil.copyfile(found.folder / page, work / page)
        write_json(work / "train.json", {**description, "model": folder_digests(work)["model.keras"]})
    checkpoints.remove()
    return result


def _open_checkpoints(
    config: TrainConfig, examples: ExamplesIndex, weights: WeightsOrigin, choices: Choices
) -> Checkpoints:
    """Return where this training is kept, under a name made of all that has a say in its result."""
    settings = {name: value for name, value in config.resolved().items() if name not in _WITHOUT_A_SAY}
    shards = {split: [shard.sha256 for shard in facts.shards] for split, facts in examples.splits.items()}
    name = fingerprint(
        {
            "settings": settings | {"weights": weights.describe(), **choices.describe()},
            "classes": list(examples.classes),
            "shards": shards,
            "versions": versions(),
        }
    )
    place = config.checkpoints or config.out.with_name(f"{config.out.name}.checkpoints")
    return Checkpoints(place, name, config.checkpoint_minutes * 60, shared=config.checkpoints is not None)


def _transfer(run: Run, features: keras.Model) -> tuple[keras.Model, str, float]:
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
    _log.info("fine-tune %s weights learn", f"{learning:,}")
    before = model.get_weights()
    tuned = run.fit("fine-tune", *run.fine_tuning(model), config.fine_tune_epochs)
    # As good on the validation tiles, it was better on others each time that this was measured.
    if tuned is not None and tuned >= accuracy:
        return model, "fine-tune", tuned
    if tuned is None:
        _log.warning("kept      the head: no epoch of fine-tuning had a finite loss")
    else:
        _log.info("kept      the head: fine-tuning reached %.4f, less than %.4f", tuned, accuracy)
    model.set_weights(before)
    return model, "head", accuracy


def _train_head(run: Run, features: keras.Model, head: Sequence[keras.layers.Layer]) -> float:
    config = run.config
    started = time.monotonic()
    train, valid = run.features(features)
    run.seconds["features"] = round(time.monotonic() - started, 3)
    _log.info("features  %s in %s", f"{len(train.rows):,} views of tiles", duration(run.seconds["features"]))
    accuracy = run.fit("head", *run.head_training(head, train, valid), config.head_epochs)
    return _found(accuracy, f"--head-learning-rate ({config.head_learning_rate:g})")


def _train_from_scratch(run: Run, features: keras.Model) -> tuple[keras.Model, str, float]:
    config = run.config
    for layer in features.get_layer(config.backbone).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = _SCRATCH_BATCH_NORM_MOMENTUM
    model = add_head(features, head_layers(config, len(run.classes)), batch_norm_trains=True)
    batches = run.training()
    # Most of the gain comes while the rate falls in the last third, so all epochs are run.
    rate = keras.optimizers.schedules.CosineDecay(
        config.scratch_learning_rate or get_backbone(config.backbone).scratch_learning_rate,
        decay_steps=config.scratch_epochs * batches.steps,
    )
    compile_model(model, config, rate, config.label_smoothing)
    epochs = config.scratch_epochs
    accuracy = run.fit("scratch", model, batches, run.validation(), epochs, patience=epochs)
    return model, "scratch", _found(accuracy, f"--scratch-learning-rate ({rate.initial_learning_rate:g})")


def _found(accuracy: float | None, rate: str) -> float:
    if accuracy is None:
        raise ModelError(
            f"no epoch had a finite loss, so there are no weights to keep; lower {rate}, and check --weights and "
            "--precision"
        )
    return accuracy


def weights_digest(model: keras.Model) -> str:
    """Return the SHA-256 of a model's weights, in their order; `model.keras` has the time in it, and another digest."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()


def _hardware() -> dict[str, Any]:
    gpus = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in _gpus()]
    return {"machine": platform.machine(), "cores": os.cpu_count(), "gpus": gpus}


def _gpus() -> list[Any]:
    gpus: list[Any] = tf.config.list_physical_devices("GPU")
    return gpus
