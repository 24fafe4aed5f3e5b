"""Find labelled tiles in class folders, with or without splits.

Unsplit: `DIR/<class>/*`. Split: `DIR/{train,valid,test}/<class>/*`, also with `validation` or `val`, in any case. A
file name may contain the tile's coordinates: `x-y-z` as label-maker writes, or `z-x-y`, with `-` or `_`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from sat_xception.dataset.split import SPLIT_NAMES
from sat_xception.errors import DataError, did_you_mean
from sat_xception.geo.tiles import grid_to_lonlat

__all__ = ["FetchedImage", "TileCandidate", "TilePlace", "check_classes", "find_candidates", "find_split_candidates"]

_TILE_NAME = re.compile(r"(\d+)[-_](\d+)[-_](\d+)")
# Accepted zooms and latitudes of file names: dates and counters, read as tiles, have a low zoom or lie at the edge of
# the map.
_ZOOMS = range(14, 23)
_MAX_LONGITUDE, _MAX_LATITUDE = 179.0, 80.0


@dataclass(frozen=True)
class TilePlace:
    """Coordinates of a tile: column, row (from the north) and zoom in the grid, and its centre in degrees."""

    x: int
    y: int
    z: int
    lon: float
    lat: float


@dataclass(frozen=True)
class FetchedImage:
    """The bytes of a tile's image; its status, "ok", "blank" or "failed"; and the reason if it isn't ok."""

    data: bytes
    status: str = "ok"
    reason: str = ""


@dataclass(frozen=True)
class TileCandidate:
    """A tile that is considered for the dataset.

    Attributes:
        id: Path below the data folder, with `/`: unique, and the same on every machine.
        path: The file; None for a tile of imagery.
        label: Name of the class.
        split: "train", "valid" or "test" if given by a folder or by the tile's block, else "".
        place: Coordinates of the tile; None if unknown.
        labelled_by: Layer that labelled it, "random" or "drawn"; "" for a class folder.
        slices: Value of each slice column.
        conflict: Why the labels can't be used; "" if they can.
        weight: Sample weight of the tile in training.
    """

    id: str
    path: Path | None
    label: str
    split: str
    place: TilePlace | None = None
    labelled_by: str = ""
    slices: dict[str, str] = field(default_factory=dict)
    conflict: str = ""
    weight: float = 1.0

    @property
    def source(self) -> str:
        """Layer that labelled the tile, or path of the file, as text."""
        return self.labelled_by or (_text(self.path) if self.path else "")


def find_candidates(folder: Path) -> Iterator[TileCandidate]:
    """Yield every file in the class folders below a folder, in any order.

    Raises:
        DataError: No folder, no class folders in it, or a mix of split and class folders.
    """
    names = [path.name for path in _subfolders(folder)]
    splits = [name for name in names if name.casefold() in SPLIT_NAMES]
    if not splits:
        return _in_classes(folder, prefix="", split="")
    if len(splits) != len(names):
        others = ", ".join(name for name in names if name not in splits)
        raise DataError(f"{folder} mixes splits ({', '.join(splits)}) with other folders ({others}); keep one kind")
    return find_split_candidates({name: folder / name for name in splits})


def find_split_candidates(folders: Mapping[str, Path]) -> Iterator[TileCandidate]:
    """Yield every file in the class folders of each split, in any order.

    Args:
        folders: Folder of class folders by split name, for instance `{"train": Path("train"), "valid": Path("test")}`.

    Raises:
        DataError: A folder is missing, two names mean the same split, or training or validation is missing.
    """
    seen: dict[str, str] = {}
    for name in folders:
        split = SPLIT_NAMES[name.casefold()]
        if split in seen:
            raise DataError(f"both {seen[split]!r} and {name!r} stand for the {split} split; keep one")
        seen[split] = name
    for needed in ("train", "valid"):
        if needed not in seen:
            raise DataError(f"there is no {needed} folder beside {', '.join(folders)}; add one, or remove the splits")
    return chain.from_iterable(_in_classes(folders[name], f"{split}/", split) for split, name in seen.items())


def check_classes(kinds: Iterable[tuple[str, str]]) -> list[str]:
    """Return the class names, sorted; a class's index is its index in this list, everywhere.

    Args:
        kinds: Pairs of label and split that occur.

    Raises:
        DataError: Fewer than two classes, or a class that is missing from training.
    """
    known = list(kinds)
    classes = sorted({label for label, _ in known})
    if len(classes) < 2:
        raise DataError(
            f"found {len(classes)} class ({', '.join(classes) or 'none'}), a classifier needs at least 2: "
            "one folder per class, for instance school/ and not-school/"
        )
    trained = sorted({label for label, split in known if split in ("", "train")})
    for label, split in known:
        if label not in trained:
            hint = did_you_mean(label, trained, f"training has {', '.join(trained)}")
            raise DataError(f"class {label!r} is in {split}/ but not in train/; {hint}")
    return classes


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"no folder at {folder} (seen from {Path.cwd()})")
    found = [Path(entry) for entry in _scan(folder) if entry.is_dir()]
    if not found:
        raise DataError(f"{folder} has no class folders; expected {folder}/<class>/<image>")
    return found


def _in_classes(folder: Path, prefix: str, split: str) -> Iterator[TileCandidate]:
    classes = _subfolders(folder)
    return (
        TileCandidate(
            f"{prefix}{_text(path.relative_to(folder))}",
            path,
            _text(Path(class_folder.name)),
            split,
            place=_place_of(path.stem),
        )
        for class_folder in classes
        for path in _files(class_folder)
    )


def _place_of(name: str) -> TilePlace | None:
    """Return the tile in a file's name; None if there is none, or if it is ambiguous."""
    match = _TILE_NAME.fullmatch(name)
    if match is None:
        return None
    first, second, third = map(int, match.groups())
    places = [_place(first, second, third), _place(second, third, first)]
    found = [place for place in places if place is not None]
    return found[0] if len(found) == 1 else None


def _place(x: int, y: int, z: int) -> TilePlace | None:
    if z not in _ZOOMS or max(x, y) >= 1 << z:
        return None
    lon, lat = (float(axis[0]) for axis in grid_to_lonlat(np.array([x + 0.5]), np.array([y + 0.5]), z))
    inside = abs(lon) <= _MAX_LONGITUDE and abs(lat) <= _MAX_LATITUDE
    return TilePlace(x, y, z, lon, lat) if inside else None


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, including broken links and links to folders, which are reported as unreadable."""
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry))
        elif entry.is_symlink() or entry.is_file():
            yield Path(entry)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that aren't hidden, sorted by name."""
    return sorted(_entries(folder), key=lambda entry: entry.name)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder that aren't hidden, in any order, without holding a million of them in memory."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"can't list the folder {folder}: {error.strerror}") from None


def _text(path: Path) -> str:
    """Return a path as UTF-8 text, with `/`, and with escapes for bytes that aren't UTF-8."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
