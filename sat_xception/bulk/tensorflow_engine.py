"""Score with TensorFlow in this process: the SavedModel's own graph, including resizing, with frozen weights."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from sat_xception.bulk.frozen import freeze
from sat_xception.bulk.scorer import Probabilities
from sat_xception.bulk.tiles import Pixels
from sat_xception.errors import DataError

__all__ = ["TensorFlowEngine"]


class TensorFlowEngine:
    """A frozen SavedModel on the device that TensorFlow chooses; see `Engine`."""

    def __init__(self, version: Path, threads: int = 0) -> None:
        """Load a packaged version.

        Args:
            version: Folder of the version.
            threads: Number of cores to use; 0 uses all. Only effective before TensorFlow's first operation.

        Raises:
            ModelError: The version can't be loaded.
        """
        self.at_once = 1
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        self._model = freeze(version)

    def fit(self, pixels: Pixels) -> Pixels:
        """Return a tile unchanged, since the graph resizes it."""
        return pixels

    def run(self, pixels: Pixels) -> Probabilities:
        """Return the probabilities of tiles of one size."""
        try:
            found: Probabilities = self._model(tf.constant(pixels))[0].numpy()
        except tf.errors.ResourceExhaustedError:
            raise DataError(
                f"{len(pixels)} tiles at once are more than the memory holds; give a smaller --batch-size"
            ) from None
        return found

    def close(self) -> None:
        """Release the model."""
        del self._model
