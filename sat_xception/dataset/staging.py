"""Staging of the tiles considered for a dataset: a SQLite file, so that memory doesn't grow with their number."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from sat_xception.dataset.block_split import BlockCount
from sat_xception.dataset.dedupe import KEEP_FIRST
from sat_xception.dataset.folders import TileCandidate, TilePlace
from sat_xception.dataset.manifest import ManifestRow

__all__ = ["TileHashes", "TileStaging"]


class _StoredCandidate(NamedTuple):
    """Columns of a candidate; the path as bytes, the slices as JSON."""

    id: str
    path: bytes | None
    label: str
    split: str
    x: int | None
    y: int | None
    z: int | None
    lon: float | None
    lat: float | None
    labelled_by: str
    slices: str
    weight: float
    conflict: str


_CANDIDATE = _StoredCandidate._fields
_SLICES = "slices"
_ROW = (*(field.name for field in fields(ManifestRow) if field.name != _SLICES), _SLICES)
# Columns that are filled when a tile's image is inspected.
_OUTCOME = tuple(name for name in _ROW if name not in _CANDIDATE)
_PAGE = 1000
_UNSPLIT = "status = 'ok' AND split = '' AND label = ?"


class TileHashes(NamedTuple):
    """Perceptual hashes of tiles, `uint64 [n]`, with their label numbers and row ids, each `uint32 [n]`."""

    hashes: npt.NDArray[np.uint64]
    labels: npt.NDArray[np.uint32]
    tiles: npt.NDArray[np.uint32]


class TileStaging:
    """A SQLite file with one row per tile considered."""

    def __init__(self, path: Path) -> None:
        """Create the file; it is removed on exit."""
        self._path = path
        self._database = sqlite3.connect(path, isolation_level=None)
        # The file doesn't outlive the run, so it needn't survive a crash.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE"):
            self._database.execute(f"PRAGMA {pragma}")
        columns = [*_CANDIDATE[1:], *_OUTCOME, "block_z", "block_x", "block_y", "position", "fine BLOB"]
        self._database.execute(f"CREATE TABLE tiles (id TEXT PRIMARY KEY, {', '.join(columns)})")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close and remove the file."""
        self._database.close()
        self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        """Return the number of tiles."""
        return self._number("SELECT count(*) FROM tiles")

    def add(self, candidates: Iterable[TileCandidate], block_zoom: int) -> None:
        """Add candidates.

        Their blocks are their ancestors at `block_zoom`, or at the lowest zoom of any tile if that is lower, so that
        blocks never overlap.
        """
        columns = (*_CANDIDATE, "source", "status", "reason")
        statement = f"INSERT INTO tiles ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        with self._transaction():
            self._database.executemany(statement, map(_candidate_row, candidates))
            self._database.execute(
                "UPDATE tiles SET block_z = base, block_x = x >> (z - base), block_y = y >> (z - base) "
                "FROM (SELECT min(min(z), ?) AS base FROM tiles) WHERE z IS NOT NULL",
                (block_zoom,),
            )
            self._database.execute("CREATE INDEX blocks ON tiles (block_x, block_y)")

    def has_places(self) -> bool:
        """Return whether any tile has coordinates."""
        return bool(self._all("SELECT 1 FROM tiles WHERE z IS NOT NULL LIMIT 1"))

    def places(self) -> tuple[int, int, str]:
        """Return the number of usable tiles with coordinates, the number without, and the first without."""
        query = "SELECT count(z), count(*) - count(z), min(iif(z IS NULL, id, NULL)) FROM tiles WHERE status = 'ok'"
        placed, unplaced, first = self._all(query)[0]
        return placed, unplaced, first or ""

    def kinds(self) -> list[tuple[str, str]]:
        """Return the pairs of label and given split that occur, sorted."""
        return self._all("SELECT DISTINCT label, split FROM tiles ORDER BY label, split")

    def waiting(self) -> Iterator[list[TileCandidate]]:
        """Yield the candidates whose images haven't been inspected, by id, page by page."""
        query = f"SELECT {', '.join(_CANDIDATE)} FROM tiles WHERE status = '' AND id > ? ORDER BY id LIMIT {_PAGE}"
        last = ""
        while page := [_candidate(values) for values in self._all(query, last)]:
            last = page[-1].id
            yield page

    def record(self, rows: Iterable[tuple[ManifestRow, float, bytes]]) -> None:
        """Record the results of inspections, each with its position in the order of storage and its fine hash."""
        assignments = ", ".join(f"{name} = ?" for name in (*_OUTCOME, "position", "fine"))
        values = ((*(getattr(row, name) for name in _OUTCOME), *rest, row.id) for row, *rest in rows)
        with self._transaction():
            self._database.executemany(f"UPDATE tiles SET {assignments} WHERE id = ?", values)

    def failures(self) -> tuple[int, list[ManifestRow], tuple[str, int]]:
        """Return the number of failed tiles, the first few of them, and the most common reason with its count."""
        number = self._number("SELECT count(*) FROM tiles WHERE status = 'failed'")
        first = list(self._rows("status = 'failed' ORDER BY id LIMIT 5"))
        query = "SELECT reason, count(*) FROM tiles WHERE status = 'failed' GROUP BY reason ORDER BY 2 DESC, 1 LIMIT 1"
        return number, first, next(iter(self._all(query)), ("", 0))

    def copies(self) -> Iterator[list[ManifestRow]]:
        """Yield groups of usable tiles with the same bytes."""
        repeated = "SELECT sha256 FROM tiles WHERE status = 'ok' GROUP BY sha256 HAVING count(*) > 1"
        rows = self._rows(f"status = 'ok' AND sha256 IN ({repeated}) ORDER BY sha256, id")
        for _, group in groupby(rows, key=lambda row: row.sha256):
            yield list(group)

    def hashes(self) -> TileHashes:
        """Return the hashes of the usable tiles, in order of preference among near-duplicates."""
        order = " ".join(f"WHEN '{split}' THEN {place}" for split, place in KEEP_FIRST.items())
        those = "FROM tiles WHERE status = 'ok' AND phash != ''"
        rows = self._database.execute(f"SELECT phash, label, rowid {those} ORDER BY CASE split {order} END, id")
        count = self._number(f"SELECT count(*) {those}")
        hashes = TileHashes(np.empty(count, np.uint64), np.empty(count, np.uint32), np.empty(count, np.uint32))
        numbers: dict[str, int] = {}
        for place, (phash, label, tile) in enumerate(rows):
            hashes.hashes[place] = int(phash, 16)
            hashes.labels[place] = numbers.setdefault(label, len(numbers))
            hashes.tiles[place] = tile
        return hashes

    def fine_hashes(self, tiles: npt.NDArray[np.uint32]) -> list[bytes]:
        """Return the fine hashes of tiles by row id (from `hashes`), in that order."""
        query = "SELECT fine FROM tiles WHERE rowid = ?"
        return [self._database.execute(query, (tile,)).fetchone()[0] for tile in tiles.tolist()]

    def without_look(self) -> tuple[int, str]:
        """Return the number of almost uniform usable tiles, which have no perceptual hash, and the first of them."""
        number, first = self._all("SELECT count(*), min(id) FROM tiles WHERE status = 'ok' AND phash = ''")[0]
        return number, first or ""

    def name(self, tile: int) -> tuple[str, str, str]:
        """Return id, split and label of a tile by row id (from `hashes`)."""
        ((name, split, label),) = self._all("SELECT id, split, label FROM tiles WHERE rowid = ?", tile)
        return name, split, label

    def count_usable(self) -> int:
        """Return the number of usable tiles."""
        return self._number("SELECT count(*) FROM tiles WHERE status = 'ok'")

    def leave_out(self, reasons: Mapping[str, str]) -> None:
        """Mark tiles as duplicates, by id, with the reason."""
        with self._transaction():
            self._database.executemany(
                "UPDATE tiles SET status = 'duplicate', reason = ? WHERE id = ?",
                ((reason, tile) for tile, reason in reasons.items()),
            )

    def blocks(self) -> Iterator[BlockCount]:
        """Yield the content of the blocks, without tiles that are left out."""
        rows = self._database.execute(
            "SELECT block_z, block_x, block_y, split, label, slices, count(*) FROM tiles "
            "WHERE block_z IS NOT NULL AND status = '' GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6"
        )
        for z, x, y, split, label, slices, tiles in rows:
            yield BlockCount((z, x, y), split, label, json.loads(slices), tiles)

    def split_blocks(self, splits: Mapping[tuple[int, int, int], str]) -> None:
        """Set the split of the tiles in each block that have none."""
        with self._transaction():
            self._database.executemany(
                "UPDATE tiles SET split = ? WHERE block_x = ? AND block_y = ? AND split = ''",
                ((split, x, y) for (_, x, y), split in splits.items()),
            )

    def shared_blocks(self) -> list[tuple[str, str]]:
        """Return the blocks, as z/x/y, whose usable tiles are in several splits, with these splits."""
        return self._all(
            "SELECT block_z || '/' || block_x || '/' || block_y, group_concat(DISTINCT split) FROM tiles "
            "WHERE status = 'ok' AND block_z IS NOT NULL GROUP BY block_x, block_y HAVING count(DISTINCT split) > 1 "
            "ORDER BY block_x, block_y"
        )

    def count_unsplit(self, label: str) -> int:
        """Return the number of usable tiles of a class without a split."""
        return int(self._all(f"SELECT count(*) FROM tiles WHERE {_UNSPLIT}", label)[0][0])

    def has_split(self, label: str) -> bool:
        """Return whether any usable tile of a class has a split."""
        query = "SELECT 1 FROM tiles WHERE status = 'ok' AND split != '' AND label = ? LIMIT 1"
        return bool(self._all(query, label))

    def unsplit(self, label: str) -> Iterator[list[str]]:
        """Yield the SHA-256 of the usable tiles of a class without a split, sorted, page by page."""
        query = f"SELECT sha256 FROM tiles WHERE {_UNSPLIT} AND sha256 > ? ORDER BY sha256 LIMIT {_PAGE}"
        self._database.execute("CREATE INDEX IF NOT EXISTS contents ON tiles (sha256)")
        last = ""
        while page := [sha256 for (sha256,) in self._all(query, label, last)]:
            last = page[-1]
            yield page

    def split_contents(self, splits: Mapping[str, str]) -> None:
        """Set the splits of tiles by the SHA-256 of their bytes."""
        with self._transaction():
            self._database.executemany(
                "UPDATE tiles SET split = ? WHERE sha256 = ? AND status = 'ok'",
                ((split, sha256) for sha256, split in splits.items()),
            )

    def rows(self) -> Iterator[ManifestRow]:
        """Yield every tile, by id."""
        return self._rows("TRUE ORDER BY id")

    def usable(self) -> Iterator[tuple[TileCandidate, ManifestRow]]:
        """Yield the usable tiles in the order of storage, each as candidate and manifest row.

        Grouped by split, so that readers of one split skip the others; within a split, classes are mixed.
        """
        query = f"SELECT {', '.join((*_CANDIDATE, *_ROW))} FROM tiles WHERE status = 'ok' ORDER BY split, position, id"
        for values in self._database.execute(query):
            yield _candidate(values[: len(_CANDIDATE)]), _row(values[len(_CANDIDATE) :])

    def _rows(self, condition: str) -> Iterator[ManifestRow]:
        return map(_row, self._database.execute(f"SELECT {', '.join(_ROW)} FROM tiles WHERE {condition}"))

    def _all(self, query: str, *values: object) -> list[Any]:
        return self._database.execute(query, values).fetchall()

    def _number(self, query: str) -> int:
        return int(self._all(query)[0][0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN")
        yield
        self._database.execute("COMMIT")


def _candidate_row(candidate: TileCandidate) -> tuple[object, ...]:
    place = candidate.place
    stored = _StoredCandidate(
        id=candidate.id,
        path=None if candidate.path is None else os.fsencode(candidate.path),
        label=candidate.label,
        split=candidate.split,
        x=place.x if place else None,
        y=place.y if place else None,
        z=place.z if place else None,
        lon=place.lon if place else None,
        lat=place.lat if place else None,
        labelled_by=candidate.labelled_by,
        slices=json.dumps(candidate.slices),
        weight=candidate.weight,
        conflict=candidate.conflict,
    )
    return (*stored, candidate.source, "duplicate" if candidate.conflict else "", candidate.conflict)


def _candidate(values: tuple[Any, ...]) -> TileCandidate:
    stored = _StoredCandidate._make(values)
    return TileCandidate(
        id=stored.id,
        path=None if stored.path is None else Path(os.fsdecode(stored.path)),
        label=stored.label,
        split=stored.split,
        place=_place(stored),
        labelled_by=stored.labelled_by,
        slices=json.loads(stored.slices),
        conflict=stored.conflict,
        weight=stored.weight,
    )


def _place(stored: _StoredCandidate) -> TilePlace | None:
    x, y, z, lon, lat = stored.x, stored.y, stored.z, stored.lon, stored.lat
    if x is None or y is None or z is None or lon is None or lat is None:
        return None
    return TilePlace(x, y, z, lon, lat)


def _row(values: tuple[Any, ...]) -> ManifestRow:
    *known, slices = values
    # An image that isn't read leaves its fields empty; they have their defaults then.
    facts = {name: value for name, value in zip(_ROW, known, strict=False) if value is not None}
    return ManifestRow(**facts, slices=json.loads(slices))
