"""Read examples as `tf.data`: decoded and resized in parallel, and cached in memory if they fit."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from sat_xception.errors import DataError
from sat_xception.examples.index import ExamplesIndex, shard_files
from sat_xception.model.augment import random_view
from sat_xception.model.preprocess import decode, decode_and_resize

__all__ = ["TileBatches", "encoded_examples", "evaluation_batches", "reading", "training_batches", "weighted_batches"]

_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    "tile/id": tf.io.FixedLenFeature([], tf.string),
    "tile/weight": tf.io.FixedLenFeature([], tf.float32, default_value=1.0),
}
# Decoded tiles are cached in memory up to this size: 16,000 tiles of 224 pixels. More are decoded again in each epoch.
_CACHE_BYTES = 2_400_000_000
_SHUFFLE_TILES = 4096
# Traced once per image size and crop instead of once per epoch, which took 0.2 s.
_random_view = tf.function(random_view, autograph=False)


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn TensorFlow's error on a damaged file or undecodable image into a DataError.

    Raises:
        DataError: The examples can't be read; the message names the tile if an image is at fault.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        reason = _reason_of(error)
        tile, own_reason = _first_unreadable(folder)
        if tile:
            raise DataError(
                f"an example in {folder} can't be read: {own_reason}. It is the tile {tile}: repair or remove it, then "
                "run assemble and convert again"
            ) from None
        raise DataError(f"an example in {folder} can't be read: {reason}. Run assemble and convert again") from None


def _reason_of(error: tf.errors.OpError) -> str:
    """Return the reason in TensorFlow's message, without the names of nodes and transformations around it."""
    lines = re.sub(r"\[\[.*?\]\]|\[Op:.*|\{\{.*?\}\}|.*Iterator::\S+: ", "", error.message).split("\n")
    return next((line.strip(" .\t") for line in reversed(lines) if line.strip()), "damaged")


def _first_unreadable(folder: Path) -> tuple[str, str]:
    """Return the id of the first tile whose image can't be decoded, and why; ("", "") if a file is damaged instead."""
    try:
        for split in ExamplesIndex.read(folder).splits:
            for tile, image, _ in encoded_examples(folder, split):
                try:
                    decode(image)
                except tf.errors.InvalidArgumentError as error:
                    return tile.numpy().decode(), _reason_of(error)
    except (DataError, tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        # A damaged record has no readable tile id.
        pass
    return "", ""


def encoded_examples(folder: Path, split: str) -> tf.data.Dataset:
    """Return the stored examples of a split in order: `(tile id, encoded image, label)`, all scalar.

    Raises:
        DataError: The split is absent or a file is missing.
    """
    return _examples(folder, split).map(
        lambda example: (example["tile/id"], example["image/encoded"], example["image/class/label"]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def evaluation_batches(folder: Path, split: str, input_size: int, batch_size: int) -> tf.data.Dataset:
    """Return a split in stored order: `(uint8 [n, size, size, 3], int64 [n])`; the last batch may be short."""
    return weighted_batches(folder, split, input_size, batch_size).map(lambda images, labels, _: (images, labels))


def weighted_batches(folder: Path, split: str, input_size: int, batch_size: int) -> tf.data.Dataset:
    """Return a split in stored order, with sample weights: `(uint8 […], int64 [n], float32 [n])`."""
    return _pixels(folder, split, input_size).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _own_weight(label: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return weight


@dataclass(frozen=True)
class TileBatches:
    """Tiles as training data, shuffled and augmented; see `phase.Batches`.

    Order and augmentation depend only on `seed`, TensorFlow's global seed, the epoch and the position in the epoch.

    Attributes:
        tiles: Decoded tiles in stored order, cached in memory if they fit.
        count: Number of tiles.
        batch_size: Number of tiles per step.
        seed: Seed of order and augmentation.
        weigh: Function from a tile's label and own weight to its sample weight in the loss.
        crop: Minimum fraction of a tile that a random crop keeps; see `random_view`.
    """

    tiles: tf.data.Dataset
    count: int
    batch_size: int
    seed: int
    weigh: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = _own_weight
    crop: float = 1.0

    @property
    def steps(self) -> int:
        """Number of batches per epoch."""
        return -(-self.count // self.batch_size)

    def epoch(self, number: int, first_step: int = 0) -> tf.data.Dataset:
        """Return an epoch from `first_step` on: `(uint8 [n, size, size, 3], int64 [n], float32 [n])`.

        The third part is the sample weights.
        """
        order = self.tiles.shuffle(
            min(self.count, _SHUFFLE_TILES), seed=_order_seed(self.seed, number), reshuffle_each_iteration=False
        )
        places = tf.data.Dataset.range(number << 32, (number << 32) + self.count)
        rest = tf.data.Dataset.zip(order, places).skip(first_step * self.batch_size)

        def augment(tile: tuple[tf.Tensor, ...], place: tf.Tensor) -> tuple[tf.Tensor, ...]:
            image, label, weight = tile
            key = tf.stack([tf.constant(self.seed, tf.int64), place])
            return _random_view(image, key, self.crop), label, self.weigh(label, weight)

        return rest.map(augment, num_parallel_calls=tf.data.AUTOTUNE).batch(self.batch_size).prefetch(tf.data.AUTOTUNE)


def training_batches(
    folder: Path,
    split: str,
    input_size: int,
    batch_size: int,
    seed: int,
    weigh: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = _own_weight,
    crop: float = 1.0,
) -> TileBatches:
    """Return a split as training data; see `TileBatches`.

    Raises:
        DataError: The split is absent or a file is missing.
    """
    tiles = _pixels(folder, split, input_size)
    count = ExamplesIndex.read(folder).count(split)
    if count * input_size * input_size * 3 <= _CACHE_BYTES:
        tiles = tiles.cache()
    return TileBatches(tiles, count, batch_size, seed, weigh, crop)


def _order_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]) >> 1


def _pixels(folder: Path, split: str, input_size: int) -> tf.data.Dataset:
    def decode(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = decode_and_resize(example["image/encoded"], input_size)
        return image, example["image/class/label"], example["tile/weight"]

    pixels = _examples(folder, split).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    # TFRecord files don't hold their number of records, and Keras warns about data of unknown length.
    return pixels.apply(tf.data.experimental.assert_cardinality(ExamplesIndex.read(folder).count(split)))


def _examples(folder: Path, split: str) -> tf.data.Dataset:
    records = tf.data.TFRecordDataset([str(file) for file in shard_files(folder, split)], num_parallel_reads=None)
    return records.map(
        lambda serialized: tf.io.parse_single_example(serialized, _FEATURES), num_parallel_calls=tf.data.AUTOTUNE
    )
