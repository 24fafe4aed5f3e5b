"""Compute statistics of examples with TensorFlow Data Validation, per split and per slice."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sat_xception.errors import ConfigError, DataError
from sat_xception.log import duration, get_logger
from sat_xception.validation.findings import FeatureStatistics, SliceStatistics, SplitStatistics, TfdvRequest
from sat_xception.validation.tfdv_import import (
    FnApiRunner,
    Schema,
    SlicedStatistics,
    Statistics,
    beam,
    pyarrow,
    tfdv,
    tfxio,
)

__all__ = ["compute_statistics", "load_statistics", "parts", "read_batches", "slice_statistics", "split_statistics"]

_log = get_logger(__name__)
# Left out of the statistics, since their distributions mean nothing: unique per example, or the tile's coordinates.
# Every example has the first two; the coordinates are given completely or not at all.
_ALWAYS = ("image/encoded", "tile/id")
_PLACES = (("tile/x", "tile/y", "tile/z"), ("tile/lon", "tile/lat"))
_LEFT_OUT = {*_ALWAYS, *_PLACES[0], *_PLACES[1]}
_SLICE = "slice/"
# Features with statistics per slice.
_IN_SLICES = ("image/class/text", "image/mean_luma")
# TFDV's name for the statistics of all examples, next to those of slices.
_ALL = "All Examples"
# Examples decoded at a time. 1,000 save a second on 32,000 examples and hold four times as many images in memory.
_BATCH = 256
_SHOWN_VALUES = 20


def compute_statistics(request: TfdvRequest, schema: Schema | None) -> dict[str, Statistics]:
    """Compute statistics of all splits in one Beam pipeline that reads every file once, in constant memory.

    Splits are slices of one data set to TFDV: setting up its transforms takes Beam about three seconds, however few the
    examples.

    Writes `statistics-<split>.pb` to `request.out`: one data set of all examples, and one per slice.

    Returns:
        The statistics by split.

    Raises:
        DataError: A file can't be read, or the number of examples differs from `request.counts`.
    """
    started = time.monotonic()
    options = tfdv.StatsOptions(schema=schema)
    files = [(split, str(file)) for split, files in request.files.items() for file in files]
    target = request.out / "statistics.pb"
    try:
        with beam.Pipeline(
            runner=FnApiRunner(), options=beam.options.pipeline_options.PipelineOptions(["--no_pipeline_type_check"])
        ) as pipeline:
            _ = (
                pipeline
                | beam.Create(files, reshuffle=False)
                | beam.FlatMapTuple(_slices_of_file)
                | SlicedStatistics(options, is_slicing_enabled=True)
                | tfdv.WriteStatisticsToBinaryFile(str(target))
            )
    except Exception:
        # Beam keeps only the text of an error. Read the files again to find the damaged one.
        for _, file in files:
            for _ in read_batches(file):
                pass
        raise
    computed = tfdv.load_stats_binary(str(target))
    target.unlink()
    statistics = {split: _take_split(computed, split) for split in request.files}
    for split, taken in statistics.items():
        (request.out / f"statistics-{split}.pb").write_bytes(taken.SerializeToString(deterministic=True))
    examples = sum(parts(current)[""].datasets[0].num_examples for current in statistics.values())
    _log.info("validate  statistics of %s examples in %s", f"{examples:,}", duration(time.monotonic() - started))
    _check_counts(request, statistics)
    return statistics


def _slices_of_file(split: str, file: str) -> Iterator[tuple[str, Any]]:
    """Yield (`<split>/<slice>`, examples) for every slice of a file, and for all of its examples."""
    for batch in read_batches(file):
        yield f"{split}/{_ALL}", batch
        for name, examples in slice_batch(batch):
            yield f"{split}/{name}", examples


def _take_split(computed: Statistics, split: str) -> Statistics:
    """Return the statistics of one split, those of all its examples first, then those of its slices by name.

    For a split without examples there is one data set without a name, as TFDV makes it.
    """
    taken = type(computed)()
    for part in computed.datasets:
        if part.name.startswith(f"{split}/"):
            taken.datasets.add().CopyFrom(part)
            taken.datasets[-1].name = part.name.removeprefix(f"{split}/")
    taken.datasets.sort(key=lambda part: (part.name != _ALL, part.name))
    if not taken.datasets:
        taken.datasets.add()
    return taken


def load_statistics(path: Path) -> Statistics:
    """Return the statistics of an earlier run.

    Raises:
        ConfigError: The file can't be read as statistics.
    """
    try:
        loaded = tfdv.load_stats_binary(str(path))
        if not parts(loaded)[""].datasets[0].num_examples:
            raise ValueError("there are no examples in it")
    except Exception as error:
        # A damaged file raises protobuf's DecodeError, an OSError, or one of TensorFlow's errors.
        raise ConfigError(
            f"{path} can't be read as statistics of TFDV: {type(error).__name__} {error}. Remove it from the "
            "--baseline folder, and the next run that is accepted writes it again"
        ) from None
    return loaded


def parts(statistics: Statistics) -> dict[str, Statistics]:
    """Return the statistics of each slice by `<column>=<value>`, and those of all examples by ""."""
    taken: dict[str, Statistics] = {}
    for part in statistics.datasets:
        one = type(statistics)()
        one.datasets.add().CopyFrom(part)
        taken["" if part.name in ("", _ALL) else part.name] = one
    if "" not in taken:
        # For an empty split, TFDV makes no statistics at all.
        taken[""] = type(statistics)()
        taken[""].datasets.add()
    return taken


def _check_counts(request: TfdvRequest, statistics: dict[str, Statistics]) -> None:
    for split, expected in request.counts.items():
        counted = parts(statistics[split])[""].datasets[0].num_examples
        if counted != expected:
            raise DataError(
                f"the {split} split holds {counted:,} examples, but {expected:,} according to examples.json. "
                "Run `sat_xception convert` again"
            )


def read_batches(file: str) -> Iterator[Any]:
    """Yield the examples of a TFRecord file as Arrow record batches, without the features left out of the statistics.

    Args:
        file: Path of the file.

    Yields:
        Batches of at most 256 examples, with one column per feature.

    Raises:
        DataError: The file can't be read to its end, holds no examples, or an example lacks its image, its id or some
            of its coordinates.
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
        _check_presence(file, batch)
        kept = [name for name in batch.schema.names if name not in _LEFT_OUT]
        yield pyarrow.RecordBatch.from_arrays([_column(batch, name) for name in kept], kept)


