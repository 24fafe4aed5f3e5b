"""What the part that runs TensorFlow Data Validation is asked, and what it answers.

That part may run in another process, under an older Python and other library versions (see `tfdv_runner`), so both are
plain JSON and this module imports nothing but pydantic.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

__all__ = [
    "Anomaly",
    "FeatureStatistics",
    "Findings",
    "SkewDistance",
    "SplitStatistics",
    "TfdvRequest",
    "count_anomalies",
]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TfdvRequest(_Message):
    """What to look at and where to write.

    Attributes:
        files: TFRecord files by split. A split without files is empty; `train` is always there.
        counts: Number of examples that the files of each split should hold.
        classes: Class names in label order.
        schema_file: A reviewed schema, used as it is; None infers one from train.
        max_skew: Limit of an inferred schema's skew comparators.
        out: Existing folder for the statistics, the schema and the anomalies in TFDV's own forms.
    """

    files: dict[str, tuple[Path, ...]]
    counts: dict[str, int]
    classes: tuple[str, ...]
    schema_file: Path | None
    max_skew: float
    out: Path


class FeatureStatistics(_Message):
    """One feature in one split.

    Attributes:
        name: The feature's name.
        type: INT, FLOAT, STRING, BYTES or STRUCT, as TFDV calls them.
        present: Examples that have it.
        missing: Examples that don't.
        minimum: Smallest number; None where the feature isn't numeric, or there is none.
        mean: Mean of the numbers.
        maximum: Largest number.
        histogram: (low, high, count) of each bucket of equal width; empty for strings.
        unique: Number of different strings; None for numbers.
        top_values: The most frequent strings with their counts, most frequent first.
    """

    name: str
    type: str
    present: int
    missing: int
    minimum: float | None = None
    mean: float | None = None
    maximum: float | None = None
    histogram: tuple[tuple[float, float, float], ...] = ()
    unique: int | None = None
    top_values: tuple[tuple[str, float], ...] = ()


class SplitStatistics(_Message):
    """One split: its number of examples as TFDV counted them, and its features sorted by name."""

    examples: int
    features: tuple[FeatureStatistics, ...]


class SkewDistance(_Message):
    """How far a feature's distribution in a split is from the one in train.

    Attributes:
        split: The split that is compared with train.
        feature: The feature's name.
        measure: TFDV's name of the distance: JENSEN_SHANNON_DIVERGENCE or L_INFTY.
        value: The distance, from 0 (same) to 1 (nothing in common).
        limit: What it may be; above it is an anomaly.
    """

    split: str
    feature: str
    measure: str
    value: float
    limit: float


class Anomaly(_Message):
    """Something in the data that the schema doesn't allow.

    Attributes:
        split: Split it was found in.
        feature: The feature's name; "examples" when it concerns the split as a whole.
        kind: TFDV's name of the kind, as ENUM_TYPE_UNEXPECTED_STRING_VALUES, or EMPTY_SPLIT.
        description: What was found, with the values.
        severity: TFDV's ERROR or WARNING.
        accepted: Whether the caller accepts it.
    """

    split: str
    feature: str
    kind: str
    description: str
    severity: str
    accepted: bool = False


def count_anomalies(number: int) -> str:
    """Return the number with its noun: "no anomalies", "1 anomaly", "2 anomalies"."""
    return "1 anomaly" if number == 1 else f"{number or 'no'} anomalies"


class Findings(_Message):
    """Everything found, for the report and the verdict.

    Attributes:
        version: Version of TFDV.
        statistics: By split.
        skew: Distance of each compared feature and split.
        anomalies: None of them accepted yet.
        schema_text: The schema that was used, as protocol buffer text.
    """

    version: str
    statistics: dict[str, SplitStatistics]
    skew: tuple[SkewDistance, ...]
    anomalies: tuple[Anomaly, ...]
    schema_text: str
