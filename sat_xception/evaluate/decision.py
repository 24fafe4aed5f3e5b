"""`decision.json`: the model that may be deployed, or none, with every check of every candidate."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from sat_xception.evaluate.evaluation import Evaluation, TrainingSummary
from sat_xception.evaluate.figures import Comparison, Interval
from sat_xception.storage.document import Document, Part

__all__ = ["NO_WINNER", "Candidate", "Check", "Decision", "PairComparison"]

NO_WINNER = "none"


class Check(Part):
    """One check of a candidate against a limit.

    Attributes:
        name: Name of the checked figure.
        value: The figure; None if there is none.
        interval: 95 % interval of the figure; None if unknown.
        limit: The limit; None for a check without one.
        rule: Required relation of figure and limit, such as "at least".
        passed: Whether the figure meets the limit.
        note: Further explanation, or "".
        slice: Slice and value, for a check of a slice; else None, and left out of the file.
        figure: "accuracy" or "recall", for a check of a slice; left out like `slice`.
    """

    name: str
    value: float | None
    interval: Interval | None
    limit: float | None
    rule: str
    passed: bool
    note: str
    slice: tuple[str, str] | None = None
    figure: str | None = None

    @property
    def asked(self) -> str:
        """The rule with its limit, if it has one."""
        return self.rule if self.limit is None else f"{self.rule} {self.limit:g}"

    @model_serializer(mode="wrap")
    def _leave_out_an_absent_slice(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        if self.slice is None:
            del content["slice"], content["figure"]
        return content


class Candidate(Evaluation):
    """Evaluation of a trained model, with its comparison with the serving model, its checks, and whether all passed."""

    training: TrainingSummary
    against_serving: Comparison | None
    checks: tuple[Check, ...]
    passed: bool


class PairComparison(Comparison):
    """Comparison of two candidates, by the names of their backbones."""

    first: str
    second: str


class Decision(Document):
    """Content of `decision.json`.

    Attributes:
        winner: Backbone of the winner; "none" if no model passed.
        already_serving: Whether the winner is serving already.
        model: Digest of the winner's Keras model; "" without a winner.
        reason: Reason for the decision.
        candidates: Candidates by the names of their backbones.
        comparisons: Pairwise comparisons of the candidates.
        serving: Evaluation of the serving model; None if the gate got none.
        classes: Names in index order.
        positive_label: The positive class; "" without one.
        source: Name of the data.
        synthetic: Whether the data is the synthetic sample.
        dataset_digest: Digest of the dataset.
        config: Settings of the gate.
    """

    file_name: ClassVar[str] = "decision.json"
    made_by: ClassVar[str] = "gate"

    winner: str
    already_serving: bool
    model: str
    reason: str
    candidates: tuple[Candidate, ...]
    comparisons: tuple[PairComparison, ...]
    serving: Evaluation | None
    classes: tuple[str, ...]
    positive_label: str
    source: str
    synthetic: bool
    dataset_digest: str
    config: dict[str, Any]

    @property
    def to_deploy(self) -> str:
        """Backbone of the model to deploy; "none" where no model passed, or the winner is serving already."""
        return NO_WINNER if self.already_serving else self.winner

    @property
    def scored(self) -> tuple[Candidate, ...]:
        """Candidates that have figures."""
        return tuple(each for each in self.candidates if each.metrics)
