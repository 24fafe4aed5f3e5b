"""What the part that runs TensorFlow Data Validation is asked, and what it answers.

That part may run in another process, under an older Python and other library versions (see `tfdv_runner`), so both are
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


# Of numbers and of texts, those whose distributions are compared between splits, and with the baseline.
COMPARED_NUMBERS = ("image/height", "image/width", "image/bytes", "image/mean_luma", "image/std_luma")
COMPARED_TEXTS = ("image/format", "image/class/text")
COMPARED_FEATURES = frozenset((*COMPARED_NUMBERS, *COMPARED_TEXTS))


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TfdvRequest(_Message):
    """What to look at and where to write.

    Attributes:
        files: TFRecord files by split. A split without files is empty; `train` is always there.
        counts: Number of examples that the files of each split should hold.
        classes: Class names in label order.
        schema_file: A reviewed schema; None infers one from train.
        as_it_is: Whether the limits of the reviewed schema hold as they are, however few the examples.
        baseline: Statistics of train in the last accepted run, in TFDV's binary form; None compares with none.
        max_skew: Limit of an inferred schema's skew comparators.
        max_drift: Limit of an inferred schema's drift comparators.
        out: Existing folder for the statistics, the schema and the anomalies in TFDV's own forms.
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


class SliceStatistics(_Message):
    """The examples of a split, or of the baseline, that share a value of a slice column.

    Attributes:
        slice: `<column>=<value>`, as "region=north".
        data: The split, or "baseline".
        examples: How many there are.
        by_class: Number of them by class, the most frequent first.
        mean_luma: Mean of the images' mean brightness, 0 to 255.
    """

    slice: str
    data: str
    examples: int
    by_class: dict[str, int]
    mean_luma: float | None


class Distance(_Message):
    """How far a feature's distribution in a split is from the one in other data.

    Attributes:
        split: The split that is compared.
        against: With what: "train", or "baseline".
        slice: `<column>=<value>` of the examples that are compared; "" for all.
        feature: The feature's name.
        measure: TFDV's name of the distance: JENSEN_SHANNON_DIVERGENCE or L_INFTY.
        value: The distance, from 0 (same) to 1 (nothing in common).
        limit: What it may be; above it is an anomaly.
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
        split: Split it was found in.
        slice: `<column>=<value>` of the examples that it was found in; "" for all of the split.
        feature: The feature's name; "examples" when it concerns the split as a whole.
        kind: TFDV's name of the kind, as ENUM_TYPE_UNEXPECTED_STRING_VALUES, or EMPTY_SPLIT.
        description: What was found, with the values.
        severity: TFDV's ERROR or WARNING.
        count: Number of examples that have it, where the statistics tell; None where they don't.
        share: That number as a share of the split's examples.
        advice: What to do about it.
        accepted: Whether the caller accepts it.
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
    """Everything found, for the report and the verdict.

    Attributes:
        version: Version of TFDV.
        statistics: By split.
        slices: Every slice in every split and in the baseline, sorted by slice.
        distances: Distance of each compared feature, split and slice.
        anomalies: None of them accepted yet.
        schema_text: The schema that was used, as protocol buffer text.
    """

    version: str
    statistics: dict[str, SplitStatistics]
    slices: tuple[SliceStatistics, ...] = ()
    distances: tuple[Distance, ...]
    anomalies: tuple[Anomaly, ...]
    schema_text: str
