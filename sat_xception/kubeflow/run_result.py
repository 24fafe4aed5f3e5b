"""The result of a training run on this machine, and its summary for the terminal."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sat_xception.deploy.deployment import Deployment
from sat_xception.evaluate.decision import Decision
from sat_xception.log import duration
from sat_xception.served_model.packaged_model import PackagedModel

__all__ = ["RunResult"]


@dataclass(frozen=True)
class RunResult:
    """Result of a run.

    Attributes:
        folder: Folder of the run, with the outputs of every step, `run.log` and `report.html`.
        decision: The gate's decision.
        served: The packaged model; None when there was no model to deploy.
        deployment: The deployment record; None if there was no model to deploy.
        seconds: Whole time.
    """

    folder: Path
    decision: Decision
    served: PackagedModel | None
    deployment: Deployment | None
    seconds: float

    def summary(self) -> str:
        """Return the tables of models and gate checks, the deployed model, and commands to run next."""
        buffer = io.StringIO()
        console = Console(file=buffer, width=max(100, shutil.get_terminal_size().columns))
        if self.decision.synthetic:
            console.print("Data: synthetic sample (drawn tiles)")
        else:
            console.print(f"Data: {self.decision.source}", highlight=False)
        console.print(_models_table(self.decision))
        console.print(_checks_table(self.decision))
        lines = [
            f"failed    {each.backbone} has no model: its training failed: {each.failed}"
            for each in self.decision.candidates
            if each.failed
        ]
        lines.append(f"winner    {self.decision.winner}")
        if self.served and self.deployment:
            test = self.served.metrics.get("test")
            accuracy = f", test accuracy {test.accuracy:.4f} on {test.count:,} tiles" if test else ""
            lines.append(f"model     {self.served.name} version {self.served.version}{accuracy}")
            over = "REST" if self.deployment.endpoint else "REST and gRPC"
            lines.append(f"answers   its golden tiles over {over} within {self.deployment.golden_difference:.1g}")
        else:
            lines.append(f"          {self.decision.reason}; nothing was packaged or deployed")
        lines.append(f"report    {self.folder}/report.html")
        lines.append(f"took      {duration(self.seconds)}")
        if self.deployment:
            lines.append(f"serve it  {self.deployment.serve_command}")
        return buffer.getvalue() + "\n".join(lines)


def _models_table(decision: Decision) -> Table:
    table = Table("model", "started from", "input", "validation accuracy", "weights of phase", "training")
    for candidate in decision.candidates:
        training = candidate.training
        table.add_row(
            candidate.backbone,
            training.weights.description,
            f"{training.input_size} px",
            f"{candidate.metrics.accuracy:.4f}" if candidate.metrics else "failed",
            training.kept_phase or "-",
            duration(training.total_seconds),
        )
    return table


def _checks_table(decision: Decision) -> Table:
    table = Table("gate", "check", "figure", "95 % interval", "limit", "passed")
    for candidate in decision.candidates:
        for check in candidate.checks:
            if check.slice and check.passed:
                continue  # slices: there may be hundreds; the report lists them
            value = "-" if check.value is None else f"{check.value:.4f}"
            bounds = check.interval
            interval = f"{bounds.low:.4f} to {bounds.high:.4f}" if bounds else "-"
            passed = "yes" if check.passed else "NO"
            table.add_row(candidate.backbone, check.name, value, interval, check.asked, passed)
    return table
