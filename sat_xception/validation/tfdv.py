"""Find anomalies, skew and drift in examples with TensorFlow Data Validation, in this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sat_xception.errors import ConfigError
from sat_xception.validation.findings import Anomaly, Distance, Findings, TfdvRequest
from sat_xception.validation.schema import allow_for_noise, infer_schema, slice_schema
from sat_xception.validation.statistics import (
    compute_statistics,
    load_statistics,
    parts,
    slice_statistics,
    split_statistics,
)
from sat_xception.validation.tfdv_import import Anomalies, Schema, Statistics, anomalies_pb2, text_format, tfdv

__all__ = ["find"]


@dataclass(frozen=True)
class _Pair:
    """Statistics by slice of two sets of data that are compared: a split with train, or train with the baseline."""

    split: str
    against: str
    current: dict[str, Statistics]
    other: dict[str, Statistics]


def find(request: TfdvRequest) -> Findings:
    """Compute the statistics of every split, check them against the schema, compare them, and write the results.

    Valid and test are compared with train, and train with the baseline: as a whole and slice by slice. Writes
    `statistics-<split>.pb`, `anomalies-<split>.pbtxt` (of the whole split) and `schema.pbtxt` to `request.out`.

    Raises:
        ConfigError: The given schema or the baseline can't be read.
        DataError: A TFRecord file can't be read, or the number of examples differs from `request.counts`.
    """
    given = None if request.schema_file is None else _read_schema(request.schema_file)
    baseline = None if request.baseline is None else load_statistics(request.baseline)
    statistics = compute_statistics(request, given)
    splits = {split: parts(current) for split, current in statistics.items()}
    train = splits["train"]
    schema = given or infer_schema(train[""], request.classes, request.max_skew, request.max_drift)
    schema_file = request.out / "schema.pbtxt"
    if request.schema_file is None:
        tfdv.write_schema_text(schema, str(schema_file))
    else:
        # Copied byte for byte, with the reviewer's comments.
        shutil.copyfile(request.schema_file, schema_file)
    pairs = [_Pair("train", "baseline", train, {} if baseline is None else parts(baseline))]
    pairs += [_Pair(split, "train", current, train) for split, current in splits.items() if split != "train"]
    compared = [(pair, name) for pair in pairs for name in sorted(pair.current) if name and name in pair.other]
    anomalies: list[Anomaly] = []
    distances: list[Distance] = []
    for pair, name in [*((pair, "") for pair in pairs), *compared]:
        held_to, at_once = (slice_schema(schema), len(compared)) if name else (schema, 1)
        found = _validate(pair, name, held_to, request.as_it_is, at_once)
        if not name:
            tfdv.write_anomalies_text(found, str(request.out / f"anomalies-{pair.split}.pbtxt"))
        anomalies.extend(_anomalies(pair, name, found, schema))
        distances.extend(_distances(pair, name, found))
    measured = statistics if baseline is None else {**statistics, "baseline": baseline}
    slices = [row for data, current in measured.items() for row in slice_statistics(data, current)]
    return Findings(
        version=tfdv.__version__,
        statistics={split: split_statistics(current[""]) for split, current in splits.items()},
        slices=tuple(sorted(slices, key=lambda row: row.slice)),
        distances=tuple(distances),
        anomalies=tuple(anomalies),
        schema_text=schema_file.read_text(encoding="utf-8"),
    )


def _read_schema(path: Path) -> Schema:
    try:
        return tfdv.load_schema_text(str(path))
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ConfigError(f"{path} isn't a schema in text form: {error}") from None


def _validate(pair: _Pair, part: str, schema: Schema, as_it_is: bool, comparisons: int) -> Anomalies:
    """Return TFDV's anomalies for a slice, or for all data if `part` is ""."""
    current, other = pair.current[part], pair.other.get(part)
    if other is None or not other.datasets[0].num_examples or not current.datasets[0].num_examples:
        return tfdv.validate_statistics(current, schema)
    # The reviewer knew the number of examples per split, but not how few a slice may have.
    limits = schema if as_it_is and not part else allow_for_noise(schema, other, current, comparisons)
    if pair.against == "baseline":
        return tfdv.validate_statistics(current, limits, previous_statistics=other)
    # The distances are symmetric, so the split can be validated with train as its reference.
    return tfdv.validate_statistics(current, limits, serving_statistics=other)


def _anomalies(pair: _Pair, part: str, found: Anomalies, schema: Schema) -> Iterator[Anomaly]:
    place = {"split": pair.split, "slice": part, "severity": "ERROR"}
    if found.data_missing:
        yield Anomaly(
            **place, feature="examples", kind="EMPTY_SPLIT", description=f"{pair.split} has no examples", count=0
        )
    named = [(".".join(info.path.step) or name, info) for name, info in sorted(found.anomaly_info.items())]
    if found.HasField("dataset_anomaly_info"):
        named.append(("examples", found.dataset_anomaly_info))
    data = pair.current[part].datasets[0]
    for feature, info in named:
        place["severity"] = anomalies_pb2.AnomalyInfo.Severity.Name(info.severity)
        for reason in info.reason:
            kind = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
            count = _count(kind, feature, data, schema)
            description = reason.description.replace("training and serving", f"{pair.split} and train")
            yield Anomaly(
                **place,
                feature=feature,
                kind=kind,
                description=description.replace("current and previous", f"{pair.split} and the baseline"),
                count=count,
                share=None if count is None else count / max(data.num_examples, 1),
            )


def _count(kind: str, feature: str, data: Any, schema: Schema) -> int | None:  # noqa: ANN401 - DatasetFeatureStatistics
    """Return the number of examples with an anomaly, or None if the statistics don't give it."""
    measured = next((item for item in data.features if item.path.step[0] == feature), None)
    if measured is None:
        return int(data.num_examples) if kind == "SCHEMA_MISSING_COLUMN" else None
    common = getattr(measured, measured.WhichOneof("stats")).common_stats
    if kind == "FEATURE_TYPE_LOW_FRACTION_PRESENT":
        return int(data.num_examples - common.num_non_missing)
    if kind == "SCHEMA_NEW_COLUMN":
        return int(common.num_non_missing)
    if kind == "ENUM_TYPE_UNEXPECTED_STRING_VALUES":
        allowed = next((set(item.string_domain.value) for item in schema.feature if item.name == feature), set())
        buckets = measured.string_stats.rank_histogram.buckets
        return round(sum(bucket.sample_count for bucket in buckets if bucket.label not in allowed)) if allowed else None
    return None


def _distances(pair: _Pair, part: str, found: Anomalies) -> Iterator[Distance]:
    for info in found.drift_skew_info:
        for measurement in (*info.skew_measurements, *info.drift_measurements):
            yield Distance(
                split=pair.split,
                against=pair.against,
                slice=part,
                feature=".".join(info.path.step),
                measure=type(measurement).Type.Name(measurement.type),
                value=measurement.value,
                limit=measurement.threshold,
            )
