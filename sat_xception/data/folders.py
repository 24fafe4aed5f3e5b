"""Find labelled tiles in class folders, in both forms that people keep them.

Unsplit: `DIR/<class>/*`. Split by hand: `DIR/{train,valid,test}/<class>/*`, also with `validation` or `val`; `Train` is
`train`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sat_xception.errors import DataError

__all__ = ["Candidate", "Content", "TilePlace", "check_classes", "find_candidates", "find_split_candidates"]

_SPLIT_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "test": "test"}


@dataclass(frozen=True)
class TilePlace:
    """Where a tile is: its column, row (from the north) and zoom in the grid, and its centre in degrees."""

    x: int
    y: int
    z: int
    lon: float
    lat: float


@dataclass(frozen=True)
class Content:
    """The bytes of a tile's image; its status, "ok", "blank" or "failed"; and why it isn't ok."""

    data: bytes
    status: str = "ok"
    reason: str = ""


@dataclass(frozen=True)
class Candidate:
    """A file that is considered for the dataset.

    Attributes:
        id: Path below the data folder, with `/`: unique, and the same on every machine.
        path: The file; None for a tile of imagery.
        label: Name of its class folder.
        split: "train", "valid" or "test" where a folder or the tile's place says so, else "".
        place: Where the tile is; None when that isn't known.
        labelled_by: Layer that labelled it, or "random"; "" for a class folder.
        slices: Value of each slice column.
        conflict: Why the labels can't be used; "" when they can.
    """

    id: str
    path: Path | None
    label: str
    split: str
    place: TilePlace | None = None
    labelled_by: str = ""
    slices: dict[str, str] = field(default_factory=dict)
    conflict: str = ""

    @property
    def source(self) -> str:
        """Layer that labelled the tile, or path of the file, as text."""
        return self.labelled_by or (_text(self.path) if self.path else "")


def find_candidates(folder: Path) -> list[Candidate]:
    """Return every file in the class folders below a folder, sorted by id.

    Raises:
        DataError: No folder, no class folders in it, or a mix of split and class folders.
    """
    names = [path.name for path in _subfolders(folder)]
    splits = [name for name in names if name.casefold() in _SPLIT_NAMES]
    if not splits:
        return _in_classes(folder, prefix="", split="")
    if len(splits) != len(names):
        others = ", ".join(name for name in names if name not in splits)
        raise DataError(f"{folder} mixes splits ({', '.join(splits)}) with other folders ({others}); keep one kind")
    return find_split_candidates({name: folder / name for name in splits})


def find_split_candidates(folders: Mapping[str, Path]) -> list[Candidate]:
    """Return every file in the class folders of each split, sorted by id.

    Args:
        folders: Folder of class folders by split name, for instance `{"train": Path("train"), "valid": Path("test")}`.

    Raises:
        DataError: A folder is missing, two stand for one split, or training or validation is missing.
    """
    found: list[Candidate] = []
    seen: dict[str, str] = {}
    for name, folder in folders.items():
        split = _SPLIT_NAMES[name.casefold()]
        if split in seen:
            raise DataError(f"both {seen[split]!r} and {name!r} stand for the {split} split; keep one")
        seen[split] = name
        found += _in_classes(folder, prefix=f"{split}/", split=split)
    for needed in ("train", "valid"):
        if needed not in seen:
            raise DataError(f"there is no {needed} folder beside {', '.join(folders)}; add one, or remove the splits")
    return sorted(found, key=lambda candidate: candidate.id)


def check_classes(candidates: list[Candidate]) -> list[str]:
    """Return the class names, sorted; a class's index is its place in this list, everywhere.

    Raises:
        DataError: Fewer than two classes, or a class that another split has and training lacks.
    """
    classes = sorted({candidate.label for candidate in candidates})
    if len(classes) < 2:
        raise DataError(
            f"found {len(classes)} class ({', '.join(classes) or 'none'}), a classifier needs at least 2: "
            "one folder a class, for instance school/ and not-school/"
        )
    trained = sorted({candidate.label for candidate in candidates if candidate.split in ("", "train")})
    for candidate in candidates:
        if candidate.label not in trained:
            near = difflib.get_close_matches(candidate.label, trained, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"training has {', '.join(trained)}"
            raise DataError(f"class {candidate.label!r} is in {candidate.split}/ but not in train/; {hint}")
    return classes


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"no folder at {folder} (seen from {Path.cwd()})")
    found = [Path(entry) for entry in _scan(folder) if entry.is_dir()]
    if not found:
        raise DataError(f"{folder} has no class folders; expected {folder}/<class>/<image>")
    return found


def _in_classes(folder: Path, prefix: str, split: str) -> list[Candidate]:
    found = [
        Candidate(f"{prefix}{_text(path.relative_to(folder))}", path, _text(Path(class_folder.name)), split)
        for class_folder in _subfolders(folder)
        for path in _files(class_folder)
    ]
    return sorted(found, key=lambda candidate: candidate.id)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, and links that lead nowhere or to a folder: they can't be read, and it's said."""
    for entry in _scan(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry))
        elif entry.is_symlink() or entry.is_file():
            yield Path(entry)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder and not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"can't list the folder {folder}: {error.strerror}") from None


def _text(path: Path) -> str:
    """Return a path as text that a file can hold, with `/` and with escapes for bytes that aren't UTF-8."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
