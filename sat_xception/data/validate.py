"""Hold the examples to a schema before anything is trained on them, and compare the splits with each other."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sat_xception.data.examples_index import check_shards, read_index
from sat_xception.data.statistics_report import validation_page
from sat_xception.data.tfdv_findings import Anomaly, TfdvRequest, count_anomalies
from sat_xception.data.tfdv_runner import run_tfdv
from sat_xception.errors import ConfigError, DataError
from sat_xception.log import duration
from sat_xception.steps import ValidateConfig
from sat_xception.storage import atomic_folder, write_json

__all__ = ["ValidationResult", "accept_anomalies", "validate"]

# Training and selection need both; `test` may be absent.
_NEEDED_SPLITS = ("train", "valid")
_LISTED = 10


@dataclass(frozen=True)
class ValidationResult:
    """What validation found, when nothing of it stops the run.

    Attributes:
        folder: Statistics, schema, anomalies and the report.
        examples: Number of examples checked.
        features: Number of features in the statistics.
        anomalies: All of them, each accepted.
        seconds: How long it took.
    """

    folder: Path
    examples: int
    features: int
    anomalies: tuple[Anomaly, ...]
    seconds: float

    def summary(self) -> str:
        """Return the counts and where the report is."""
        found = count_anomalies(len(self.anomalies)) + (", all accepted" if self.anomalies else "")
        counts = f"{self.examples:,} examples, {self.features} features"
        return f"validate  {counts} | {found} | {duration(self.seconds)}\nwrote     {self.folder / 'report.html'}"


def validate(config: ValidateConfig) -> ValidationResult:
    """Check the files, compute statistics, hold every split to the schema and compare valid and test with train.

    Writes to `config.out`: `statistics-<split>.pb`, `schema.pbtxt` and `anomalies-<split>.pbtxt` (TFDV's own forms),
    `anomalies.json` and `report.html`. They are written as well when anomalies stop the run.

    Raises:
        ConfigError: TFDV isn't installed, the schema can't be read, or an `accept` pattern hasn't three parts.
        DataError: The examples are damaged, or have anomalies that aren't accepted.
    """
    started = time.monotonic()
    patterns = [_parse_pattern(text) for text in config.accept]
    if config.schema_file is not None and not config.schema_file.is_file():
        raise ConfigError(f"--schema-file {config.schema_file} is no file (seen from {Path.cwd()})")
    index = read_index(config.examples)
    files = {split: () for split in _NEEDED_SPLITS} | check_shards(config.examples, index)
    with atomic_folder(config.out, record="anomalies.json") as work:
        request = TfdvRequest(
            files=files,
            counts={split: facts.count for split, facts in index.splits.items()},
            classes=index.classes,
            schema_file=config.schema_file,
            max_skew=config.max_skew,
            out=work.absolute(),
        )
        findings = run_tfdv(request)
        anomalies = accept_anomalies(findings.anomalies, patterns)
        write_json(work / "anomalies.json", [anomaly.model_dump() for anomaly in anomalies])
        (work / "report.html").write_text(validation_page(index, findings, anomalies), encoding="utf-8")
    stopping = [anomaly for anomaly in anomalies if not anomaly.accepted]
    if stopping:
        raise DataError(_explain(stopping, config.out))
    return ValidationResult(
        folder=config.out,
        examples=sum(statistics.examples for statistics in findings.statistics.values()),
        features=len({feature.name for statistics in findings.statistics.values() for feature in statistics.features}),
        anomalies=anomalies,
        seconds=time.monotonic() - started,
    )


def _parse_pattern(text: str) -> tuple[str, str, str]:
    parts = text.split(":")
    # A feature's name may hold a colon; a split's and a kind's can't.
    if len(parts) < 3 or not all(parts):
        raise ConfigError(f"--accept {text!r} must have the form <split>:<feature>:<kind>, as '*:image/bytes:*'")
    return parts[0], ":".join(parts[1:-1]), parts[-1]


def accept_anomalies(anomalies: Iterable[Anomaly], patterns: Iterable[tuple[str, str, str]]) -> tuple[Anomaly, ...]:
    """Return the anomalies, those accepted that a pattern matches in all three parts.

    Args:
        anomalies: As found.
        patterns: Split, feature and kind, each with the wildcards of `fnmatch`.
    """
    known = list(patterns)

    def accepted(anomaly: Anomaly) -> bool:
        parts = (anomaly.split, anomaly.feature, anomaly.kind)
        return any(all(map(fnmatch.fnmatchcase, parts, pattern)) for pattern in known)

    return tuple(anomaly.model_copy(update={"accepted": accepted(anomaly)}) for anomaly in anomalies)


def _explain(stopping: list[Anomaly], out: Path) -> str:
    lines = [f"{count_anomalies(len(stopping))} in the examples:"]
    for anomaly in stopping[:_LISTED]:
        lines.append(f"  {anomaly.split}: {anomaly.feature}: {anomaly.description} [{anomaly.kind}]")
    if len(stopping) > _LISTED:
        lines.append(f"  and {len(stopping) - _LISTED} more")
    first = stopping[0]
    pattern = f"{first.split}:{first.feature}:{first.kind}"
    lines.append(f"See {out / 'report.html'}. Correct the data; or accept what is meant, as with --accept '{pattern}'")
    return "\n".join(lines)
