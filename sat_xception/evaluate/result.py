"""What evaluate found, for the command line and the Kubeflow UI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sat_xception.evaluate.charts import most_mixed_up

__all__ = ["EvaluateResult"]


@dataclass(frozen=True)
class EvaluateResult:
    """What evaluate found.

    Attributes:
        folder: Folder with `evaluation.json`, `report.html` and, where something was scored, `predictions.parquet`.
        evaluation: Content of `evaluation.json`.
    """

    folder: Path
    evaluation: dict[str, Any]

    def main_figures(self) -> dict[str, float]:
        """Return the figures that runs are compared by, for the Kubeflow UI."""
        metrics = self.evaluation["metrics"]
        if metrics is None:
            return {}
        names = ("precision", "recall", "f1", "roc_auc", "pr_auc")
        shares = {name: metrics["positive"][name] for name in names}
        return {"accuracy": metrics["accuracy"], **shares, "calibration_error": metrics["calibration_error"]}

    def confusion(self) -> tuple[list[str], list[list[int]]]:
        """Return classes and confusion matrix; of very many classes those that are mixed up most, as the report does.

        Kubeflow stores it in one message, of 4 MB at most. Only where `metrics` is there.
        """
        classes, matrix = self.evaluation["classes"], self.evaluation["metrics"]["confusion_matrix"]
        shown = most_mixed_up(matrix)
        return [classes[place] for place in shown], [[matrix[row][column] for column in shown] for row in shown]

    def roc_curve(self) -> tuple[list[float], list[float], list[float]] | None:
        """Return false positive rates, true positive rates and thresholds; None unless there are two classes.

        The Kubeflow UI has no place to say which class a curve of several would be of; the report has.
        """
        metrics = self.evaluation["metrics"]
        if metrics is None or len(self.evaluation["classes"]) != 2 or not metrics["roc"]:
            return None
        thresholds, false_rates, true_rates = (list(column) for column in zip(*metrics["roc"], strict=True))
        return false_rates, true_rates, thresholds

    def summary(self) -> str:
        """Return the main figures."""
        metrics, serving = self.evaluation["metrics"], self.evaluation["serving"]
        if metrics is None:
            return f"evaluate  not scored: {serving['reason']}\nwrote     {self.folder}/report.html"
        who = f"what serves at {serving['place']}" if serving else self.evaluation["backbone"]
        positive = self.evaluation["positive_label"] or "macro average"
        low, high = metrics["intervals"]["accuracy"] or (metrics["accuracy"], metrics["accuracy"])
        threshold, calibration = self.evaluation["threshold"], self.evaluation["calibration"]
        at = f" from {threshold['value']:.3f} on" if threshold else ""
        return (
            f"evaluate  {who} on {metrics['count']:,} {self.evaluation['split']} tiles | "
            f"accuracy {metrics['accuracy']:.4f} ({low:.4f} to {high:.4f})\n"
            f"          {positive}{at}: precision {metrics['positive']['precision']:.4f}  "
            f"recall {metrics['positive']['recall']:.4f}  F1 {metrics['positive']['f1']:.4f}\n"
            f"          calibration error {calibration['before']['error']:.4f}, "
            f"{calibration['after']['error']:.4f} at temperature {calibration['temperature']:.3f}\n"
            f"wrote     {self.folder}/report.html"
        )
