"""What evaluate found, for the command line and the Kubeflow UI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def summary(self) -> str:
        """Return the main figures."""
        metrics, serving = self.evaluation["metrics"], self.evaluation["serving"]
        if metrics is None:
            why = serving["reason"] if serving else f"the training of {self.evaluation['backbone']} failed: "
            why += "" if serving else self.evaluation["failed"]
            return f"evaluate  not scored: {why}\nwrote     {self.folder}/report.html"
        who = f"what serves at {serving['place']}" if serving else self.evaluation["backbone"]
        positive = self.evaluation["positive_label"] or "macro average"
        low, high = metrics["intervals"]["accuracy"] or (metrics["accuracy"], metrics["accuracy"])
        threshold, calibration = self.evaluation["threshold"], self.evaluation["calibration"]
        at = f" from {threshold['value']:.3f} on" if threshold else ""
        unscored = self.evaluation.get("unscored") or {"count": 0, "reasons": {}}
        failed = [f"failed    {number:,} x {reason}\n" for reason, number in unscored["reasons"].items()]
        return (
            f"evaluate  {who} on {metrics['count']:,} {self.evaluation['split']} tiles | "
            f"accuracy {metrics['accuracy']:.4f} ({low:.4f} to {high:.4f})\n"
            f"          {positive}{at}: precision {metrics['positive']['precision']:.4f}  "
            f"recall {metrics['positive']['recall']:.4f}  F1 {metrics['positive']['f1']:.4f}\n"
            f"          calibration error {calibration['before']['error']:.4f}, "
            f"{calibration['after']['error']:.4f} at temperature {calibration['temperature']:.3f}\n"
            f"{''.join(failed)}wrote     {self.folder}/report.html"
        )
