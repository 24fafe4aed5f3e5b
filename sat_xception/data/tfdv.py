"""Statistics, schema, anomalies and skew of examples, with TensorFlow Data Validation in this process."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sat_xception.data.tfdv_findings import (
    Anomaly,
    FeatureStatistics,
    Findings,
    SkewDistance,
    SplitStatistics,
    TfdvRequest,
)
from sat_xception.data.tfdv_import import (
    Anomalies,
    FnApiRunner,
    Schema,
    Statistics,
    anomalies_pb2,
    beam,
    pyarrow,
    text_format,
    tfdv,
    tfxio,
)
from sat_xception.data.tfdv_schema import allow_for_noise, infer_schema
from sat_xception.errors import ConfigError, DataError
from sat_xception.log import duration, get_logger

__all__ = ["find", "read_batches"]

_log = get_logger(__name__)
# Different in every example: they would flood the statistics and say nothing.
_LEFT_OUT = ("image/encoded", "tile/id")
# Examples decoded at a time. 1,000 save a second on 32,000 examples and hold four times as many images in memory.
_BATCH = 256
_SHOWN_VALUES = 20


def find(request: TfdvRequest) -> Findings:
    """Compute the statistics of every split, hold them to the schema, compare them with train, and write all of it.

    Writes `statistics-<split>.pb`, `anomalies-<split>.pbtxt` and `schema.pbtxt` to `request.out`.

    Raises:
        ConfigError: The given schema can't be read.
        DataError: A TFRecord file can't be read, or the files hold something else than what the request says.
    """
    given = None if request.schema_file is None else _read_schema(request.schema_file)
    statistics = _compute_statistics(request, given)
    _check_counts(request, statistics)
    train = statistics["train"]
    schema = infer_schema(train, request.classes, request.max_skew) if given is None else given
    schema_file = request.out / "schema.pbtxt"
    if request.schema_file is None:
        tfdv.write_schema_text(schema, str(schema_file))
    else:
        # As it is, with the reviewer's comments.
        shutil.copyfile(request.schema_file, schema_file)
    anomalies: list[Anomaly] = []
    distances: list[SkewDistance] = []
    for split, current in statistics.items():
        compared = split != "train" and train.datasets[0].num_examples > 0 and current.datasets[0].num_examples > 0
        limits = allow_for_noise(schema, train, current) if given is None and compared else schema
        # The distances are symmetric: the split can be the data that is validated and train what it is compared with.
        found = tfdv.validate_statistics(current, limits, serving_statistics=train if compared else None)
        tfdv.write_anomalies_text(found, str(request.out / f"anomalies-{split}.pbtxt"))
        anomalies.extend(_anomalies(split, found))
        distances.extend(_distances(split, found))
    return Findings(
        version=tfdv.__version__,
        statistics={split: _split_statistics(current) for split, current in statistics.items()},
        skew=tuple(distances),
        anomalies=tuple(anomalies),
        schema_text=schema_file.read_text(encoding="utf-8"),
    )


def _read_schema(path: Path) -> Schema:
    try:
        return tfdv.load_schema_text(str(path))
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ConfigError(f"--schema-file {path} isn't a schema in text form: {error}") from None


def _compute_statistics(request: TfdvRequest, schema: Schema | None) -> dict[str, Statistics]:
    """Read every file once, in one pipeline for all splits, with memory that doesn't grow with their number."""
    started = time.monotonic()
    targets = {split: request.out / f"statistics-{split}.pb" for split in request.files}
    try:
        with beam.Pipeline(runner=FnApiRunner(), options=beam.options.pipeline_options.PipelineOptions([])) as pipeline:
            for split, files in request.files.items():
                _ = (
                    pipeline
                    | f"files of {split}" >> beam.Create([str(file) for file in files], reshuffle=False)
                    | f"examples of {split}" >> beam.FlatMap(read_batches)
                    | f"statistics of {split}" >> tfdv.GenerateStatistics(tfdv.StatsOptions(schema=schema))
                    | f"write {split}" >> tfdv.WriteStatisticsToBinaryFile(str(targets[split]))
                )
    except Exception:
        # Beam keeps only the text of an error. Where a file is at fault, reading it again says which.
        for file in (file for files in request.files.values() for file in files):
            for _ in read_batches(str(file)):
                pass
        raise
    statistics = {split: tfdv.load_stats_binary(str(target)) for split, target in targets.items()}
    examples = sum(current.datasets[0].num_examples for current in statistics.values())
    _log.info("validate  statistics of %s examples in %s", f"{examples:,}", duration(time.monotonic() - started))
    return statistics


