"""Assemble labelled tiles into a dataset.

Every tile considered becomes a row of the manifest: ok, blank, duplicate or failed, with the reason. Usable tiles are
stored in an order that depends only on their split, their content and the seed, so that a sequential reader of a split
gets the classes mixed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sat_xception.dataset.block_split import split_blocks
from sat_xception.dataset.folders import TileCandidate, check_classes, find_candidates, find_split_candidates
from sat_xception.dataset.images import encode_for_tensorflow
from sat_xception.dataset.inspect import Read, probe_tiles, read_file
from sat_xception.dataset.leakage import (
    check_blocks,
    check_lookalikes,
    check_places,
    drop_copies,
    drop_near_duplicates,
)
from sat_xception.dataset.manifest import DatasetSummary, ManifestRow, TileWriter, write_manifest
from sat_xception.dataset.record import DatasetCounts, DatasetRecord
from sat_xception.dataset.report import DatasetPage
from sat_xception.dataset.settings import DEFAULT_POSITIVE_LABEL, AssembleConfig
from sat_xception.dataset.split import SPLITS, split_by_hash, split_of, stable_fraction
from sat_xception.dataset.staging import TileStaging
from sat_xception.errors import ConfigError, DataError
from sat_xception.imagery.encoded import is_plain
from sat_xception.log import get_logger
from sat_xception.storage import atomic_folder, file_digest, scratch_folder

__all__ = ["AssembleResult", "assemble", "choose_positive_label"]

_log = get_logger(__name__)
_SAMPLE = "sample"
# A class of this size has tiles in every split by chance alone, and is split page by page.
_LARGE_CLASS = 10_000
_NEGATIONS = ("not-", "not_", "no-", "no_", "non-", "non_")


@dataclass(frozen=True)
class AssembleResult:
    """Result of assemble.

    Attributes:
        folder: Folder of the dataset.
        counts: Number of tiles by status, split, class and slice.
        digest: Digest of the content.
    """

    folder: Path
    counts: DatasetCounts
    digest: str

    def summary(self) -> str:
        """Return the counts by status and by split, and the path of the manifest."""
        statuses = "  ".join(f"{number:,} {status}" for status, number in self.counts.by_status.items())
        lines = [f"assemble  {self.counts.considered:,} tiles | {statuses}"]
        for split, by_class in self.counts.by_split.items():
            classes = "  ".join(f"{label} {number:,}" for label, number in by_class.items())
            lines.append(f"          {split:<6} {classes}")
        lines.append(f"wrote     {self.folder}/manifest.parquet   dataset {self.digest[:12]}")
        return "\n".join(lines)


def assemble(config: AssembleConfig) -> AssembleResult:
    """Assemble a dataset: tile shards, `manifest.parquet`, `dataset.json` and `report.html`.

    Raises:
        DataError: No usable data, fewer than two classes, more unreadable tiles than the limit, or splits that leak.
        ConfigError: The positive label isn't a class, or `out` can't be written.

    Example:
        result = assemble(AssembleConfig(data="tiles", out="dataset"))
        print(result.summary())
    """
    # After reading a table, Arrow's own memory pool keeps ten times its size.
    pa.set_memory_pool(pa.system_memory_pool())
    if config.data == _SAMPLE:
        from sat_xception.sample.tiles import SAMPLE_NAME, write_sample

        with scratch_folder() as folder:
            write_sample(folder)
            # A temporary folder, whose name varies.
            drawn = (dataclasses.replace(tile, labelled_by="drawn") for tile in find_candidates(folder))
            return _assemble(config, drawn, name=SAMPLE_NAME)
    if config.labels:
        return _assemble_labels(config, config.labels.stem)
    if config.data:
        return _assemble(config, find_candidates(Path(config.data)), name=Path(config.data).resolve().name)
    folders = {"train": config.train, "valid": config.valid, "test": config.test}
    candidates = find_split_candidates({split: path for split, path in folders.items() if path is not None})
    return _assemble(config, candidates, name=str(config.train))


def _assemble_labels(config: AssembleConfig, name: str) -> AssembleResult:
    from sat_xception.dataset.fetch_imagery import open_tiles
    from sat_xception.dataset.plan import plan_tiles

    plan = plan_tiles(config)
    with open_tiles(config, plan) as imagery:
        return _assemble(config, plan.candidates(), name, imagery.read, imagery.attribution)


def choose_positive_label(classes: list[str], asked: str) -> str:
    """Return the positive class, or "" if there is none.

    Args:
        classes: All classes.
        asked: Positive class in the settings; "" derives it from the names: "school", or X if the other class is
            "not-X".

    Raises:
        ConfigError: `asked` isn't a class.
    """
    if asked:
        if asked not in classes:
            raise ConfigError(f"--positive-label {asked!r} is not a class; the classes are {', '.join(classes)}")
        return asked
    if DEFAULT_POSITIVE_LABEL in classes:
        return DEFAULT_POSITIVE_LABEL
    for label in classes:
        if len(classes) == 2 and any(f"{negation}{label}" in classes for negation in _NEGATIONS):
            return label
    return ""


def _assemble(
    config: AssembleConfig,
    candidates: Iterable[TileCandidate],
    name: str,
    read: Read = read_file,
    attribution: str = "",
) -> AssembleResult:
    with (
        atomic_folder(config.out, record=DatasetRecord.file_name) as work,
        TileStaging(work / "workbench.sqlite") as bench,
    ):
        bench.add(candidates, config.block_zoom)
        classes = check_classes(bench.kinds())
        positive = choose_positive_label(classes, config.positive_label)
        # Blocks are split before images are read, so that a temporary failure of a tile changes no other tile's split.
        bench.split_blocks(split_blocks(bench.blocks(), config.fractions, config.seed))
        probe_tiles(bench, read, config)
        _check_failures(bench, config.max_failed)
        check_places(bench, config.max_unplaced)
        drop_copies(bench)
        if not config.keep_near_duplicates:
            drop_near_duplicates(bench, config.near_duplicate_bits)
        _split_by_content(bench, classes, config)
        check_blocks(bench, config.block_zoom)
        check_lookalikes(bench, config.near_duplicate_bits)
        page = DatasetPage(classes, config.block_zoom)
        _write_tiles(work, bench, read, config, page)
        summary = DatasetSummary()
        write_manifest(work / "manifest.parquet", _counted(bench.rows(), summary, page), config.slice_columns)
        _check_splits(summary, classes)
        record = DatasetRecord(
            name=name,
            synthetic=config.data == _SAMPLE,
            classes=tuple(classes),
            positive_label=positive,
            attribution=attribution,
            counts=summary.counts(),
            digest=summary.digest(),
            shards={path.name: file_digest(path) for path in sorted(work.glob("tiles-*.parquet"))},
            config=config.resolved(),
        )
        record.write(work)
        (work / "report.html").write_text(page.render(record), encoding="utf-8")
    return AssembleResult(config.out, record.counts, record.digest)


def _counted(rows: Iterable[ManifestRow], summary: DatasetSummary, page: DatasetPage) -> Iterator[ManifestRow]:
    for row in rows:
        summary.add(row)
        page.offer(row)
        yield row


def _check_failures(bench: TileStaging, limit: float) -> None:
    failed, first, (reason, times) = bench.failures()
    for row in first:
        _log.warning("left out  %s: %s", row.id, row.reason)
    if failed > limit * len(bench):
        # Imported here: class folders have no imagery.
        from sat_xception.imagery.source import MISSING

        advice = "Remove or repair them"
        if reason == MISSING:
            advice = "Take imagery that reaches further, draw negatives where there is some (--negatives-within)"
        raise DataError(
            f"{failed:,} of {len(bench):,} tiles can't be read ({failed / len(bench):.1%}, limit {limit:.1%}); "
            f"most common: {reason} x {times:,}; the first is {first[0].source}. "
            f"{advice}, or raise --max-failed"
        )


def _split_by_content(bench: TileStaging, classes: list[str], config: AssembleConfig) -> None:
    """Assign splits to the tiles that have none from a folder or a block."""
    for label in classes:
        # If other tiles of the class have splits already, empty splits needn't be filled.
        if bench.count_unsplit(label) > _LARGE_CLASS or bench.has_split(label):
            for page in bench.unsplit(label):
                positions = {sha256: stable_fraction(sha256, config.seed) for sha256 in page}
                bench.split_contents({sha256: split_of(at, config.fractions) for sha256, at in positions.items()})
        elif contents := [sha256 for page in bench.unsplit(label) for sha256 in page]:
            bench.split_contents(split_by_hash(dict.fromkeys(contents, label), config.fractions, config.seed))


def _check_splits(summary: DatasetSummary, classes: list[str]) -> None:
    for split in SPLITS[:2]:
        for label in classes:
            if not summary.by_split.get(split, Counter())[label]:
                raise DataError(
                    f"no usable tile of class {label!r} is left in the {split} split; add tiles, change --fractions, "
                    "give smaller blocks with a higher --block-zoom, or look for duplicates in the folders"
                )


def _write_tiles(folder: Path, bench: TileStaging, read: Read, config: AssembleConfig, page: DatasetPage) -> None:
    with TileWriter(folder, located=bench.has_places(), slices=config.slice_columns) as writer:
        for candidate, row in bench.usable():
            data = read(candidate).data
            if hashlib.sha256(data).hexdigest() != row.sha256:
                raise DataError(
                    f"{row.source or row.id} changed while the dataset was being assembled; run the command again"
                )
            stored = data
            if row.format != row.source_format or not is_plain(data):
                stored, _ = encode_for_tensorflow(data, config.max_pixels, config.imagery_bands, config.scale)
            writer.add(row, stored)
            page.offer_image(row, stored)
