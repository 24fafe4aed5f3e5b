"""Metadata of the tiles of a split: class, block and slices, in stored order."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from sat_xception.evaluate.bootstrap import number_blocks
from sat_xception.examples.index import ExamplesIndex, shard_files
from sat_xception.model.input import encoded_examples

__all__ = ["Tiles", "read_images", "read_tiles"]

_BATCH = 256
_NOWHERE = -1


@dataclass(frozen=True)
class Tiles:
    """The tiles of a split.

    Attributes:
        ids: Id of each tile.
        labels: Class index of each tile, `int64 [n]`.
        blocks: Name of each tile's block: zoom, x and y of the block that it was split by, or the tile's id if its
            coordinates aren't known.
        slices: Value of each tile by slice.
    """

    ids: list[str]
    labels: npt.NDArray[np.int64]
    blocks: list[str]
    slices: dict[str, list[str]]

    def take(self, wanted: npt.NDArray[np.bool_]) -> Tiles:
        """Return the tiles where `wanted`, `bool [n]`, is True."""
        places = np.flatnonzero(wanted).tolist()
        slices = {name: [values[place] for place in places] for name, values in self.slices.items()}
        ids, blocks = ([values[place] for place in places] for values in (self.ids, self.blocks))
        return Tiles(ids, self.labels[wanted], blocks, slices)

    def block_numbers(self) -> npt.NDArray[np.int64]:
        """Return the number of each tile's block, `int64 [n]`, from 0 on."""
        return number_blocks(self.blocks)


def read_tiles(folder: Path, split: str) -> Tiles:
    """Return the tiles of a split.

    Raises:
        DataError: The split is absent or a file is missing.
    """
    index = ExamplesIndex.read(folder)
    features: dict[str, tf.io.FixedLenFeature] = {
        "tile/id": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        **{f"tile/{axis}": tf.io.FixedLenFeature([], tf.int64, default_value=_NOWHERE) for axis in "xyz"},
        **{f"slice/{name}": tf.io.FixedLenFeature([], tf.string, default_value="") for name in index.slices},
    }
    files = [str(file) for file in shard_files(folder, split)]
    records = tf.data.TFRecordDataset(files).batch(_BATCH).map(lambda batch: tf.io.parse_example(batch, features))
    parts = list(records.as_numpy_iterator())

    def texts(name: str) -> list[str]:
        return [value.decode() for part in parts for value in part[name].tolist()]

    def numbers(name: str) -> npt.NDArray[np.int64]:
        return np.concatenate([np.empty(0, np.int64), *(part[name] for part in parts)])

    ids = texts("tile/id")
    x, y, z = (numbers(f"tile/{axis}") for axis in "xyz")
    slices = {name: texts(f"slice/{name}") for name in index.slices}
    return Tiles(ids, numbers("image/class/label"), _name_blocks(ids, x, y, z, index.block_zoom), slices)


def _name_blocks(
    ids: list[str],
    x: npt.NDArray[np.int64],
    y: npt.NDArray[np.int64],
    z: npt.NDArray[np.int64],
    block_zoom: int | None,
) -> list[str]:
    if block_zoom is None:
        return ids
    above = np.maximum(z - block_zoom, 0)
    places = zip((z - above).tolist(), (x >> above).tolist(), (y >> above).tolist(), strict=True)
    names = ["/".join(map(str, place)) for place in places]
    return [tile if nowhere else name for tile, name, nowhere in zip(ids, names, (z == _NOWHERE).tolist(), strict=True)]


def read_images(folder: Path, split: str, wanted: Collection[int]) -> dict[int, bytes]:
    """Return the encoded images at the given indexes of a split."""
    last = max(wanted, default=-1)
    stored = encoded_examples(folder, split).take(last + 1).as_numpy_iterator()
    return {place: data for place, (_, data, _) in enumerate(stored) if place in wanted}
