"""Decide which model may be deployed, or that none may.

Every candidate is checked against every limit and against the serving model, on the same validation tiles. Of those
that pass, the one with the highest validation accuracy wins; ties are broken by lower calibration error, shorter
training, and name. A winner that is serving already, by the digest of its Keras model, isn't deployed again. A
candidate whose training failed is rejected; the others are judged without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from sat_xception.errors import DataError, GateRefusedError
from sat_xception.evaluate.checks import check
from sat_xception.evaluate.comparison import compare
from sat_xception.evaluate.decision import NO_WINNER, Candidate, Check, Decision, PairComparison
from sat_xception.evaluate.evaluation import Evaluation
from sat_xception.evaluate.figures import Comparison
from sat_xception.evaluate.predictions import read_outcomes
from sat_xception.evaluate.report import decision_markdown, run_report
from sat_xception.evaluate.settings import GateConfig
from sat_xception.storage import atomic_folder

__all__ = ["NO_WINNER", "GateResult", "decide", "gate"]

# Failed checks that the reason names; there may be one for each slice.
_MAX_REASONS = 12


@dataclass(frozen=True)
class GateResult:
    """The gate's decision.

    Attributes:
        folder: Folder with `decision.json`, `decision.md` and `report.html`.
        decision: Content of `decision.json`.
    """

    folder: Path
    decision: Decision

    @property
    def winner(self) -> str:
        """Backbone of the winner, or "none"."""
        return self.decision.winner

    @property
    def to_deploy(self) -> str:
        """Backbone of the model to deploy; "none" if no model passed, or if the winner is serving already."""
        return self.decision.to_deploy

    def main_figures(self) -> dict[str, float]:
        """Return the figures for comparing runs in the Kubeflow UI, of each candidate and of the serving model."""
        scored = {each.backbone: each.metrics for each in self.decision.candidates}
        if self.decision.serving:
            scored["serving"] = self.decision.serving.metrics
        return {
            f"{name} {figure}": value
            for name, metrics in scored.items()
            if metrics
            for figure, value in {
                "accuracy": metrics.accuracy,
                "precision": metrics.positive.precision,
                "recall": metrics.positive.recall,
                "calibration_error": metrics.calibration_error,
            }.items()
        }

    def summary(self) -> str:
        """Return the winner and the reason."""
        return f"gate      winner: {self.winner} | {self.decision.reason}\nwrote     {self.folder}/report.html"


def gate(config: GateConfig) -> GateResult:
    """Check the candidates; write `decision.json`, `decision.md` and `report.html`.

    Raises:
        DataError: The evaluations are of different data, of one backbone, or not of the validation split.
        GateRefusedError: No candidate passed and `require_winner` is set; the decision is written nevertheless.

    Example:
        result = gate(GateConfig(evaluations=["evaluations/xception", "evaluations/mobilenetv2"], out="decision"))
        print(result.winner, result.decision.reason)
    """
    evaluations = [Evaluation.read(folder) for folder in config.evaluations]
    serving = Evaluation.read(config.serving) if config.serving else None
    _check_comparable(evaluations, serving)
    outcomes = {
        evaluation.backbone: read_outcomes(folder)
        for evaluation, folder in zip(evaluations, config.evaluations, strict=True)
        if evaluation.metrics
    }
    comparisons = [
        PairComparison(first=first, second=second, **dict(compare(outcomes[first], outcomes[second])))
        for first, second in combinations(sorted(outcomes), 2)
    ]
    against = {}
    if config.serving and serving and serving.metrics:
        now = read_outcomes(config.serving)
        against = {backbone: compare(own, now) for backbone, own in outcomes.items()}
    decision = decide(evaluations, config, comparisons, serving, against)
    with atomic_folder(config.out, record=Decision.file_name) as work:
        decision.write(work)
        (work / "decision.md").write_text(decision_markdown(decision), encoding="utf-8")
        (work / "report.html").write_text(run_report(decision), encoding="utf-8")
    if config.require_winner and decision.winner == NO_WINNER:
        raise GateRefusedError(f"{decision.reason}. Details: {config.out}/report.html")
    return GateResult(config.out, decision)


def decide(
    evaluations: Sequence[Evaluation],
    config: GateConfig,
    comparisons: Sequence[PairComparison] = (),
    serving: Evaluation | None = None,
    against: Mapping[str, Comparison] | None = None,
) -> Decision:
    """Return the decision on candidates that have been found comparable.

    Args:
        evaluations: Evaluation of each candidate.
        config: Limits.
        comparisons: Pairwise comparisons of the candidates, for the report only.
        serving: Evaluation of the serving model.
        against: Comparison of each candidate with the serving model, by backbone.
    """
    candidates = []
    for evaluation in evaluations:
        comparison = (against or {}).get(evaluation.backbone)
        checks = tuple(check(evaluation, config, serving.serving if serving else None, comparison))
        passed = all(each.passed for each in checks)
        candidates.append(Candidate(**dict(evaluation), against_serving=comparison, checks=checks, passed=passed))
    candidates.sort(key=_rank)
    winner = next((candidate for candidate in candidates if candidate.passed), None)
    already_serving = bool(winner and winner.model and serving and serving.model == winner.model)
    reason = _reason(winner, candidates)
    if already_serving and serving and serving.serving:
        reason += f"; it is serving already, as version {serving.serving.version}: there is nothing to deploy"
    first = candidates[0]
    return Decision(
        winner=winner.backbone if winner else NO_WINNER,
        already_serving=already_serving,
        model=(winner.model or "") if winner else "",
        reason=reason,
        candidates=tuple(sorted(candidates, key=lambda candidate: candidate.backbone)),
        comparisons=tuple(comparisons),
        serving=serving,
        classes=first.classes,
        positive_label=first.positive_label,
        source=first.source,
        synthetic=first.synthetic,
        dataset_digest=first.dataset_digest,
        config=config.resolved(),
    )


def _rank(candidate: Candidate) -> tuple[float, float, float, str]:
    metrics = candidate.metrics
    accuracy, error = (metrics.accuracy, metrics.calibration_error) if metrics else (-1.0, 1.0)
    return -accuracy, error, candidate.training.total_seconds, candidate.backbone


def _reason(winner: Candidate | None, candidates: list[Candidate]) -> str:
    if winner and winner.metrics:
        others = [each for each in candidates if each.backbone != winner.backbone]
        against = ", ".join(map(_describe_other, others))
        reason = f"{winner.backbone} passes every check with validation accuracy {winner.metrics.accuracy:.4f}"
        return reason + (f"; the other{'s' if len(others) > 1 else ''}: {against}" if against else "")
    failed = [
        f"{candidate.backbone}: {_refusal(each)}"
        for candidate in candidates
        for each in candidate.checks
        if not each.passed
    ]
    more = f"; and {len(failed) - _MAX_REASONS:,} checks more" if len(failed) > _MAX_REASONS else ""
    return "no model passes: " + "; ".join(failed[:_MAX_REASONS]) + more


def _describe_other(candidate: Candidate) -> str:
    if not candidate.metrics:
        return f"{candidate.backbone}, whose training failed: {candidate.failed}"
    refused = "" if candidate.passed else " (refused)"
    return f"{candidate.backbone} {candidate.metrics.accuracy:.4f}{refused}"


def _refusal(failed: Check) -> str:
    if failed.limit is None:
        return failed.note
    value = failed.note if failed.value is None else f"{failed.value:.4f}"
    return f"{failed.name} {value}, {failed.asked} is asked"


def _check_comparable(evaluations: list[Evaluation], serving: Evaluation | None) -> None:
    for evaluation in evaluations:
        if not evaluation.training:
            raise DataError("an evaluation is of the serving model, which is no candidate; give it as --serving")
    if serving and not serving.serving:
        raise DataError("--serving is the evaluation of a trained model; evaluate what serves with --model-root")
    everything = [*evaluations, serving] if serving else evaluations
    for evaluation in everything:
        if evaluation.split != "valid":
            raise DataError(f"an evaluation is of the {evaluation.split} split; the gate chooses on valid only")
    if len({evaluation.dataset_digest for evaluation in everything}) > 1:
        raise DataError("the evaluations are of different datasets; evaluate all models on the same examples")
    names = [evaluation.backbone for evaluation in evaluations]
    if len(set(names)) < len(names):
        raise DataError(f"two evaluations are of the same backbone ({', '.join(names)}); give one each")
