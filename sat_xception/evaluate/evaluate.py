"""Score a split with a trained model and write down how good it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sat_xception.data.examples_index import read_index
from sat_xception.errors import DataError, ModelError
from sat_xception.evaluate.charts import confusion_chart, most_mixed_up, reliability_chart, roc_chart
from sat_xception.evaluate.metrics import compute_metrics
from sat_xception.log import track
from sat_xception.model.input import encoded_examples, evaluation_batches, reading
from sat_xception.page import render_page, thumbnail
from sat_xception.steps import EvaluateConfig
from sat_xception.storage import atomic_folder, file_digest, read_json, write_json

__all__ = ["EvaluateResult", "evaluate", "load_model"]

_MISTAKES = 12


@dataclass(frozen=True)
class EvaluateResult:
    """What evaluate found.

    Attributes:
        folder: Folder with `evaluation.json`, `predictions.parquet` and `report.html`.
        evaluation: Content of `evaluation.json`.
    """

    folder: Path
    evaluation: dict[str, Any]

    def main_figures(self) -> dict[str, float]:
        """Return the figures that runs are compared by, for the Kubeflow UI."""
        metrics = self.evaluation["metrics"]
        names = ("precision", "recall", "f1", "roc_auc", "pr_auc")
        shares = {name: metrics["positive"][name] for name in names}
        return {"accuracy": metrics["accuracy"], **shares, "calibration_error": metrics["calibration_error"]}

    def confusion(self) -> tuple[list[str], list[list[int]]]:
        """Return classes and confusion matrix; of very many classes those that are mixed up most, as the report does.

        Kubeflow stores it in one message, of 4 MB at most.
        """
        classes, matrix = self.evaluation["classes"], self.evaluation["metrics"]["confusion_matrix"]
        shown = most_mixed_up(matrix)
        return [classes[place] for place in shown], [[matrix[row][column] for column in shown] for row in shown]

    def roc_curve(self) -> tuple[list[float], list[float], list[float]] | None:
        """Return false positive rates, true positive rates and thresholds; None unless there are two classes.

        The Kubeflow UI has no place to say which class a curve of several would be of; the report has.
        """
        points = self.evaluation["metrics"]["roc"]
        if len(self.evaluation["classes"]) != 2 or not points:
            return None
        thresholds, false_rates, true_rates = (list(column) for column in zip(*points, strict=True))
        return false_rates, true_rates, thresholds

    def summary(self) -> str:
        """Return the main figures."""
        metrics = self.evaluation["metrics"]
        positive = self.evaluation["positive_label"] or "macro average"
        return (
            f"evaluate  {self.evaluation['backbone']} on {metrics['count']:,} {self.evaluation['split']} tiles | "
            f"accuracy {metrics['accuracy']:.4f} | {positive}: precision {metrics['positive']['precision']:.4f}  "
            f"recall {metrics['positive']['recall']:.4f}  F1 {metrics['positive']['f1']:.4f}\n"
            f"wrote     {self.folder}/report.html"
        )


def load_model(folder: Path) -> tuple[keras.Model, dict[str, Any]]:
    """Return the model of a folder that train wrote, and its `train.json`. Only safe mode: no code is loaded.

    Raises:
        DataError: Not such a folder.
        ModelError: The model is damaged, or isn't the one that train wrote there.
    """
    facts = read_json(folder / "train.json", made_by="train")
    path = folder / "model.keras"
    try:
        # The digest is what the gate's decision names; another file's figures would not be this one's.
        if file_digest(path) != facts["model"]:
            raise ModelError(
                f"{path} isn't the model that {folder}/train.json describes; run `sat_xception train` again"
            )
        return keras.models.load_model(path, safe_mode=True), facts
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be loaded: {error}. Run `sat_xception train` again") from None


def evaluate(config: EvaluateConfig) -> EvaluateResult:
    """Score a split; write `evaluation.json`, `predictions.parquet` and `report.html`.

    Raises:
        DataError: No such model, examples or split, or the model was trained on other classes.
    """
    model, facts = load_model(config.model)
    examples = read_index(config.examples)
    if facts["classes"] != list(examples.classes):
        raise DataError(f"{config.model} knows {facts['classes']}, the examples hold {list(examples.classes)}")
    count = examples.count(config.split)
    batches = evaluation_batches(config.examples, config.split, facts["input_size"], config.batch_size)
    probabilities, labels = [], []
    with reading(config.examples):
        for images, label in track(batches, "evaluate", -(-count // config.batch_size)):
            probabilities.append(model(images, training=False).numpy())
            labels.append(label.numpy())
    scored, truth = np.concatenate(probabilities), np.concatenate(labels)
    evaluation = {
        "backbone": facts["backbone"],
        "model": facts["model"],
        "split": config.split,
        "classes": facts["classes"],
        "positive_label": facts["positive_label"],
        "source": examples.source,
        "synthetic": examples.synthetic,
        "dataset_digest": examples.dataset_digest,
        "metrics": compute_metrics(truth, scored, facts["classes"], facts["positive_label"]),
        "training": {
            **{key: facts[key] for key in ("weights", "kept_phase", "valid_accuracy", "seconds", "input_size")},
            "history": _read_history(config.model),
        },
        "config": config.resolved(),
    }
    with atomic_folder(config.out, record="evaluation.json") as work:
        worst = _worst_mistakes(truth, scored)
        tile_ids, images = _read_again(config, set(worst))
        _write_predictions(work / "predictions.parquet", tile_ids, truth, scored, facts["classes"])
        write_json(work / "evaluation.json", evaluation)
        mistakes = [_describe_mistake(images[index], truth[index], scored[index], facts["classes"]) for index in worst]
        (work / "report.html").write_text(_report(evaluation, mistakes), encoding="utf-8")
    return EvaluateResult(config.out, evaluation)


def _read_history(model: Path) -> list[dict[str, Any]]:
    try:
        history: list[dict[str, Any]] = json.loads((model / "history.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{model}/history.json can't be read: {error}. Run `sat_xception train` again") from None
    return history


def _read_again(config: EvaluateConfig, wanted: set[int]) -> tuple[list[str], dict[int, bytes]]:
    """Return every tile's id in order, and the encoded images at the wanted places."""
    tile_ids, images = [], {}
    for index, (tile_id, data, _) in enumerate(encoded_examples(config.examples, config.split).as_numpy_iterator()):
        tile_ids.append(tile_id.decode())
        if index in wanted:
            images[index] = data
    return tile_ids, images


