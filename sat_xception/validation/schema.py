"""The schema of examples: inferred by TFDV from train, corrected by what is known about satellite tiles."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist
from typing import Any

from sat_xception.validation.findings import COMPARED_NUMBERS, COMPARED_TEXTS
from sat_xception.validation.tfdv_import import Schema, Statistics, schema_pb2, tfdv

__all__ = ["allow_for_noise", "infer_schema", "noise_divergence", "noise_share", "slice_schema"]

# Features that every example has. `image/encoded` and `tile/id` are required too, but aren't in the statistics.
_REQUIRED = {
    "image/format": "BYTES",
    "image/height": "INT",
    "image/width": "INT",
    "image/bytes": "INT",
    "image/mean_luma": "FLOAT",
    "image/std_luma": "FLOAT",
    "image/class/label": "INT",
    "image/class/text": "BYTES",
}
_FORMATS = ("jpeg", "png", "webp")
# Smallest and largest valid value of features whose range is known.
_BOUNDS: dict[str, tuple[float, float | None]] = {
    "image/bytes": (1, None),
    "image/mean_luma": (0, 255),
    "image/std_luma": (0, 255),
    "tile/weight": (0, None),
}
# Heights and widths may differ from train's by this factor. Below 2, so that double-size ("@2x") tiles are outside.
_SIZE_SLACK = 1.5
# TFDV compares two histograms of ten buckets over the union of their ranges.
_HISTOGRAM_CELLS = 21
_BY_CHANCE = 0.01
# Features that are compared within a slice.
_COMPARED_IN_SLICES = ("image/class/text", "image/mean_luma")


def infer_schema(train: Statistics, classes: tuple[str, ...], max_skew: float, max_drift: float) -> Schema:
    """Infer a schema from train, then set type, presence, domain and comparators of the known features.

    Other features keep what TFDV infers. `slice/<name>` has no closed list of values: splits consist of whole blocks of
    the map, so a region may occur in one split only.

    Args:
        train: Statistics of the training split.
        classes: Class names in label order.
        max_skew: Limit of the comparators of other splits with train.
        max_drift: Limit of the comparators of train with the baseline.
    """
    schema = tfdv.infer_schema(train, infer_feature_shape=False)
    features = {feature.name: feature for feature in schema.feature}
    for name, type_name in _REQUIRED.items():
        if name not in features:
            features[name] = schema.feature.add(name=name)
        _require(features[name], schema_pb2.FeatureType.Value(type_name))
    if "tile/weight" not in features:
        features["tile/weight"] = schema.feature.add(name="tile/weight", type=schema_pb2.FLOAT)
    _make_optional(features["tile/weight"])
    measured = {feature.path.step[0]: feature for feature in train.datasets[0].features}
    sizes = {name: _size_bounds(measured.get(name)) for name in ("image/height", "image/width")}
    for name, (low, high) in {**_BOUNDS, **sizes, "image/class/label": (0, len(classes) - 1)}.items():
        if name in features:
            _set_bounds(features[name], low, high)
    _set_values(features["image/format"], _FORMATS)
    _set_values(features["image/class/text"], classes)
    slices = [name for name in features if name.startswith("slice/")]
    for name in slices:
        features[name].ClearField("domain_info")
    spread = [name for name in COMPARED_NUMBERS if name in measured and _is_spread(measured[name])]
    for name in (*COMPARED_TEXTS, *slices, *spread):
        feature = features[name]
        for comparator, limit in ((feature.skew_comparator, max_skew), (feature.drift_comparator, max_drift)):
            comparator.jensen_shannon_divergence.threshold = limit
            if name not in spread:
                comparator.infinity_norm.threshold = limit
    _drop_unused_domains(schema)
    return schema


def _require(feature: Any, type_number: int) -> None:  # noqa: ANN401 - schema_pb2.Feature
    feature.type = type_number
    feature.ClearField("domain_info")
    feature.presence.min_fraction = 1.0
    feature.presence.min_count = 1
    feature.value_count.min = feature.value_count.max = 1


def _make_optional(feature: Any) -> None:  # noqa: ANN401 - schema_pb2.Feature
    feature.presence.Clear()
    feature.presence.min_count = 0
    feature.ClearField("shape")
    feature.value_count.min = feature.value_count.max = 1


def _size_bounds(measured: Any) -> tuple[float, float | None]:  # noqa: ANN401 - statistics_pb2.FeatureNameStatistics or None
    if measured is None or not measured.HasField("num_stats"):
        return 1, None
    numbers = measured.num_stats
    return max(1, math.floor(numbers.min / _SIZE_SLACK)), math.ceil(numbers.max * _SIZE_SLACK)


def _set_bounds(feature: Any, low: float, high: float | None) -> None:  # noqa: ANN401 - schema_pb2.Feature
    if feature.type == schema_pb2.FLOAT:
        domain = feature.float_domain
        domain.disallow_nan = domain.disallow_inf = True
    elif feature.type == schema_pb2.INT:
        domain = feature.int_domain
        low, high = int(low), None if high is None else int(high)
    else:
        return
    domain.min = low
    if high is not None:
        domain.max = high


def _set_values(feature: Any, values: Iterable[str]) -> None:  # noqa: ANN401 - schema_pb2.Feature
    feature.string_domain.name = feature.name
    feature.string_domain.value[:] = values


def _is_spread(measured: Any) -> bool:  # noqa: ANN401 - statistics_pb2.FeatureNameStatistics
    """Return whether the deciles differ, so that no value is shared by a tenth of the examples.

    If one is (nearly all tiles are 256 pixels wide), TFDV's divergence of the histograms is meaningless: between random
    parts of the same tiles it was anywhere from 0 to 1, mostly above 0.5 (UC Merced, sizes, 2026-11).
    """
    if not measured.HasField("num_stats"):
        return False
    deciles = [histogram for histogram in measured.num_stats.histograms if histogram.type == histogram.QUANTILES]
    return bool(deciles) and all(bucket.low_value < bucket.high_value for bucket in deciles[0].buckets)


def _drop_unused_domains(schema: Schema) -> None:
    used = {feature.domain for feature in schema.feature if feature.HasField("domain")}
    kept = [domain for domain in schema.string_domain if domain.name in used]
    del schema.string_domain[:]
    schema.string_domain.extend(kept)


def slice_schema(schema: Schema) -> Schema:
    """Return a schema for one slice: only the comparators of the features that are compared within slices."""
    compared = schema_pb2.Schema()
    for feature in schema.feature:
        if feature.name in _COMPARED_IN_SLICES:
            kept = compared.feature.add(name=feature.name, type=feature.type)
            kept.skew_comparator.CopyFrom(feature.skew_comparator)
            kept.drift_comparator.CopyFrom(feature.drift_comparator)
    return compared


def allow_for_noise(schema: Schema, other: Statistics, current: Statistics, comparisons: int = 1) -> Schema:
    """Return the schema with skew and drift limits raised to the distances that sampling noise alone can reach.

    The default limit of skew, 0.3, is 30 of 100 tiles in another class, or a shift of about 1.3 standard deviations:
    with TFDV, on the brightness of UC Merced tiles, 400 against 200, the divergence was 0.20 at a shift of 1, 0.27 at
    1.25 and 0.36 at 1.5. Noise alone (400 tiles against n others of the same set, the largest of 80 draws, 2026-11)
    made a divergence and a difference of shares of 0.09 and 0.11 with n = 100, 0.18 and 0.21 with 50, 0.27 and 0.35
    with 30, 0.34 and 0.29 with 20, 0.61 and 0.39 with 10. So 0.3 holds from about 50 tiles on; with fewer,
    `noise_share` takes over, and from about 25 down `noise_divergence`. The limit of drift, 0.1, was chosen by an
    experiment (docs/decisions/0013-limits-of-drift.md); it holds from about 140 tiles on each side for a divergence and
    from 800 for a share.

    Args:
        schema: Inferred schema, or the baseline's; it isn't changed.
        other: Statistics of the data compared with: train, or the baseline.
        current: Statistics of the split.
        comparisons: Number of comparisons made at once, for the Bonferroni correction.
    """
    counts = (other.datasets[0].num_examples, current.datasets[0].num_examples)
    cells = _cells(other, current)
    share = noise_share(*counts)
    relaxed = schema_pb2.Schema()
    relaxed.CopyFrom(schema)
    for feature in relaxed.feature:
        divergence = noise_divergence(*counts, cells.get(feature.name, _HISTOGRAM_CELLS), comparisons)
        for comparator in (feature.skew_comparator, feature.drift_comparator):
            if comparator.HasField("jensen_shannon_divergence"):
                limit = comparator.jensen_shannon_divergence
                limit.threshold = max(limit.threshold, divergence)
            if comparator.HasField("infinity_norm"):
                comparator.infinity_norm.threshold = max(comparator.infinity_norm.threshold, share)
    return relaxed


def _cells(*compared: Statistics) -> dict[str, int]:
    """Return the number of different strings of each string feature, in all the statistics together."""
    values: dict[str, set[str]] = {}
    for feature in (feature for statistics in compared for feature in statistics.datasets[0].features):
        if feature.HasField("string_stats"):
            buckets = feature.string_stats.rank_histogram.buckets
            values.setdefault(feature.path.step[0], set()).update(bucket.label for bucket in buckets)
    return {name: len(found) for name, found in values.items()}


def noise_divergence(train: int, split: int, cells: int, comparisons: int = 1) -> float:
    """Return the Jensen-Shannon divergence that one in a hundred pairs of samples exceeds by chance, at most 1.

    The divergence (Lin 1991, IEEE Trans. Inf. Theory 37:145) expanded to second order is a chi-squared statistic: 8 ln
    2 times its value in bits, divided by 1/n + 1/m, tends to chi-squared with (number of cells - 1) degrees of freedom.
    The quantile is Wilson and Hilferty's (1931, PNAS 17:684).

    Args:
        train: Number of examples in the training split.
        split: Number of examples in the other split.
        cells: Number of different values, or of histogram cells.
        comparisons: Number of pairs that share the 1 % (Bonferroni).
    """
    degrees = cells - 1
    if degrees < 1 or not train or not split:
        return 0.0
    spread = 2 / (9 * degrees)
    normal = NormalDist().inv_cdf(1 - _BY_CHANCE / comparisons)
    quantile = degrees * (1 - spread + normal * math.sqrt(spread)) ** 3
    return float(min(1.0, quantile / (8 * math.log(2)) * (1 / train + 1 / split)))


def noise_share(train: int, split: int) -> float:
    """Return four standard deviations of the difference between a value's shares in two samples, at most 1.

    The variance of one example, p (1 - p), is taken as its maximum, 1/4.
    """
    if not train or not split:
        return 0.0
    return min(1.0, 4 * math.sqrt((1 / train + 1 / split) / 4))
