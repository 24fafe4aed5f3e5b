"""Decide which model may be deployed, or that none may.

Every candidate is checked against every limit and against what is serving, on the same validation tiles. Of those that
pass, the one with the highest validation accuracy wins; on a tie the one with the lower calibration error, then the one
with fewer seconds of training, then the first by name. A winner that is serving already, by the digest of its Keras
model, need not be deployed again. A candidate whose training failed is refused; the others are judged without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from sat_xception.errors import DataError, GateRefusedError
from sat_xception.evaluate.checks import check, limit_of
from sat_xception.evaluate.comparison import compare
from sat_xception.evaluate.predictions import read_outcomes
from sat_xception.evaluate.report import decision_markdown, run_report
from sat_xception.evaluate.settings import GateConfig
from sat_xception.storage import atomic_folder, read_json, write_json

__all__ = ["NO_WINNER", "GateResult", "decide", "gate"]

NO_WINNER = "none"
# Failed checks that the reason names; there may be one for each slice.
_MAX_REASONS = 12


@dataclass(frozen=True)
class GateResult:
    """What the gate said.

    Attributes:
        folder: Folder with `decision.json`, `decision.md` and `report.html`.
        decision: Content of `decision.json`.
    """

    folder: Path
    decision: dict[str, Any]

    @property
    def winner(self) -> str:
        """Backbone of the winner, or "none"."""
        return str(self.decision["winner"])

    @property
    def to_deploy(self) -> str:
        """Backbone of the model to deploy; "none" where no model passed, or the winner is serving already."""
        return NO_WINNER if self.decision["already_serving"] else self.winner

    def main_figures(self) -> dict[str, float]:
        """Return the figures that runs are compared by in the Kubeflow UI, for each candidate and for what serves."""
        scored = {candidate["backbone"]: candidate["metrics"] for candidate in self.decision["candidates"]}
        if self.decision["serving"] and self.decision["serving"]["metrics"]:
            scored["serving"] = self.decision["serving"]["metrics"]
        return {
            f"{name} {figure}": value
            for name, metrics in scored.items()
            if metrics
            for figure, value in {**metrics["positive"], **metrics}.items()
            if figure in ("accuracy", "precision", "recall", "calibration_error")
        }

    def summary(self) -> str:
        """Return the winner, and why."""
        return f"gate      winner: {self.winner} | {self.decision['reason']}\nwrote     {self.folder}/report.html"


def gate(config: GateConfig) -> GateResult:
    """Check the candidates; write `decision.json`, `decision.md` and `report.html`.

    Raises:
        DataError: The evaluations are of different data, of one backbone, or not of the validation split.
        GateRefusedError: No candidate passed and `require_winner` is set; the decision is written all the same.
    """
    evaluations = [read_json(folder / "evaluation.json", made_by="evaluate") for folder in config.evaluations]
    serving = read_json(config.serving / "evaluation.json", made_by="evaluate") if config.serving else None
    _check_comparable(evaluations, serving)
    outcomes = {
        evaluation["backbone"]: read_outcomes(folder)
        for evaluation, folder in zip(evaluations, config.evaluations, strict=True)
        if evaluation["metrics"]
    }
    comparisons = [
        {"first": first, "second": second, **compare(outcomes[first], outcomes[second])}
        for first, second in combinations(sorted(outcomes), 2)
    ]
    against = {}
    if config.serving and serving and serving["metrics"]:
        now = read_outcomes(config.serving)
        against = {backbone: compare(own, now) for backbone, own in outcomes.items()}
    decision = decide(evaluations, config, comparisons, serving, against)
    with atomic_folder(config.out, record="decision.json") as work:
        write_json(work / "decision.json", decision)
        (work / "decision.md").write_text(decision_markdown(decision), encoding="utf-8")
        (work / "report.html").write_text(run_report(decision), encoding="utf-8")
    if config.require_winner and decision["winner"] == NO_WINNER:
        raise GateRefusedError(f"{decision['reason']}. Details: {config.out}/report.html")
    return GateResult(config.out, decision)


def decide(
    evaluations: Sequence[dict[str, Any]],
    config: GateConfig,
    comparisons: Sequence[dict[str, Any]] = (),
    serving: dict[str, Any] | None = None,
    against: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the decision on candidates that are known to be comparable.

    Args:
        evaluations: Content of each candidate's `evaluation.json`.
        config: The limits.
        comparisons: Candidates two by two, as `compare` says; they are told, and decide nothing.
        serving: Content of the `evaluation.json` of what is serving.
        against: How each candidate compares with that, by backbone.
    """
    candidates = []
    for evaluation in evaluations:
        comparison = (against or {}).get(evaluation["backbone"])
        now = {**serving["serving"], "comparison": comparison} if serving else None
        rows = check(evaluation, config, now)
        passed = all(row["passed"] for row in rows)
        candidates.append({**evaluation, "against_serving": comparison, "checks": rows, "passed": passed})
    candidates.sort(key=_rank)
    winner = next((candidate["backbone"] for candidate in candidates if candidate["passed"]), NO_WINNER)
    first = candidates[0]
    model = next((candidate["model"] for candidate in candidates if candidate["passed"]), "")
    already_serving = bool(model) and serving is not None and serving.get("model") == model
    reason = _reason(winner, candidates)
    if already_serving and serving:
        reason += f"; it is serving already, as version {serving['serving']['version']}: there is nothing to deploy"
    return {
        "winner": winner,
        "already_serving": already_serving,
        "model": model,
        "reason": reason,
        "candidates": sorted(candidates, key=lambda candidate: str(candidate["backbone"])),
        "comparisons": list(comparisons),
        "serving": serving,
        **{key: first[key] for key in ("classes", "positive_label", "source", "synthetic", "dataset_digest")},
        "config": config.resolved(),
    }


