"""Transfer-learn one backbone.

With pretrained weights there are two phases. First the backbone is frozen: its features are computed once, and a head
is trained on them, which takes seconds per epoch instead of minutes. Then the last stages of the backbone are trained
too, at a low rate, on random crops. The fine-tuned weights are kept unless their validation accuracy is lower than the
head's. From random weights, the whole network is trained in one phase.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from sat_xception.errors import DivergedError
from sat_xception.examples.index import ExamplesIndex
from sat_xception.log import duration, get_logger
from sat_xception.model.backbones import get_backbone
from sat_xception.model.checkpoint import Checkpoints, fingerprint
from sat_xception.model.devices import DevicePlan, choose, device_scope, in_float32
from sat_xception.model.head import compile_model, head_layers, uncompiled
from sat_xception.model.input import reading
from sat_xception.model.network import add_head, build_backbone, freeze_before, weights_digest
from sat_xception.model.session import TrainingSession, check_examples, class_weights, versions
from sat_xception.model.settings import TrainConfig
from sat_xception.model.tensorboard_upload import local_logs, uploading_logs
from sat_xception.model.weights import WeightsOrigin, find_weights
from sat_xception.process import stop_on_signals
from sat_xception.reports.charts import curves_page
from sat_xception.search.record import SearchRecord
from sat_xception.storage import atomic_folder, file_digest
from sat_xception.train.record import Devices, Hardware, SearchSummary, TrainingHistory, TrainingRecord

if TYPE_CHECKING:
    from sat_xception.search.search import SearchResult

__all__ = ["TrainResult", "train"]

_log = get_logger(__name__)

# With Keras's 0.99 the running statistics need hundreds of steps to settle; a small data set has a dozen per epoch. At
# 0.9 Xception's validation accuracy on the synthetic sample lagged three epochs behind, at 0.8 it didn't.
_SCRATCH_BATCH_NORM_MOMENTUM = 0.8
# Settings that don't affect the result: paths, and how often files are written.
_NOT_IN_THE_RESULT = {
    "examples",
    "out",
    "tensorboard",
    "profile_steps",
    "checkpoints",
    "checkpoint_minutes",
    "search_trials",  # the settings that the search found do
    "record_divergence",
}


@dataclass(frozen=True)
class TrainResult:
    """Result of a training.

    Attributes:
        folder: Model folder: `model.keras`, `history.json`, `train.json`, `curves.html`. Without `model.keras` if the
            training failed.
        backbone: Name of the backbone.
        weights: Description of the initial weights.
        phase: Phase whose weights were kept: "head", "fine-tune" or "scratch"; "" if the training failed.
        valid_accuracy: Validation accuracy of the kept weights; None if the training failed.
        epochs: Number of epochs of all phases.
        seconds: Duration.
        failed: Why there is no model (the training diverged); "" if there is one.
    """

    folder: Path
    backbone: str
    weights: str
    phase: str
    valid_accuracy: float | None
    epochs: int
    seconds: float
    failed: str = ""

    def summary(self) -> str:
        """Return the accuracy and the path of the model, or why there is none."""
        if self.failed:
            return (
                f"train     {self.backbone} from {self.weights} | failed, there is no model: {self.failed} | "
                f"{duration(self.seconds)}\nwrote     {self.folder}/train.json"
            )
        return (
            f"train     {self.backbone} from {self.weights} | validation accuracy {self.valid_accuracy:.4f} "
            f"({self.phase}) | {duration(self.seconds)}\nwrote     {self.folder}/model.keras"
        )


def train(config: TrainConfig) -> TrainResult:
    """Train one backbone; write `model.keras`, `history.json`, `train.json`, `curves.html` and TensorBoard logs.

    The model takes `uint8 [n, size, size, 3]` and returns probabilities `float32 [n, classes]` in class order.

    Raises:
        DataError: The examples can't be used: a split or a class is empty, or a file is damaged.
        ConfigError: A setting doesn't fit the backbone.
        ModelError: The weights file doesn't fit the backbone.
        DivergedError: No epoch had a finite loss, and `record_divergence` isn't set.
        ServiceError: The ImageNet weights can't be downloaded.
        PreemptedError: SIGTERM came; a checkpoint was written, and the same command resumes from it.

    Example:
        result = train(TrainConfig(examples="examples", out="models/mobilenetv2", backbone="mobilenetv2"))
        print(result.phase, result.valid_accuracy)
    """
    started = time.monotonic()
    examples = ExamplesIndex.read(config.examples)
    check_examples(examples)
    weights = find_weights(config.weights, config.backbone, config.alpha)
    if not config.search_trials:
        return _train(config, examples, weights, started)
    # Imported here: most trainings need no search.
    from sat_xception.train.head_search import searched

    try:
        with searched(config) as (settings, found):
            return _train(settings, examples, weights, started, found)
    except DivergedError as error:  # from the search, in every trial; the training records its own
        if not config.record_divergence:
            raise
        choices = choose(config)
        with atomic_folder(config.out, record=TrainingRecord.file_name) as work:
            run = _new_run(config, examples, work, choices)
            return _write(work, run, examples, weights, choices, _Learnt(failed=error.reason), started)


@dataclass(frozen=True)
class _Learnt:
    """A trained model with the phase of its weights and its validation accuracy, or why there is none."""

    model: keras.Model | None = None
    phase: str = ""
    accuracy: float | None = None
    failed: str = ""


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
        atomic_folder(config.out, record=TrainingRecord.file_name) as work,
        stop_on_signals(signal.SIGTERM) as notice,
    ):
        run = _new_run(config, examples, work, choices, checkpoints=checkpoints, notice=notice)
        with uploading_logs(run.logs, config.tensorboard), device_scope(choices), reading(config.examples):
            learnt = _learn(run, weights)
        result = _write(work, run, examples, weights, choices, learnt, started, found)
    checkpoints.remove()
    return result


def _new_run(
    config: TrainConfig,
    examples: ExamplesIndex,
    work: Path,
    choices: DevicePlan,
    **kept: Any,  # noqa: ANN401 - the fields of a run that most need not name
) -> TrainingSession:
    return TrainingSession(
        config=config,
        input_size=config.input_size or get_backbone(config.backbone).input_size,
        classes=list(examples.classes),
        class_weight=class_weights(examples) if config.class_weights else None,
        logs=local_logs(config.tensorboard, work),
        xla=choices.xla,
        **kept,
    )


def _learn(run: TrainingSession, weights: WeightsOrigin) -> _Learnt:
    config = run.config
    features = build_backbone(config.backbone, run.input_size, config.alpha, weights)
    learn = _train_from_scratch if weights.kind == "none" else _transfer
    try:
        model, phase, accuracy = learn(run, features)
    except DivergedError as error:
        if not config.record_divergence:
            raise
        _log.warning("failed    %s", error)
        return _Learnt(failed=error.reason)
    in_float32(model)
    return _Learnt(model, phase, accuracy)


def _write(
    work: Path,
    run: TrainingSession,
    examples: ExamplesIndex,
    weights: WeightsOrigin,
    choices: DevicePlan,
    learnt: _Learnt,
    started: float,
    found: SearchResult | None = None,
) -> TrainResult:
    """Write the files of the model folder; if the training failed, the model's fields in `train.json` are null."""
    config, model = run.config, learnt.model
    if model is not None:
        uncompiled(model).save(work / "model.keras")
    TrainingHistory(epochs=tuple(run.history)).write(work)
    page = curves_page(config.backbone, run.history, examples.synthetic)
    (work / "curves.html").write_text(page, encoding="utf-8")
    seconds = time.monotonic() - started
    searched = found and SearchSummary(counts=found.counts, valid_accuracy=found.valid_accuracy, best=found.tried)
    record = TrainingRecord(
        backbone=config.backbone,
        input_size=run.input_size,
        weights=weights.record(),
        classes=tuple(run.classes),
        positive_label=examples.positive_label,
        source=examples.source,
        synthetic=examples.synthetic,
        dataset_digest=examples.dataset_digest,
        class_weight=run.class_weight,
        failed=learnt.failed or None,
        model=None if model is None else file_digest(work / "model.keras"),
        weights_digest=None if model is None else weights_digest(model),
        kept_phase=learnt.phase or None,
        valid_accuracy=learnt.accuracy,
        seconds={**run.seconds, "all": round(seconds, 3)},
        hardware=_hardware(),
        devices=Devices.model_validate(choices.describe()),
        versions=versions(),
        config=config.resolved(),
        search=searched,
    )
    if found:
        for name in (SearchRecord.file_name, "search.html"):
            shutil.copyfile(found.folder / name, work / name)
    record.write(work)
    origin, epochs = weights.description, len(run.history)
    return TrainResult(
        config.out, config.backbone, origin, learnt.phase, learnt.accuracy, epochs, seconds, learnt.failed
    )


