"""Frozen features: the backbone's output for each view of each tile, computed once and saved in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from sat_xception.log import get_logger
from sat_xception.model.augment import view
from sat_xception.model.checkpoint import Checkpoints, State
from sat_xception.process import StopRequest

__all__ = ["FeatureBatches", "Features", "compute_features", "frozen"]

_log = get_logger(__name__)
# Features are saved in parts, since writing a part needs its size in memory a second time.
_PART_BYTES = 256_000_000


@dataclass(frozen=True)
class Features:
    """Features of a split, batch by batch and view by view.

    Attributes:
        rows: Pooled features `float32 [views * n, d]`.
        labels: `int64 [views * n]`.
        weights: Sample weights `float32 [views * n]`.
    """

    rows: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeatureBatches:
    """Rows of features as training data; see `phase.Batches`.

    Attributes:
        inputs: `float32 [n, d]`.
        labels: `int64 [n]`.
        weights: Sample weights `float32 [n]`.
        batch_size: Number of rows per step.
        seed: Seed of their order.
    """

    inputs: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """Number of batches per epoch."""
        return -(-int(self.labels.shape[0]) // self.batch_size)

    def epoch(self, number: int, first_step: int = 0) -> tf.data.Dataset:
        """Return an epoch from `first_step` on: `(float32 [n, d], int64 [n], float32 [n])`."""
        order = np.random.default_rng([self.seed, number]).permutation(int(self.labels.shape[0]))
        rows = tf.data.Dataset.from_tensor_slices(order[first_step * self.batch_size :]).batch(self.batch_size)
        return rows.map(lambda row: tuple(tf.gather(part, row) for part in (self.inputs, self.labels, self.weights)))


def frozen(network: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a backbone as a function from `uint8 [n, size, size, 3]` to pooled features `float32 [n, d]`.

    It is traced once for all batch sizes: tracing takes as long as computing hundreds of tiles.
    """
    images = tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8)
    return tf.function(lambda tiles: tf.cast(network(tiles, training=False), tf.float32), input_signature=[images])  # type: ignore[no-any-return]


def compute_features(
    forward: Callable[[tf.Tensor], tf.Tensor],
    split: str,
    batches: tf.data.Dataset,
    views: int,
    checkpoints: Checkpoints,
    notice: StopRequest,
) -> Features:
    """Compute the features of a split, without the parts that are in the checkpoints already.

    Args:
        forward: Function that `frozen` returned.
        split: Name of the split.
        batches: Tiles of the split in stored order: images, labels, sample weights.
        views: Number of views of each tile; see `augment.view`.
        checkpoints: Checkpoints that the parts are saved in.
        notice: Stop request, checked after each batch.

    Raises:
        PreemptedError: The process was asked to stop; the features computed so far are saved.
    """
    parts, done = _kept_parts(split, checkpoints)
    kept = done
    fresh: list[tuple[npt.NDArray[np.float32], ...]] = []

    def keep() -> None:
        if fresh:
            nonlocal kept
            parts.append([np.concatenate(column) for column in zip(*fresh, strict=True)])
            state = State({"first": kept, "end": done}, {"columns": parts[-1]})
            checkpoints.save_part(_part(split, len(parts) - 1), state)
            fresh.clear()
            kept = done

    for images, labels, weights in batches.skip(done):
        for index in range(views):
            fresh.append((forward(view(images, index)).numpy(), labels.numpy(), weights.numpy()))
        done += 1
        if notice.given or checkpoints.due() or sum(rows.nbytes for rows, *_ in fresh) > _PART_BYTES:
            keep()
        notice.raise_if_given(checkpoints.folder)
    keep()
    return Features(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _kept_parts(split: str, checkpoints: Checkpoints) -> tuple[list[list[npt.NDArray[np.float32]]], int]:
    """Return the parts before the first missing or damaged one, and their number of batches."""
    parts: list[list[npt.NDArray[np.float32]]] = []
    done = 0
    while (state := checkpoints.load_part(_part(split, len(parts)))) is not None:
        if state.facts["first"] != done:
            break  # of an earlier attempt: a part before it was damaged, and computed again in another size
        parts.append(list(state.arrays["columns"]))
        done = int(state.facts["end"])
    if parts:
        _log.info("resume    features of %s: %s batches are computed", split, f"{done:,}")
    return parts, done


def _part(split: str, number: int) -> str:
    return f"features-{split}-{number:05d}"
