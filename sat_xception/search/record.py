"""`search.json`: the trials of a search, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from sat_xception.model.parts import Weights
from sat_xception.storage.document import Document, Part

__all__ = ["BestTrial", "SearchCounts", "SearchRecord", "SearchedRange", "SearchedSpace", "TrialRecord"]


class SearchedRange(Part):
    """Range of a setting, both ends included, and whether its scale is logarithmic."""

    low: int | float
    high: int | float
    log: bool


class SearchedSpace(Part):
    """Name of a space, and the values or the range of each setting in it."""

    name: str
    settings: Mapping[str, SearchedRange | tuple[bool | int | float | str, ...]]


class SearchCounts(Part):
    """Numbers of trials: `asked` is the sum of the others."""

    asked: int
    complete: int
    pruned: int
    failed: int
    left: int


class TrialRecord(Part):
    """One trial.

    Attributes:
        number: From 1, in the order of the trials.
        state: How it ended.
        params: Its settings.
        valid_accuracy: Validation accuracy; None where it isn't complete.
        valid_loss: Validation loss; None where it has none that is finite.
        phase: Phase that reached the accuracy; "" where it isn't complete.
        epochs: Number of epochs.
        seconds: Time.
        reason: Why it failed; "" if it didn't.
    """

    number: int
    state: Literal["complete", "pruned", "fail"]
    params: Mapping[str, Any]
    valid_accuracy: float | None
    valid_loss: float | None
    phase: str
    epochs: int
    seconds: float
    reason: str


class BestTrial(TrialRecord):
    """The best trial; `settings` are those that train takes, with those that all trials had."""

    valid_accuracy: float
    settings: Mapping[str, Any]


class SearchRecord(Document):
    """Content of `search.json`.

    Attributes:
        space: Search space.
        counts: Numbers of trials.
        best: The best trial.
        trials: Every trial that wasn't interrupted.
        importance: Importance of each setting for the accuracy; empty with too few trials.
        dataset_digest: Digest of the dataset.
        synthetic: Whether the data is the synthetic sample.
        weights: Weights that the backbone started from.
        seconds: Time of the last run.
        config: Settings of search.
    """

    file_name: ClassVar[str] = "search.json"
    made_by: ClassVar[str] = "search"

    space: SearchedSpace
    counts: SearchCounts
    best: BestTrial
    trials: tuple[TrialRecord, ...]
    importance: Mapping[str, float]
    dataset_digest: str
    synthetic: bool
    weights: Weights
    seconds: float
    config: Mapping[str, Any]
