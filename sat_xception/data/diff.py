"""Say what changed between two versions of a dataset: tiles that came, went, or got another label, split or content."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sat_xception.data.manifest import read_dataset
from sat_xception.errors import DataError
from sat_xception.steps import DiffConfig

__all__ = ["CHANGES", "DatasetDiff", "diff_datasets"]

CHANGES = ("added", "removed", "changed", "relabelled", "moved")
_COLUMNS = ("id", "label", "split", "sha256", "status")


class _Tile(NamedTuple):
    id: str
    label: str
    split: str


@dataclass(frozen=True)
class DatasetDiff:
    """What changed among the usable tiles.

    Attributes:
        digests: Of the older and of the newer dataset. A new name alone
            alters them, too.
        counts: How many tiles there are of each kind of change, label and split, as `counts[kind][label, split]`. Of a
            tile that has both, label and split say `before → after` where they differ.
        as_json: Whether the summary is JSON.
    """

    digests: tuple[str, str]
    counts: dict[str, Counter[tuple[str, str]]]
    as_json: bool = False

    def summary(self) -> str:
        """Return a table of the changes, or the same as JSON."""
        if self.as_json:
            changes = [
                {"change": kind, "label": label, "split": split, "tiles": number}
                for kind, label, split, number in self._rows()
            ]
            return json.dumps({"digests": list(self.digests), "changes": changes}, indent=2, ensure_ascii=False)
        lines = [f"diff      {self.digests[0][:12]} → {self.digests[1][:12]} | {self._totals()}"]
        lines += [
            f"          {kind:<10}  {number:>9,}  {split:<15}  {label}" for kind, label, split, number in self._rows()
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


def diff_datasets(config: DiffConfig) -> DatasetDiff:
    """Compare the usable tiles of two datasets; where the files lay and in which order they came is no change.

    A tile is known by its content, which a dataset holds once: in class folders another label or split is another id.
    A tile whose content is new and whose id isn't has changed. A tile that got both another label and another split
    counts as relabelled and as moved.

    Raises:
        DataError: A folder is no dataset, or its manifest can't be read.
    """
    before, after = _usable_tiles(config.old), _usable_tiles(config.new)
    old_by_id = {tile.id: tile for content, tile in before.items() if content not in after}
    counts: dict[str, Counter[tuple[str, str]]] = {kind: Counter() for kind in CHANGES}
    for content, tile in after.items():
        old = before.get(content) or old_by_id.pop(tile.id, None)
        if old is None:
            counts["added"][tile.label, tile.split] += 1
            continue
        place = (_change(old.label, tile.label), _change(old.split, tile.split))
        counts["changed"][place] += content not in before
        counts["relabelled"][place] += old.label != tile.label
        counts["moved"][place] += old.split != tile.split
    for old in old_by_id.values():
        counts["removed"][old.label, old.split] += 1
    digests = (read_dataset(config.old)["digest"], read_dataset(config.new)["digest"])
    return DatasetDiff(digests, {kind: +found for kind, found in counts.items()}, config.as_json)


def _change(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"


def _usable_tiles(folder: Path) -> dict[str, _Tile]:
    """Return the usable tiles by the SHA-256 of their content."""
    read_dataset(folder)
    path = folder / "manifest.parquet"
    try:
        columns = pq.read_table(path, columns=list(_COLUMNS)).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {error}. Run `sat_xception assemble` again") from None
    rows = zip(*(columns[name] for name in _COLUMNS), strict=True)
    return {sha256: _Tile(name, label, split) for name, label, split, sha256, status in rows if status == "ok"}