def _rank(candidate: dict[str, Any]) -> tuple[float, float, float, str]:
    metrics = candidate["metrics"] or {"accuracy": -1.0, "calibration_error": 1.0}
    seconds = candidate["training"]["seconds"]["all"]
    return -metrics["accuracy"], metrics["calibration_error"], seconds, candidate["backbone"]


def _reason(winner: str, candidates: list[dict[str, Any]]) -> str:
    if winner != NO_WINNER:
        others = [candidate for candidate in candidates if candidate["backbone"] != winner]
        against = ", ".join(map(_of_another, others))
        own = next(candidate for candidate in candidates if candidate["backbone"] == winner)
        reason = f"{winner} passes every check with validation accuracy {own['metrics']['accuracy']:.4f}"
        return reason + (f"; the other{'s' if len(others) > 1 else ''}: {against}" if against else "")
    failed = [
        f"{candidate['backbone']}: {_refusal(row)}"
        for candidate in candidates
        for row in candidate["checks"]
        if not row["passed"]
    ]
    more = f"; and {len(failed) - _MAX_REASONS:,} checks more" if len(failed) > _MAX_REASONS else ""
    return "no model passes: " + "; ".join(failed[:_MAX_REASONS]) + more


def _of_another(candidate: dict[str, Any]) -> str:
    if candidate.get("failed"):
        return f"{candidate['backbone']}, whose training failed: {candidate['failed']}"
    refused = "" if candidate["passed"] else " (refused)"
    return f"{candidate['backbone']} {candidate['metrics']['accuracy']:.4f}{refused}"


def _refusal(row: dict[str, Any]) -> str:
    if row["limit"] is None:
        return str(row["note"])
    said = row["note"] if row["value"] is None else f"{row['value']:.4f}"
    return f"{row['name']} {said}, {limit_of(row)} is asked"


def _check_comparable(evaluations: list[dict[str, Any]], serving: dict[str, Any] | None) -> None:
    for evaluation in evaluations:
        if not evaluation["training"]:
            raise DataError("an evaluation is of what is serving, which is no candidate; give it as --serving")
    if serving and not serving["serving"]:
        raise DataError("--serving is the evaluation of a trained model; evaluate what serves with --model-root")
    everything = [*evaluations, serving] if serving else evaluations
    for evaluation in evaluations:
        if evaluation["metrics"] and "most_frequent" not in evaluation["metrics"]:
            raise DataError(
                "an evaluation was written by an earlier version, which didn't compare with the most frequent class; "
                "run `sat_xception evaluate` again"
            )
    for evaluation in everything:
        if evaluation["split"] != "valid":
            raise DataError(f"an evaluation is of the {evaluation['split']} split; the gate chooses on valid only")
    digests = {evaluation["dataset_digest"] for evaluation in everything}
    if len(digests) > 1:
        raise DataError("the evaluations are of different datasets; evaluate all models on the same examples")
    names = [evaluation["backbone"] for evaluation in evaluations]
    if len(set(names)) < len(names):
        raise DataError(f"two evaluations are of the same backbone ({', '.join(names)}); give one each")
