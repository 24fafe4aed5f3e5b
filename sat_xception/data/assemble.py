"""Gather labelled tiles into a dataset.

Each file found ends as a row of the manifest: ok, duplicate or failed, with the reason. Usable tiles are stored in an
order that depends only on their content and the seed, so whatever reads the dataset in sequence sees the classes mixed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sat_xception.data.dataset_report import SampleTiles, dataset_page
from sat_xception.data.dedupe import find_duplicates
from sat_xception.data.folders import Candidate, Content, check_classes, find_candidates, find_split_candidates
from sat_xception.data.images import encode_for_tensorflow, probe_image
from sat_xception.data.manifest import ManifestRow, TileWriter, content_digest, count_rows, write_manifest
from sat_xception.data.split import SPLITS, split_by_hash, stable_fraction
from sat_xception.errors import ConfigError, DataError
from sat_xception.log import get_logger, track
from sat_xception.steps import AssembleConfig
from sat_xception.storage import atomic_folder, file_digest, write_json

__all__ = ["AssembleResult", "assemble", "choose_positive_label"]

_log = get_logger(__name__)
_SAMPLE = "sample"
_DEFAULT_POSITIVE = "school"
_NEGATIONS = ("not-", "not_", "no-", "no_", "non-", "non_")


@dataclass(frozen=True)
class AssembleResult:
    """What assemble made.

    Attributes:
        folder: The dataset.
        counts: Rows by status, usable rows by split and class; see `count_rows`.
        digest: Digest of the content.
    """

    folder: Path
    counts: dict[str, dict[str, int]]
    digest: str

    def summary(self) -> str:
        """Return the counts by status and by split, and where the manifest is."""
        by_status = self.counts["by_status"]
        statuses = "  ".join(f"{number:,} {status}" for status, number in by_status.items())
        lines = [f"assemble  {self.counts['considered']:,} tiles | {statuses}"]
        for split, by_class in self.counts["by_split"].items():
            classes = "  ".join(f"{label} {number:,}" for label, number in by_class.items())  # type: ignore[attr-defined]
            lines.append(f"          {split:<6} {classes}")
        lines.append(f"wrote     {self.folder}/manifest.parquet   dataset {self.digest[:12]}")
        return "\n".join(lines)


def assemble(config: AssembleConfig) -> AssembleResult:
    """Write the dataset: tile shards, `manifest.parquet`, `dataset.json`, and `report.html` for people.

    Raises:
        DataError: No usable data, fewer than two classes, or more unreadable tiles than the limit.
        ConfigError: The positive label is no class, or `out` can't be written.
    """
    if config.data == _SAMPLE:
        from sat_xception.sample import SAMPLE_NAME, write_sample

        with tempfile.TemporaryDirectory(prefix="sat-xception-sample-") as folder:
            write_sample(Path(folder))
            return _assemble(config, find_candidates(Path(folder)), name=SAMPLE_NAME)
    if config.labels:
        return _assemble_labels(config, config.labels.stem)
    if config.data:
        return _assemble(config, find_candidates(Path(config.data)), name=Path(config.data).resolve().name)
    folders = {"train": config.train, "valid": config.valid, "test": config.test}
    candidates = find_split_candidates({split: path for split, path in folders.items() if path is not None})
    return _assemble(config, candidates, name=str(config.train))


def _assemble_labels(config: AssembleConfig, name: str) -> AssembleResult:
    from sat_xception.data.gather import open_tiles
    from sat_xception.data.plan import plan_tiles

    plan = plan_tiles(config)
    with open_tiles(config, plan) as imagery:
        return _assemble(config, plan.candidates, name, imagery.read, imagery.attribution)


def choose_positive_label(classes: list[str], asked: str) -> str:
    """Return the class that is looked for, or "" when there is no telling.

    Args:
        classes: All classes.
        asked: What the configuration says; "" leaves the choice to the names: "school", or X where the other class is
            "not-X".

    Raises:
        ConfigError: `asked` is no class.
    """
    if asked:
        if asked not in classes:
            raise ConfigError(f"--positive-label {asked!r} is not a class; the classes are {', '.join(classes)}")
        return asked
    if _DEFAULT_POSITIVE in classes:
        return _DEFAULT_POSITIVE
    for label in classes:
        if len(classes) == 2 and any(f"{negation}{label}" in classes for negation in _NEGATIONS):
            return label
    return ""


def _read_file(candidate: Candidate) -> Content:
    try:
        return Content((candidate.path or Path()).read_bytes())
    except OSError as error:
        return Content(b"", "failed", f"can't be read: {error.strerror}")


def _assemble(
    config: AssembleConfig,
    candidates: list[Candidate],
    name: str,
    read: Callable[[Candidate], Content] = _read_file,
    attribution: str = "",
) -> AssembleResult:
    classes = check_classes(candidates)
    positive = choose_positive_label(classes, config.positive_label)
    with atomic_folder(config.out, record="dataset.json") as work:
        rows = list(track(_probe_all(candidates, read, config), "assemble", len(candidates)))
        _check_failures(rows, config.max_failed)
        rows = _assign_splits(_leave_out_duplicates(rows), config)
        _check_splits(rows, classes)
        samples = SampleTiles(classes)
        _write_tiles(work, rows, {candidate.id: candidate for candidate in candidates}, read, config, samples)
        write_manifest(work / "manifest.parquet", rows, config.slice_columns)
        counts, digest = count_rows(rows), content_digest(rows)
        description = {
            "name": name,
            "synthetic": config.data == _SAMPLE,
            "classes": classes,
            "positive_label": positive,
            "attribution": attribution,
            "counts": counts,
            "digest": digest,
            "shards": {path.name: file_digest(path) for path in sorted(work.glob("tiles-*.parquet"))},
            "config": config.resolved(),
        }
        write_json(work / "dataset.json", description)
        (work / "report.html").write_text(dataset_page(description, rows, samples), encoding="utf-8")
    return AssembleResult(config.out, counts, digest)


def _probe_all(
    candidates: list[Candidate], read: Callable[[Candidate], Content], config: AssembleConfig
) -> Iterator[ManifestRow]:
    # Pillow lets go of the interpreter lock while it decodes: threads use all cores. They share the warnings' filters.
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield from pool.map(lambda candidate: _probe(candidate, read, config), candidates)


def _probe(candidate: Candidate, read: Callable[[Candidate], Content], config: AssembleConfig) -> ManifestRow:
    # The sample is drawn into a temporary folder, whose name says nothing and is never the same.
    source = "" if config.data == _SAMPLE else candidate.source
    place = vars(candidate.place) if candidate.place else {}
    row = ManifestRow(
        candidate.id,
        candidate.label,
        candidate.split,
        status="failed",
        source=source,
        slices=candidate.slices,
        **place,
    )
    if candidate.conflict:
        return dataclasses.replace(row, status="duplicate", reason=candidate.conflict)
    content = read(candidate)
    if content.status == "failed":
        return dataclasses.replace(row, reason=content.reason)
    data = content.data
    row = dataclasses.replace(row, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    try:
        facts = probe_image(data, config.max_pixels)
    except DataError as error:
        return dataclasses.replace(row, reason=str(error))
    return dataclasses.replace(
        row,
        status=content.status,
        reason=content.reason,
        source_format=facts.source_format,
        format=facts.format,
        width=facts.width,
        height=facts.height,
        bytes=len(facts.data),
        mean_luma=facts.mean_luma,
        std_luma=facts.std_luma,
    )


def _check_failures(rows: list[ManifestRow], limit: float) -> None:
    failed = [row for row in rows if row.status == "failed"]
    for row in failed[:5]:
        _log.warning("left out  %s: %s", row.id, row.reason)
    if len(failed) > limit * len(rows):
        reason, times = Counter(row.reason for row in failed).most_common(1)[0]
        raise DataError(
            f"{len(failed):,} of {len(rows):,} tiles can't be read ({len(failed) / len(rows):.1%}, limit {limit:.1%}); "
            f"most common: {reason} x {times:,}; the first is {failed[0].source}. "
            "Remove or repair them, or raise --max-failed"
        )


def _leave_out_duplicates(rows: list[ManifestRow]) -> list[ManifestRow]:
    reasons = find_duplicates(row for row in rows if row.status == "ok")
    if reasons:
        _log.warning("left out  %s duplicate tiles; the manifest says of which", f"{len(reasons):,}")
    return [
        dataclasses.replace(row, status="duplicate", reason=reasons[row.id]) if row.id in reasons else row
        for row in rows
    ]


def _assign_splits(rows: list[ManifestRow], config: AssembleConfig) -> list[ManifestRow]:
    undecided = {row.sha256: row.label for row in rows if row.status == "ok" and not row.split}
    if not undecided:
        return rows
    splits = split_by_hash(undecided, config.fractions, config.seed)
    return [
        dataclasses.replace(row, split=splits[row.sha256]) if row.status == "ok" and not row.split else row
        for row in rows
    ]


def _check_splits(rows: list[ManifestRow], classes: list[str]) -> None:
    counts = count_rows(rows)["by_split"]
    for split in SPLITS[:2]:
        for label in classes:
            if not counts.get(split, {}).get(label):
                raise DataError(
                    f"no usable tile of class {label!r} is left in the {split} split; "
                    "add tiles, change --fractions, or look for duplicates in the folders"
                )


def _write_tiles(
    folder: Path,
    rows: list[ManifestRow],
    candidates: dict[str, Candidate],
    read: Callable[[Candidate], Content],
    config: AssembleConfig,
    samples: SampleTiles,
) -> None:
    usable = [row for row in rows if row.status == "ok"]
    usable.sort(key=lambda row: stable_fraction(f"order:{row.sha256}", config.seed))
    located = any(row.x is not None for row in usable)
    with TileWriter(folder, located=located, slices=config.slice_columns) as writer:
        for row in usable:
            data = read(candidates[row.id]).data
            if hashlib.sha256(data).hexdigest() != row.sha256:
                raise DataError(
                    f"{row.source or row.id} changed while the dataset was being assembled; run the command again"
                )
            stored = data if row.format == row.source_format else encode_for_tensorflow(data, config.max_pixels)[0]
            writer.add(row, stored)
            samples.offer(row, stored)