def _check_counts(request: TfdvRequest, statistics: dict[str, Statistics]) -> None:
    for split, expected in request.counts.items():
        counted = statistics[split].datasets[0].num_examples
        if counted != expected:
            raise DataError(
                f"the {split} split holds {counted:,} examples, examples.json says {expected:,}. "
                "Run `sat_xception convert` again"
            )


def read_batches(file: str) -> Iterator[Any]:
    """Yield the examples of a TFRecord file as Arrow record batches, without what the statistics leave out.

    Args:
        file: Path of the file.

    Yields:
        Batches of at most 256 examples, a column a feature.

    Raises:
        DataError: The file can't be read to its end, holds no examples, or an example lacks its image.
    """
    options = tfxio.RecordBatchesOptions(batch_size=_BATCH, drop_final_batch=False, num_epochs=1, shuffle=False)
    batches = tfxio.TFExampleRecord(file, telemetry_descriptors=["sat_xception"]).RecordBatches(options)
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{file} can't be read as TFRecord of tf.train.Example: {reason}. Run convert again"
            ) from None
        if batch is None:
            return
        for name in _LEFT_OUT:
            if name not in batch.schema.names or batch.column(batch.schema.names.index(name)).null_count:
                raise DataError(f"{file} has examples without {name}. Run convert again")
        kept = [name for name in batch.schema.names if name not in _LEFT_OUT]
        yield pyarrow.RecordBatch.from_arrays([batch.column(batch.schema.names.index(name)) for name in kept], kept)


def _anomalies(split: str, found: Anomalies) -> Iterator[Anomaly]:
    if found.data_missing:
        description = f"{split} has no examples"
        yield Anomaly(split=split, feature="examples", kind="EMPTY_SPLIT", description=description, severity="ERROR")
    named = [(".".join(info.path.step) or name, info) for name, info in sorted(found.anomaly_info.items())]
    if found.HasField("dataset_anomaly_info"):
        named.append(("examples", found.dataset_anomaly_info))
    for feature, info in named:
        for reason in info.reason:
            yield Anomaly(
                split=split,
                feature=feature,
                kind=anomalies_pb2.AnomalyInfo.Type.Name(reason.type),
                description=reason.description.replace("training and serving", f"{split} and train"),
                severity=anomalies_pb2.AnomalyInfo.Severity.Name(info.severity),
            )


def _distances(split: str, found: Anomalies) -> Iterator[SkewDistance]:
    for info in found.drift_skew_info:
        for measurement in info.skew_measurements:
            yield SkewDistance(
                split=split,
                feature=".".join(info.path.step),
                measure=type(measurement).Type.Name(measurement.type),
                value=measurement.value,
                limit=measurement.threshold,
            )


def _split_statistics(statistics: Statistics) -> SplitStatistics:
    data = statistics.datasets[0]
    features = sorted(
        (_feature_statistics(feature, data.num_examples) for feature in data.features), key=lambda item: item.name
    )
    return SplitStatistics(examples=data.num_examples, features=tuple(features))


def _feature_statistics(feature: Any, examples: int) -> FeatureStatistics:  # noqa: ANN401 - statistics_pb2.FeatureNameStatistics
    kind = feature.WhichOneof("stats")
    present = getattr(feature, kind).common_stats.num_non_missing
    facts: dict[str, Any] = {}
    if kind == "num_stats":
        numbers = feature.num_stats
        facts = {"minimum": _finite(numbers.min), "mean": _finite(numbers.mean), "maximum": _finite(numbers.max)}
        for histogram in numbers.histograms:
            if histogram.type == histogram.STANDARD:
                rows = ((bucket.low_value, bucket.high_value, bucket.sample_count) for bucket in histogram.buckets)
                facts["histogram"] = tuple(row for row in rows if all(map(math.isfinite, row)))
    elif kind == "string_stats":
        values = feature.string_stats.top_values[:_SHOWN_VALUES]
        facts = {
            "unique": feature.string_stats.unique,
            "top_values": tuple((item.value, item.frequency) for item in values),
        }
    return FeatureStatistics(
        name=".".join(feature.path.step),
        type=type(feature).Type.Name(feature.type),
        present=present,
        missing=examples - present,
        **facts,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
