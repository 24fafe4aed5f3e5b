"""Read examples as `tf.data`: decode and resize in parallel, kept in memory where they fit."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from sat_xception.data.examples_index import read_index, shard_files
from sat_xception.errors import DataError
from sat_xception.model.augment import random_view
from sat_xception.model.preprocess import decode_and_resize

__all__ = ["encoded_examples", "evaluation_batches", "reading", "training_batches", "weighted_batches"]

_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    "tile/id": tf.io.FixedLenFeature([], tf.string),
    "tile/weight": tf.io.FixedLenFeature([], tf.float32, default_value=1.0),
}
# Decoded tiles are kept in memory up to this size: 16,000 tiles of 224 pixels. More are decoded again each epoch.
_CACHE_BYTES = 2_400_000_000
_SHUFFLE_TILES = 4096


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Say what is wrong with the examples when TensorFlow fails on a damaged file or on an image that it can't decode.

    Raises:
        DataError: Instead of TensorFlow's error.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        # What happened is the last line, among the names of nodes and of the transformations before it.
        lines = re.sub(r"\[\[.*?\]\]|\[Op:.*|\{\{.*?\}\}|.*Iterator::\S+: ", "", error.message).split("\n")
        reason = next((line.strip(" .\t") for line in reversed(lines) if line.strip()), "damaged")
        raise DataError(f"an example in {folder} can't be read: {reason}. Run assemble and convert again") from None


def encoded_examples(folder: Path, split: str) -> tf.data.Dataset:
    """Return a split as it is stored, in stored order: `(tile id, encoded image, label)`, all scalar.

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
    """Return a split in stored order, with how much each tile counts: `(uint8 […], int64 [n], float32 [n])`."""
    return _pixels(folder, split, input_size).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def training_batches(folder: Path, split: str, input_size: int, batch_size: int, seed: int) -> tf.data.Dataset:
    """Return one epoch a pass, shuffled and augmented: `(uint8 [n, size, size, 3], int64 [n], float32 [n])`.

    The last is how much each tile counts.

    Order and augmentation follow from the seed, TensorFlow's global one and the number of the pass alone.
    """
    pixels = _pixels(folder, split, input_size)
    count = read_index(folder).count(split)
    if count * input_size * input_size * 3 <= _CACHE_BYTES:
        pixels = pixels.cache()
    batches = pixels.shuffle(min(count, _SHUFFLE_TILES), seed=seed, reshuffle_each_iteration=True).batch(batch_size)
    keys = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)

    def augment(batch: tuple[tf.Tensor, ...], key: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images, labels, weights = batch
        return random_view(images, tf.stack([tf.constant(seed, tf.int64), key])), labels, weights

    mixed = tf.data.Dataset.zip(batches, keys).map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    return mixed.prefetch(tf.data.AUTOTUNE)


def _pixels(folder: Path, split: str, input_size: int) -> tf.data.Dataset:
    def decode(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = decode_and_resize(example["image/encoded"], input_size)
        return image, example["image/class/label"], example["tile/weight"]

    pixels = _examples(folder, split).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    # TFRecord files don't say how many records they hold, and Keras warns of data of unknown length.
    return pixels.apply(tf.data.experimental.assert_cardinality(read_index(folder).count(split)))


def _examples(folder: Path, split: str) -> tf.data.Dataset:
    records = tf.data.TFRecordDataset([str(file) for file in shard_files(folder, split)], num_parallel_reads=None)
    return records.map(
        lambda serialized: tf.io.parse_single_example(serialized, _FEATURES), num_parallel_calls=tf.data.AUTOTUNE
    )
