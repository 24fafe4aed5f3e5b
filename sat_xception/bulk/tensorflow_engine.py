"""Score with TensorFlow in this process: the SavedModel's own graph, resizing and all, with its weights folded in."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from sat_xception.bulk.frozen import freeze
from sat_xception.bulk.scorer import Probabilities
from sat_xception.bulk.tiles import Pixels
from sat_xception.errors import DataError

__all__ = ["TensorFlowEngine"]


class TensorFlowEngine:
    """A frozen SavedModel on whatever device TensorFlow chooses. See `Engine`."""

    def __init__(self, version: Path, threads: int = 0) -> None:
        """Load a packaged version.

        Args:
            version: Its folder.
            threads: Cores to use; 0 is all. TensorFlow takes it only before its first operation.

        Raises:
            ModelError: It can't be loaded.
        """
        self.at_once = 1
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        self._model = freeze(version)

    def fit(self, pixels: Pixels) -> Pixels:
        """Return a tile as it is: the graph resizes."""
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
        """Let the model go."""
        del self._model
