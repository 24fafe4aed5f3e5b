"""Make validated TFRecord files from labels in one command that resumes where it was interrupted.

`build.json` in the folder records digests of the settings and inputs of each finished part. A part is repeated if one
of them has changed. Class folders and baselines have no digest, so parts that read them are always repeated. A local
imagery file is identified by its size and modification time; other imagery isn't checked for changes: remove
`build.json` to fetch it again.
"""

from __future__ import annotations

import glob
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sat_xception import __version__
from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.record import DatasetCounts, DatasetRecord
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import ConfigError
from sat_xception.examples.convert import convert
from sat_xception.examples.index import ExamplesIndex
from sat_xception.examples.settings import ConvertConfig
from sat_xception.imagery.open import file_state
from sat_xception.log import duration, get_logger
from sat_xception.settings.config import StepConfig, load_config
from sat_xception.storage import file_digest, local_file, read_json_file, write_json_file
from sat_xception.storage.files import json_text
from sat_xception.validation.settings import ValidateConfig
from sat_xception.validation.validate import validate
from sat_xception.workflows.settings import BuildConfig

__all__ = ["BuildResult", "build_dataset"]

_log = get_logger(__name__)
_RECORD = "build.json"
_STEPS: dict[str, tuple[type[StepConfig], Callable[[Any], Any]]] = {
    "assemble": (AssembleConfig, assemble),
    "convert": (ConvertConfig, convert),
    "validate": (ValidateConfig, validate),
}


@dataclass(frozen=True)
class BuildResult:
    """Result of a build.

    Attributes:
        folder: Folder with `dataset/`, `examples/` and `validation/`.
        counts: The dataset's rows by status, and usable ones by split and class.
        examples: Number of examples by split.
        anomalies: Number of anomalies, each accepted.
        kept: Parts that were kept, because settings and inputs are unchanged.
        seconds: Duration.
    """

    folder: Path
    counts: DatasetCounts
    examples: dict[str, int]
    anomalies: int
    kept: tuple[str, ...]
    seconds: float

    def summary(self) -> str:
        """Return the counts, the parts that were kept, and the paths of the pages."""
        by_status = "  ".join(f"{number:,} {status}" for status, number in self.counts.by_status.items())
        by_split = "  ".join(f"{split} {number:,}" for split, number in self.examples.items())
        lines = [
            f"build     {self.counts.considered:,} tiles: {by_status} | {by_split} | "
            f"{self.anomalies} anomalies{', all accepted' if self.anomalies else ''} | {duration(self.seconds)}"
        ]
        if self.kept:
            lines.append(f"kept      {', '.join(self.kept)}: settings and inputs are unchanged")
        lines.append(f"wrote     {self.folder / 'examples'}")
        lines.append(
            f"pages     {self.folder / 'dataset' / 'report.html'}   {self.folder / 'validation' / 'report.html'}"
        )
        return "\n".join(lines)


def build_dataset(config: BuildConfig) -> BuildResult:
    """Assemble, convert and validate into `OUT/dataset`, `OUT/examples` and `OUT/validation`.

    Raises:
        SatXceptionError: A part failed. Those before it are kept, and the same command resumes there.

    Example:
        result = build_dataset(BuildConfig(data="tiles", out="data"))
        print(result.examples)
    """
    started = time.monotonic()
    parts = _Parts(config.out)
    dataset, examples, validation = (config.out / name for name in ("dataset", "examples", "validation"))
    settings = {name: getattr(config, name) for name in AssembleConfig.model_fields} | {"out": dataset}
    layers = (config.labels, config.negatives_within, config.negatives_lookalikes, config.negatives_review)
    dataset_record, examples_index = dataset / DatasetRecord.file_name, examples / ExamplesIndex.file_name
    parts.make("assemble", settings, layers if config.labels else None, dataset_record)
    settings = {"dataset": dataset, "shard_mb": config.shard_mb, "out": examples}
    parts.make("convert", settings, (dataset_record,), examples_index)
    settings = {name: getattr(config, name) for name in ("schema_file", "accept", "max_skew", "max_drift", "baseline")}
    settings |= {"examples": examples, "out": validation}
    read = None if config.baseline else (examples_index, config.schema_file)
    parts.make("validate", settings, read, validation / "anomalies.json")
    return BuildResult(
        folder=config.out,
        counts=DatasetRecord.read(local_file(dataset_record).parent).counts,
        examples={
            name: split.count for name, split in ExamplesIndex.read(local_file(examples_index).parent).splits.items()
        },
        anomalies=int(parts.record["anomalies"]),
        kept=tuple(parts.kept),
        seconds=time.monotonic() - started,
    )


class _Parts:
    """The parts of a folder, with the digests of the settings and inputs of finished ones."""

    def __init__(self, folder: Path) -> None:
        self._place = folder / _RECORD
        self.record: dict[str, Any] = read_json_file(self._place) or {}
        self.kept: list[str] = []

    def make(self, verb: str, settings: dict[str, Any], read: tuple[Path | None, ...] | None, made: Path) -> None:
        """Run a step, unless its result exists and is up to date.

        Args:
            verb: Name of the step.
            settings: Settings of the step.
            read: Files that it reads; None if its inputs have no digest, so that it always runs.
            made: File that its result must hold.
        """
        key = _key(settings, read or ())
        done = self.record.get(verb, {})
        if read is not None and done and done == {"key": key, "made": _digest_of(made)}:
            _log.info("%-9s is up to date: settings and inputs are unchanged", verb)
            self.kept.append(verb)
            return
        config_class, function = _STEPS[verb]
        result = function(load_config(config_class, None, settings).localized())
        if verb == "validate":
            self.record["anomalies"] = len(result.anomalies)
        self.record[verb] = {"key": key, "made": _digest_of(made)}
        write_json_file(self._place, self.record)


def _key(settings: dict[str, Any], read: tuple[Path | None, ...]) -> str:
    """Return a digest of a part's settings and input files; it doesn't reveal keys in addresses."""
    given = {name: str(value) for name, value in settings.items() if name != "out"}
    files = [file_digest(local_file(file)) for path in read if path for file in _files_of(path)]
    files.append(file_state(str(settings.get("imagery") or "")))
    return hashlib.sha256(json_text([__version__, given, files]).encode()).hexdigest()


def _digest_of(made: Path) -> str:
    """Return the SHA-256 of a file that a part made, or "" if it is missing."""
    try:
        return file_digest(local_file(made))
    except (ConfigError, FileNotFoundError):
        return ""


def _files_of(path: Path) -> list[Path]:
    """Return a file, with the accompanying files of a Shapefile."""
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}.*")) if path.suffix == ".shp" else [path]
