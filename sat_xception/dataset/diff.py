"""Compare two versions of a dataset: tiles that were added, removed, or got another label, split or slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sat_xception.dataset.record import DatasetRecord
from sat_xception.dataset.settings import DiffConfig
from sat_xception.errors import DataError
from sat_xception.storage.files import dump_json

__all__ = ["CHANGES", "DatasetDiff", "diff_datasets"]

CHANGES = ("added", "removed", "changed", "relabelled", "moved", "resliced")
_COLUMNS = ("id", "label", "split", "sha256", "status")


class _Tile(NamedTuple):
    id: str
    label: str
    split: str
    slices: tuple[str, ...]


@dataclass(frozen=True)
class DatasetDiff:
    """Changes among the usable tiles.

    Attributes:
        digests: Digests of the old and the new dataset. A new tile id alone changes them, too.
        counts: Number of tiles by kind of change, label and split: `counts[kind][label, split]`. A label or split that
            differs between the versions is written as `before → after`.
        as_json: Whether the summary is JSON.
    """

    digests: tuple[str, str]
    counts: dict[str, Counter[tuple[str, str]]]
    by_slice: dict[str, Counter[tuple[str, str, str]]]
    as_json: bool = False

    def summary(self) -> str:
        """Return the changes as a table or as JSON."""
        if self.as_json:
            changes = [
                {"change": kind, "label": label, "split": split, "tiles": number}
                for kind, label, split, number in self._rows()
            ]
            slices = [
                {"change": kind, "slice": column, "value": value, "label": label, "tiles": number}
                for kind, column, value, label, number in self._slice_rows()
            ]
            content = {"digests": list(self.digests), "changes": changes, "slices": slices}
            return dump_json(content, indent=2, ensure_ascii=False)
        lines = [f"diff      {self.digests[0][:12]} → {self.digests[1][:12]} | {self._totals()}"]
        lines += [
            f"          {kind:<10}  {number:>9,}  {split:<15}  {label}" for kind, label, split, number in self._rows()
        ]
        lines += [
            f"          {kind:<10}  {number:>9,}  {column}={value or 'not known'}  {label}"
            for kind, column, value, label, number in self._slice_rows()
        ]
        return "\n".join(lines)

    def _totals(self) -> str:
        totals = [f"{counts.total():,} {kind}" for kind, counts in self.counts.items() if counts]
        return "  ".join(totals) or "no change"

    def _rows(self) -> list[tuple[str, str, str, int]]:
        return [
            (kind, label, split, number)
            for kind, counts in self.counts.items()
            for (label, split), number in sorted(counts.items())
        ]

    def _slice_rows(self) -> list[tuple[str, str, str, str, int]]:
        return [
            (kind, *place, number) for kind, counts in self.by_slice.items() for place, number in sorted(counts.items())
        ]


def diff_datasets(config: DiffConfig) -> DatasetDiff:
    """Compare the usable tiles of two datasets; paths and order of the files don't matter.

    Tiles are matched by content, which is unique in a dataset: in class folders, another label or split is another id.
    A tile with new content and a known id has changed. A tile with another label and another split counts as relabelled
    and as moved; one whose slices alone differ counts as resliced.

    Raises:
        DataError: A folder isn't a dataset, or its manifest can't be read.

    Example:
        print(diff_datasets(DiffConfig(old="dataset-2025", new="dataset-2026")).summary())
    """
    records = DatasetRecord.read(config.old), DatasetRecord.read(config.new)
    columns = tuple(sorted({name for record in records for name in record.counts.by_slice}))
    before, after = _usable_tiles(config.old, columns), _usable_tiles(config.new, columns)
    old_by_id = {tile.id: tile for content, tile in before.items() if content not in after}
    counts: dict[str, Counter[tuple[str, str]]] = {kind: Counter() for kind in CHANGES}
    by_slice: dict[str, Counter[tuple[str, str, str]]] = {kind: Counter() for kind in CHANGES}

    def count(kind: str, old: _Tile, new: _Tile) -> None:
        label = _change(old.label, new.label)
        counts[kind][label, _change(old.split, new.split)] += 1
        for column, *values in zip(columns, old.slices, new.slices, strict=True):
            by_slice[kind][column, _change(*values), label] += 1

    for content, tile in after.items():
        old = before.get(content) or old_by_id.pop(tile.id, None)
        if old is None:
            count("added", tile, tile)
            continue
        differs = {
            "changed": content not in before,
            "relabelled": old.label != tile.label,
            "moved": old.split != tile.split,
            "resliced": old.slices != tile.slices,
        }
        for kind in (kind for kind, found in differs.items() if found):
            count(kind, old, tile)
    for old in old_by_id.values():
        count("removed", old, old)
    return DatasetDiff((records[0].digest, records[1].digest), counts, by_slice, config.as_json)


def _change(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"


def _usable_tiles(folder: Path, slices: Sequence[str]) -> dict[str, _Tile]:
    """Return the usable tiles by the SHA-256 of their content, with the values of the given slice columns."""
    path = folder / "manifest.parquet"
    try:
        known = pq.read_schema(path).names
        names = [*_COLUMNS, *(f"slice/{name}" for name in slices if f"slice/{name}" in known)]
        columns = pq.read_table(path, columns=names).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {error}. Run `sat_xception assemble` again") from None
    nothing = [""] * len(columns["id"])
    rows = zip(*(columns[name] for name in _COLUMNS), strict=True)
    values = zip(*(columns.get(f"slice/{name}", nothing) for name in slices), strict=True) if slices else repeat(())
    return {
        sha256: _Tile(name, label, split, tuple(value or "" for value in slice_values))
        for (name, label, split, sha256, status), slice_values in zip(rows, values, strict=False)
        if status == "ok"
    }
