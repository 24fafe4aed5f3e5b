"""The result of evaluate, for the command line and the Kubeflow UI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sat_xception.evaluate.evaluation import Evaluation

__all__ = ["EvaluateResult"]


@dataclass(frozen=True)
class EvaluateResult:
    """Result of an evaluation.

    Attributes:
        folder: Folder with `evaluation.json`, `report.html` and, if tiles were scored, `predictions.parquet`.
        evaluation: Content of `evaluation.json`.
    """

    folder: Path
    evaluation: Evaluation

    def summary(self) -> str:
        """Return the main figures."""
        evaluation = self.evaluation
        if not evaluation.scores:
            why = evaluation.why_unscored
            if evaluation.training:
                why = f"the training of {evaluation.backbone} failed: {evaluation.failed}"
            return f"evaluate  not scored: {why}\nwrote     {self.folder}/report.html"
        metrics, calibration = evaluation.scores
        who = f"what serves at {evaluation.serving.place}" if evaluation.serving else evaluation.backbone
        low, high = metrics.intervals.accuracy or (metrics.accuracy, metrics.accuracy)
        at = f" from {evaluation.threshold.value:.3f} on" if evaluation.threshold else ""
        reasons = evaluation.unscored.reasons if evaluation.unscored else {}
        failed = [f"failed    {number:,} x {reason}\n" for reason, number in reasons.items()]
        return (
            f"evaluate  {who} on {metrics.count:,} {evaluation.split} tiles | "
            f"accuracy {metrics.accuracy:.4f} ({low:.4f} to {high:.4f})\n"
            f"          {evaluation.positive_label or 'macro average'}{at}: "
            f"precision {metrics.positive.precision:.4f}  recall {metrics.positive.recall:.4f}  "
            f"F1 {metrics.positive.f1:.4f}\n"
            f"          calibration error {calibration.before.error:.4f}, "
            f"{calibration.after.error:.4f} at temperature {calibration.temperature:.3f}\n"
            f"{''.join(failed)}wrote     {self.folder}/report.html"
        )