def _column(batch: Any, name: str) -> Any:  # noqa: ANN401 - pyarrow.RecordBatch, pyarrow.Array
    return batch.column(batch.schema.names.index(name))


def _check_presence(file: str, batch: Any) -> None:  # noqa: ANN401 - pyarrow.RecordBatch
    """Check the presence of features that aren't in the statistics, and so not in the schema."""
    names = batch.schema.names
    for name in _ALWAYS:
        if name not in names or _column(batch, name).null_count:
            raise DataError(f"{file} has examples without {name}. Run convert again")
    for place in _PLACES:
        absent = {name: _column(batch, name).is_null().to_pylist() if name in names else None for name in place}
        present = [name for name, nulls in absent.items() if nulls is not None and not all(nulls)]
        for name in place:
            if present and absent[name] != absent[present[0]]:
                raise DataError(
                    f"{file} has examples with {present[0]} and without {name}, or the reverse. Run convert again"
                )


def slice_batch(batch: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - pyarrow.RecordBatch
    """Yield (`<column>=<value>`, examples) for each value of each slice column in a batch.

    TFDV's own slicer joins column and value with `_`, which is ambiguous if either holds one, and keeps all features.
    """
    kept = [name for name in _IN_SLICES if name in batch.schema.names]
    compared = pyarrow.RecordBatch.from_arrays([_column(batch, name) for name in kept], kept)
    for name in batch.schema.names:
        rows: dict[str, list[int]] = {}
        if name.startswith(_SLICE):
            for row, values in enumerate(_column(batch, name).to_pylist()):
                for value in dict.fromkeys(values or ()):
                    if isinstance(value, bytes):
                        rows.setdefault(value.decode("utf-8", "replace"), []).append(row)
        for value, indices in rows.items():
            yield f"{name.removeprefix(_SLICE)}={value}", compared.take(pyarrow.array(indices))


def slice_statistics(data: str, statistics: Statistics) -> Iterator[SliceStatistics]:
    """Yield the number of examples, the classes and the brightness of each slice.

    Args:
        data: Split of the statistics, or "baseline".
        statistics: Statistics with slices.
    """
    for name, part in parts(statistics).items():
        if name:
            features = {feature.path.step[0]: feature for feature in part.datasets[0].features}
            luma, text = features.get("image/mean_luma"), features.get("image/class/text")
            buckets = text.string_stats.rank_histogram.buckets if text is not None else ()
            yield SliceStatistics(
                slice=name,
                data=data,
                examples=part.datasets[0].num_examples,
                by_class={bucket.label: round(bucket.sample_count) for bucket in buckets},
                mean_luma=None if luma is None else _finite(luma.num_stats.mean),
            )


def split_statistics(statistics: Statistics) -> SplitStatistics:
    """Return the statistics of all examples of one data set in the form of the report."""
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