def _open_checkpoints(
    config: TrainConfig, examples: ExamplesIndex, weights: WeightsOrigin, choices: DevicePlan
) -> Checkpoints:
    """Return the checkpoints of this training; their fingerprint covers everything that affects the result."""
    settings = {name: value for name, value in config.resolved().items() if name not in _NOT_IN_THE_RESULT}
    name = fingerprint(
        {
            "settings": settings | {"weights": weights.record().content(), **choices.describe()},
            "classes": list(examples.classes),
            "shards": examples.shard_digests(),
            "versions": versions(),
        }
    )
    place = config.checkpoints or config.out.with_name(f"{config.out.name}.checkpoints")
    return Checkpoints(place, name, config.checkpoint_minutes * 60, shared=config.checkpoints is not None)


def _transfer(run: TrainingSession, features: keras.Model) -> tuple[keras.Model, str, float]:
    config = run.config
    head = head_layers(config, len(run.classes))
    model = add_head(features, head)
    # Before the head is trained, so that a wrong layer name fails now and not in an hour. Training the head changes no
    # other layer.
    first = config.fine_tune_from or get_backbone(config.backbone).fine_tune_from
    learning = freeze_before(model.get_layer(config.backbone), first)
    accuracy = _train_head(run, features, head)
    if config.fine_tune_epochs == 0:
        return model, "head", accuracy
    _log.info("fine-tune %s weights learn", f"{learning:,}")
    before = model.get_weights()
    tuned = run.fit("fine-tune", *run.fine_tuning(model), config.fine_tune_epochs)
    # Ties go to fine-tuning: with equal validation accuracy it was better on other tiles each time it was measured.
    if tuned is not None and tuned >= accuracy:
        return model, "fine-tune", tuned
    if tuned is None:
        _log.warning("kept      the head: no epoch of fine-tuning had a finite loss")
    else:
        _log.info("kept      the head: fine-tuning reached %.4f, less than %.4f", tuned, accuracy)
    model.set_weights(before)
    return model, "head", accuracy