def _write_predictions(
    path: Path,
    tile_ids: list[str],
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    classes: list[str],
) -> None:
    """Write a row a tile: its id, its class, and a probability for each class."""
    columns: dict[str, Any] = {"tile_id": tile_ids, "label": [classes[label] for label in labels]}
    columns.update({f"probability_{name}": probabilities[:, index] for index, name in enumerate(classes)})
    pq.write_table(pa.table(columns), path, compression="zstd")


def _worst_mistakes(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]) -> list[int]:
    """Return the places of the tiles that the model got wrong while it was most sure."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    worst: list[int] = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:_MISTAKES].tolist()
    return worst


def _describe_mistake(
    image: bytes, label: int, probabilities: npt.NDArray[np.float32], classes: list[str]
) -> dict[str, Any]:
    return {
        "image": thumbnail(image),
        "truth": classes[label],
        "predicted": classes[int(probabilities.argmax())],
        "confidence": float(probabilities.max()),
    }


def _report(evaluation: dict[str, Any], mistakes: list[dict[str, Any]]) -> str:
    metrics = evaluation["metrics"]
    return render_page(
        "evaluation",
        synthetic=evaluation["synthetic"],
        evaluation=evaluation,
        metrics=metrics,
        mistakes=mistakes,
        confusion=confusion_chart(metrics["confusion_matrix"], evaluation["classes"]),
        roc=roc_chart(metrics["roc"], metrics["by_class"][metrics["roc_class"]]["roc_auc"]) if metrics["roc"] else "",
        reliability=reliability_chart(metrics["calibration"], metrics["calibration_error"]),
    )
