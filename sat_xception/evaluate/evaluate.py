"""Score a split with a trained or a serving model, and write metrics, predictions and a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from sat_xception.errors import DataError, ModelError
from sat_xception.evaluate.calibrate import apply_temperature, fit_temperature, reliability
from sat_xception.evaluate.evaluation import Evaluation, Mistake, TrainingSummary, Unscored
from sat_xception.evaluate.figures import Calibration, Metrics, Threshold
from sat_xception.evaluate.metrics import compute_metrics
from sat_xception.evaluate.predictions import PREDICTIONS_FILE, write_predictions
from sat_xception.evaluate.report import evaluation_report
from sat_xception.evaluate.result import EvaluateResult
from sat_xception.evaluate.serving import score_serving
from sat_xception.evaluate.settings import EvaluateConfig
from sat_xception.evaluate.threshold import DEFAULT_THRESHOLD, choose_threshold
from sat_xception.evaluate.tiles import Tiles, read_images, read_tiles
from sat_xception.examples.index import ExamplesIndex
from sat_xception.log import track
from sat_xception.model.input import evaluation_batches, reading
from sat_xception.reports.page import thumbnail
from sat_xception.serve.probabilities import find_flaws
from sat_xception.storage import atomic_folder, file_digest
from sat_xception.train.record import TrainingHistory, TrainingRecord

__all__ = ["EvaluateResult", "evaluate", "load_model", "measure"]

_MISTAKES = 12


def load_model(folder: Path) -> tuple[keras.Model, TrainingRecord]:
    """Return the model in a folder that train wrote, and its `train.json`. Keras's safe mode: no code is loaded.

    Raises:
        DataError: The folder wasn't written by train.
        ModelError: The training failed, the model is damaged, or its digest differs from that in `train.json`.
    """
    record = TrainingRecord.read(folder)
    if record.failed:
        raise ModelError(f"{folder} holds no model, since its training failed: {record.failed}")
    path = folder / "model.keras"
    try:
        # The gate's decision identifies the model by this digest, so the figures must belong to the same file.
        if file_digest(path) != record.model:
            raise ModelError(
                f"{path} isn't the model that {folder}/train.json describes; run `sat_xception train` again"
            )
        return keras.models.load_model(path, safe_mode=True), record
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be loaded: {error}. Run `sat_xception train` again") from None


def evaluate(config: EvaluateConfig) -> EvaluateResult:
    """Score a split with a model; write `evaluation.json`, `predictions.parquet` and `report.html`.

    Temperature and threshold are always chosen on the validation split. A tile whose probabilities aren't all numbers
    from 0 to 1 has no score: it is counted with its reason, and its row has no prediction. If train recorded that it
    diverged, there is nothing to score, and `evaluation.json` has the reason as `failed`.

    Raises:
        DataError: Model, examples or split are missing, the model has other classes, or no tile has a score.
        ServiceError: The endpoint doesn't answer.

    Example:
        result = evaluate(EvaluateConfig(model="models/xception", examples="examples", out="evaluations/xception"))
        print(result.evaluation.metrics.accuracy)
    """
    examples = ExamplesIndex.read(config.examples)
    about = {
        "split": config.split,
        "classes": examples.classes,
        "positive_label": examples.positive_label,
        "source": examples.source,
        "synthetic": examples.synthetic,
        "dataset_digest": examples.dataset_digest,
        "config": config.resolved(),
    }
    with reading(config.examples):
        return _evaluate_model(config, examples, about) if config.model else _evaluate_serving(config, examples, about)


def _evaluate_model(config: EvaluateConfig, examples: ExamplesIndex, about: dict[str, Any]) -> EvaluateResult:
    assert config.model is not None
    record = TrainingRecord.read(config.model)
    if record.classes != examples.classes:
        raise DataError(f"{config.model} knows {list(record.classes)}, the examples hold {list(examples.classes)}")
    about |= {
        "backbone": record.backbone,
        "model": record.model,
        "training": TrainingSummary.of(record, TrainingHistory.read(config.model).epochs),
    }
    if record.failed:
        return _write_unscored(config, Evaluation(**about, failed=record.failed))
    model, _ = load_model(config.model)

    def score(split: str) -> tuple[Tiles, npt.NDArray[np.float32]]:
        return read_tiles(config.examples, split), _score(model, record.input_size, config, split)

    scored = score(config.split)
    valid, of_valid = _known(*(scored if config.split == "valid" else score("valid")))
    temperature = fit_temperature(valid.labels, of_valid)
    goal = _threshold(examples, valid, apply_temperature(of_valid, temperature), config.goal)
    return _write(config, examples, about, *scored, temperature, goal)


def _evaluate_serving(config: EvaluateConfig, examples: ExamplesIndex, about: dict[str, Any]) -> EvaluateResult:
    serving = score_serving(config, examples)
    packaged = serving.packaged
    about |= {
        "backbone": packaged.backbone if packaged else "",
        "model": packaged.model if packaged else "",
        "serving": serving.status(),
    }
    if serving.probabilities is None:
        return _write_unscored(config, Evaluation(**about))
    tiles = read_tiles(config.examples, config.split)
    # Its probabilities are calibrated already, by its own temperature.
    goal = _threshold(examples, *_known(tiles, serving.probabilities), config.goal)
    return _write(config, examples, about, tiles, serving.probabilities, 1.0, goal)


def _write_unscored(config: EvaluateConfig, evaluation: Evaluation) -> EvaluateResult:
    """Write an evaluation without figures; the reason is in `failed` or in `serving`."""
    with atomic_folder(config.out, record=Evaluation.file_name) as work:
        evaluation.write(work)
        (work / "report.html").write_text(evaluation_report(evaluation), encoding="utf-8")
    return EvaluateResult(config.out, evaluation)


def _score(model: keras.Model, input_size: int, config: EvaluateConfig, split: str) -> npt.NDArray[np.float32]:
    total = -(-ExamplesIndex.read(config.examples).count(split) // config.batch_size)
    batches = evaluation_batches(config.examples, split, input_size, config.batch_size)
    return np.concatenate([model(images, training=False).numpy() for images, _ in track(batches, "evaluate", total)])


def _known(tiles: Tiles, raw: npt.NDArray[np.float32]) -> tuple[Tiles, npt.NDArray[np.float32]]:
    """Return the tiles with valid probabilities, and these probabilities.

    Raises:
        DataError: No tile has valid probabilities.
    """
    reasons = find_flaws(raw)
    known = np.array([not reason for reason in reasons], dtype=bool)
    if len(known) and not known.any():
        reason, count = Counter(reasons).most_common(1)[0]
        raise DataError(
            f"none of {len(known):,} tiles could be scored, {count:,} of them: {reason}. Train again with a lower "
            "learning rate"
        )
    return tiles.take(known), raw[known]


def _threshold(
    examples: ExamplesIndex, tiles: Tiles, probabilities: npt.NDArray[np.float32], goal: str
) -> Threshold | None:
    if not examples.positive_label:
        return None
    positive = examples.classes.index(examples.positive_label)
    return choose_threshold(tiles.labels == positive, probabilities[:, positive], goal)


def _write(
    config: EvaluateConfig,
    examples: ExamplesIndex,
    about: dict[str, Any],
    tiles: Tiles,
    raw: npt.NDArray[np.float32],
    temperature: float,
    threshold: Threshold | None,
) -> EvaluateResult:
    """Measure a split's tiles and write the evaluation.

    Args:
        config: Settings.
        examples: Index of the examples.
        about: Fields of the evaluation that describe model and data.
        tiles: Scored tiles.
        raw: The model's probabilities before calibration, `float32 [n, classes]`.
        temperature: Temperature that calibrates `raw`.
        threshold: Decision threshold; None without a positive class.
    """
    reasons = find_flaws(raw)
    places = np.flatnonzero([not reason for reason in reasons])
    known, own = _known(tiles, raw)
    scored = apply_temperature(own, temperature)
    classes = examples.classes
    with atomic_folder(config.out, record=Evaluation.file_name) as work:
        worst = _worst_mistakes(known.labels, scored)
        images = read_images(config.examples, config.split, places[worst].tolist())
        evaluation = Evaluation(
            **about,
            unscored=Unscored(count=len(reasons) - len(places), reasons=Counter(filter(None, reasons))),
            calibration=Calibration(
                temperature=temperature,
                before=reliability(known.labels, own),
                after=reliability(known.labels, scored),
            ),
            threshold=threshold,
            metrics=measure(known, scored, classes, examples.positive_label, threshold),
            mistakes=tuple(_describe_mistake(images[places[at]], known, at, scored[at], classes) for at in worst),
        )
        every = raw.copy()
        every[places] = scored
        write_predictions(work / PREDICTIONS_FILE, tiles.ids, tiles.blocks, tiles.slices, tiles.labels, every, classes)
        evaluation.write(work)
        (work / "report.html").write_text(evaluation_report(evaluation), encoding="utf-8")
    return EvaluateResult(config.out, evaluation)


def measure(
    tiles: Tiles,
    probabilities: npt.NDArray[np.float32],
    classes: Sequence[str],
    positive_label: str,
    threshold: Threshold | None,
) -> Metrics:
    """Return all figures of scored tiles, with intervals and slices; see `compute_metrics`."""
    value = threshold.value if threshold else DEFAULT_THRESHOLD
    blocks = tiles.block_numbers()
    return compute_metrics(tiles.labels, probabilities, classes, positive_label, value, blocks, tiles.slices)


def _worst_mistakes(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]) -> list[int]:
    """Return the indexes of the wrongly classified tiles with the highest confidence."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    worst: list[int] = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:_MISTAKES].tolist()
    return worst


def _describe_mistake(
    image: bytes, tiles: Tiles, place: int, probabilities: npt.NDArray[np.float32], classes: Sequence[str]
) -> Mistake:
    return Mistake(
        tile=tiles.ids[place],
        image=thumbnail(image),
        truth=classes[tiles.labels[place]],
        predicted=classes[int(probabilities.argmax())],
        confidence=float(probabilities.max()),
    )
