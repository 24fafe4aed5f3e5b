"""Request and response of the code that runs TensorFlow Data Validation.

That code may run in another process, under an older Python and other library versions (see `tfdv_runner`), so both are
plain JSON and this module imports nothing but pydantic.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

__all__ = [
    "COMPARED_FEATURES",
    "COMPARED_NUMBERS",
    "COMPARED_TEXTS",
    "Anomaly",
    "Distance",
    "FeatureStatistics",
    "Findings",
    "SliceStatistics",
    "SplitStatistics",
    "TfdvRequest",
    "count_anomalies",
]


# Numeric and string features whose distributions are compared between splits, and with the baseline.
COMPARED_NUMBERS = ("image/height", "image/width", "image/bytes", "image/mean_luma", "image/std_luma")
COMPARED_TEXTS = ("image/format", "image/class/text")
COMPARED_FEATURES = frozenset((*COMPARED_NUMBERS, *COMPARED_TEXTS))


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TfdvRequest(_Message):
    """The examples to check, the limits, and the output folder.

    Attributes:
        files: TFRecord files by split. A split without files is empty; `train` is always there.
        counts: Expected number of examples per split.
        classes: Class names in label order.
        schema_file: A reviewed schema; None infers one from train.
        as_it_is: Whether the limits of the reviewed schema apply unchanged, even to few examples.
        baseline: Statistics of train in the last accepted run, in TFDV's binary form; None skips the comparison.
        max_skew: Limit of an inferred schema's skew comparators.
        max_drift: Limit of an inferred schema's drift comparators.
        out: Existing folder for the statistics, the schema and the anomalies in TFDV's own formats.
    """

    files: dict[str, tuple[Path, ...]]
    counts: dict[str, int]
    classes: tuple[str, ...]
    schema_file: Path | None = None
    as_it_is: bool = False
    baseline: Path | None = None
    max_skew: float
    max_drift: float
    out: Path


class FeatureStatistics(_Message):
    """One feature in one split.

    Attributes:
        name: Name of the feature.
        type: TFDV's type: INT, FLOAT, STRING, BYTES or STRUCT.
        present: Number of examples with the feature.
        missing: Number of examples without it.
        minimum: Smallest number; None if the feature isn't numeric, or has no values.
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


class SliceStatistics(_Message):
    """The examples of a split, or of the baseline, that share a value of a slice column.

    Attributes:
        slice: `<column>=<value>`, as "region=north".
        data: The split, or "baseline".
        examples: Number of examples.
        by_class: Number of examples by class, the most frequent first.
        mean_luma: Mean of the images' mean brightness, 0 to 255.
    """

    slice: str
    data: str
    examples: int
    by_class: dict[str, int]
    mean_luma: float | None


class Distance(_Message):
    """Distance between a feature's distributions in a split and in other data.

    Attributes:
        split: The split that is compared.
        against: The data that it is compared with: "train", or "baseline".
        slice: `<column>=<value>` of the examples that are compared; "" for all.
        feature: Name of the feature.
        measure: TFDV's name of the distance: JENSEN_SHANNON_DIVERGENCE or L_INFTY.
        value: The distance, from 0 (same) to 1 (nothing in common).
        limit: Maximum distance; a larger one is an anomaly.
    """

    split: str
    against: str
    slice: str = ""
    feature: str
    measure: str
    value: float
    limit: float


class Anomaly(_Message):
    """Something in the data that the schema doesn't allow.

    Attributes:
        split: Split with the anomaly.
        slice: `<column>=<value>` of the examples with the anomaly; "" for the whole split.
        feature: Name of the feature; "examples" if the anomaly concerns the split as a whole.
        kind: TFDV's name of the kind, such as ENUM_TYPE_UNEXPECTED_STRING_VALUES, or EMPTY_SPLIT.
        description: TFDV's description, with the values.
        severity: TFDV's ERROR or WARNING.
        count: Number of examples with the anomaly; None if the statistics don't give it.
        share: `count` as a share of the split's examples.
        advice: What to do about the anomaly.
        accepted: Whether an `accept` pattern matches it.
    """

    split: str
    slice: str = ""
    feature: str
    kind: str
    description: str
    severity: str
    count: int | None = None
    share: float | None = None
    advice: str = ""
    accepted: bool = False


def count_anomalies(number: int) -> str:
    """Return the number with its noun: "no anomalies", "1 anomaly", "2 anomalies"."""
    return "1 anomaly" if number == 1 else f"{number or 'no'} anomalies"


class Findings(_Message):
    """All results of TFDV, for the report and the verdict.

    Attributes:
        version: Version of TFDV.
        statistics: Statistics by split.
        slices: Every slice in every split and in the baseline, sorted by slice.
        distances: Distance of each compared feature, split and slice.
        anomalies: Anomalies, before any of them is accepted.
        schema_text: The schema that was used, as protocol buffer text.
    """

    version: str
    statistics: dict[str, SplitStatistics]
    slices: tuple[SliceStatistics, ...] = ()
    distances: tuple[Distance, ...]
    anomalies: tuple[Anomaly, ...]
    schema_text: str