def _train_head(run: TrainingSession, features: keras.Model, head: Sequence[keras.layers.Layer]) -> float:
    config = run.config
    started = time.monotonic()
    train, valid = run.features(features)
    seconds = round(time.monotonic() - started, 3)
    run.seconds["features"] = seconds
    _log.info("features  %s in %s", f"{len(train.rows):,} views of tiles", duration(seconds))
    accuracy = run.fit("head", *run.head_training(head, train, valid), config.head_epochs)
    return _found(accuracy, "head", config.head_learning_rate)


def _train_from_scratch(run: TrainingSession, features: keras.Model) -> tuple[keras.Model, str, float]:
    config = run.config
    for layer in features.get_layer(config.backbone).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = _SCRATCH_BATCH_NORM_MOMENTUM
    model = add_head(features, head_layers(config, len(run.classes)), batch_norm_trains=True)
    batches = run.training()
    # Most of the gain comes in the last third, while the rate falls, so there is no early stopping.
    rate = keras.optimizers.schedules.CosineDecay(
        config.scratch_learning_rate or get_backbone(config.backbone).scratch_learning_rate,
        decay_steps=config.scratch_epochs * batches.steps,
    )
    compile_model(model, config, rate, config.label_smoothing)
    epochs = config.scratch_epochs
    accuracy = run.fit("scratch", model, batches, run.validation(), epochs, patience=epochs)
    return model, "scratch", _found(accuracy, "scratch", rate.initial_learning_rate)


def _found(accuracy: float | None, phase: str, rate: float) -> float:
    if accuracy is None:
        raise DivergedError(
            f"no epoch had a finite loss, so there are no weights to keep; lower --{phase}-learning-rate ({rate:g}), "
            "and check --weights and --precision",
            reason=f"no epoch had a finite loss ({phase}, learning rate {rate:g})",
        )
    return accuracy


def _hardware() -> Hardware:
    gpus = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in _gpus()]
    return Hardware(machine=platform.machine(), cores=os.cpu_count(), gpus=tuple(gpus))


def _gpus() -> list[Any]:
    gpus: list[Any] = tf.config.list_physical_devices("GPU")
    return gpus
