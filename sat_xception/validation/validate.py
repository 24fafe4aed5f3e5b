"""Check the examples against a schema before training, and compare the splits with each other."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from sat_xception.errors import ConfigError, DataError
from sat_xception.examples.index import ExamplesIndex, check_shards
from sat_xception.log import duration, get_logger
from sat_xception.storage import atomic_folder, write_json
from sat_xception.validation.anomalies import accept_anomalies, explain, parse_pattern
from sat_xception.validation.baseline import Baseline, publish_baseline, read_baseline
from sat_xception.validation.findings import COMPARED_FEATURES, Anomaly, Findings, TfdvRequest, count_anomalies
from sat_xception.validation.report import validation_page
from sat_xception.validation.settings import ValidateConfig
from sat_xception.validation.tfdv_runner import run_tfdv

__all__ = ["ValidationResult", "validate"]

_log = get_logger(__name__)
# Training and selection need these splits; `test` may be absent.
_NEEDED_SPLITS = ("train", "valid")
_LISTED = 3


@dataclass(frozen=True)
class ValidationResult:
    """Result of a validation that passed.

    Attributes:
        folder: Folder with statistics, schema, anomalies and the report.
        examples: Number of examples checked.
        features: Number of features in the statistics.
        anomalies: All anomalies, each accepted.
        seconds: Duration.
    """

    folder: Path
    examples: int
    features: int
    anomalies: tuple[Anomaly, ...]
    seconds: float

    def summary(self) -> str:
        """Return the counts and the path of the report."""
        found = count_anomalies(len(self.anomalies)) + (", all accepted" if self.anomalies else "")
        counts = f"{self.examples:,} examples, {self.features} features"
        return f"validate  {counts} | {found} | {duration(self.seconds)}\nwrote     {self.folder / 'report.html'}"


def validate(config: ValidateConfig) -> ValidationResult:
    """Check examples with TFDV: every split against the schema, the splits against train, train against the baseline.

    Writes to `config.out`: `statistics-<split>.pb`, `schema.pbtxt` and `anomalies-<split>.pbtxt` (TFDV's own formats),
    `anomalies.json` and `report.html`, also if anomalies stop the run. A run that passes becomes the baseline.

    Raises:
        ConfigError: TFDV isn't installed, the schema can't be read, or an `accept` pattern hasn't three parts.
        DataError: The examples are damaged, or have anomalies that aren't accepted.

    Example:
        result = validate(ValidateConfig(examples="examples", out="validation"))
        print(result.summary())
    """
    started = time.monotonic()
    patterns = [parse_pattern(text) for text in config.accept]
    if config.schema_file is not None and not config.schema_file.is_file():
        raise ConfigError(f"--schema-file {config.schema_file} is no file (seen from {Path.cwd()})")
    index = ExamplesIndex.read(config.examples)
    baseline = Baseline() if config.baseline is None else read_baseline(config.baseline)
    schema_file = config.schema_file or baseline.schema_file
    _say_unused_limits(config, schema_file)
    files = {split: () for split in _NEEDED_SPLITS} | check_shards(config.examples, index)
    with atomic_folder(config.out, record="anomalies.json") as work:
        request = TfdvRequest(
            files=files,
            counts={split: facts.count for split, facts in index.splits.items()},
            classes=index.classes,
            schema_file=schema_file,
            as_it_is=config.schema_file is not None,
            baseline=baseline.statistics,
            max_skew=config.max_skew,
            max_drift=config.max_drift,
            out=work.absolute(),
        )
        findings = run_tfdv(request)
        _say_uncompared(findings, with_baseline=baseline.statistics is not None)
        anomalies = accept_anomalies(findings.anomalies, patterns)
        write_json(work / "anomalies.json", [anomaly.model_dump() for anomaly in anomalies])
        (work / "report.html").write_text(validation_page(index, findings, anomalies), encoding="utf-8")
        stopping = [anomaly for anomaly in anomalies if not anomaly.accepted]
        if config.baseline is not None and not stopping:
            facts = {"dataset_digest": index.dataset_digest, "source": index.source, "tfdv_version": findings.version}
            publish_baseline(config.baseline, work, facts | {"examples": index.count("train")})
    if stopping:
        raise DataError(explain(stopping, config.out))
    return ValidationResult(
        folder=config.out,
        examples=sum(statistics.examples for statistics in findings.statistics.values()),
        features=len({feature.name for statistics in findings.statistics.values() for feature in statistics.features}),
        anomalies=anomalies,
        seconds=time.monotonic() - started,
    )


def _say_uncompared(findings: Findings, with_baseline: bool) -> None:
    """Log the features and slices that aren't compared: no usable limit, on one side only, or too few examples."""
    by_data: dict[str, set[str]] = {}
    for row in findings.slices:
        by_data.setdefault(row.data, set()).add(row.slice)
    pairs = [(split, "train") for split in findings.statistics if split != "train"]
    pairs += [("train", "baseline")] if with_baseline else []
    for split, against in pairs:
        found = [row for row in findings.distances if (row.split, row.against) == (split, against)]
        present = {feature.name for feature in findings.statistics[split].features if feature.present}
        features = sorted(present & COMPARED_FEATURES - {row.feature for row in found if not row.slice})
        both, other = by_data.get(split, set()), by_data.get(against, set())
        # No distance is above 1.
        small = {row.slice for row in found if row.slice and row.limit >= 1}
        for what, names in (
            ("features, which a tenth of the examples share a value of or the schema sets no limit for", features),
            (f"slices, which only one of {split} and {against} has", sorted(both ^ other)),
            ("slices, which have too few examples to tell a difference from chance", sorted(small)),
        ):
            if names:
                listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
                _log.info("validate  not compared, %s with %s: %d %s: %s", split, against, len(names), what, listed)


def _say_unused_limits(config: ValidateConfig, schema_file: Path | None) -> None:
    """Log the limits that were set but are overridden by a schema; limits at their default aren't logged."""
    asked = {"--max-skew": "max_skew", "--max-drift": "max_drift"}
    for flag, name in asked.items():
        limit = getattr(config, name)
        if schema_file is not None and limit != ValidateConfig.model_fields[name].default:
            where = config.schema_file or f"{config.baseline}/{schema_file.name}"
            _log.warning(
                "validate  %s %g has no effect: the limits are those of %s; change them there", flag, limit, where
            )
