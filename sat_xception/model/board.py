"""What TensorBoard shows of a training."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from sat_xception.evaluate.charts import confusion_png

__all__ = ["Board"]

# The first steps trace and compile; a profile of them says nothing of the others.
_WARM_STEPS = 5
_SAMPLES = 8


class Board:
    """TensorBoard's logs of one phase, in the folders and under the names that Keras's own callback gives them.

    Args:
        folder: Gets the folders `train` and `validation`.
        profiled: Steps to profile, once the first few have warmed up; 0 for none.
    """

    def __init__(self, folder: Path, profiled: int = 0) -> None:
        """Make the folders."""
        self._folder, self._profiled, self._steps = folder, profiled, 0
        self._writers = {
            "": tf.summary.create_file_writer(str(folder / "train")),
            "val_": tf.summary.create_file_writer(str(folder / "validation")),
        }

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Write what is left to write."""
        self._stop_profiling()
        for writer in self._writers.values():
            writer.close()

    def add(self, row: dict[str, Any]) -> None:
        """Add a row of the history."""
        for prefix, writer in self._writers.items():
            names = ["loss", "accuracy"] + (["learning_rate"] if not prefix else [])
            with writer.as_default(step=row["epoch"] - 1):
                for name in names:
                    if row[prefix + name] is not None:
                        tf.summary.scalar(f"epoch_{name}", row[prefix + name])

    def on_step(self) -> None:
        """Count a step of training; profile those that were asked for."""
        self._steps += 1
        if self._profiled and self._steps == _WARM_STEPS:
            tf.profiler.experimental.start(str(self._folder / "train"))
        elif self._steps == _WARM_STEPS + self._profiled:
            self._stop_profiling()

    def show_samples(self, images: npt.NDArray[np.uint8]) -> None:
        """Show tiles `uint8 [n, s, s, 3]` as the network sees them in training."""
        with self._writers[""].as_default(step=0):
            tf.summary.image("augmented tiles", images, max_outputs=_SAMPLES)

    def show_confusion(
        self, labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], classes: list[str]
    ) -> None:
        """Show which class of the validation split is taken for which.

        Args:
            labels: `int64 [n]`.
            probabilities: `float32 [n, classes]`.
            classes: Names in their order.
        """
        matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
        np.add.at(matrix, (labels, probabilities.argmax(axis=1)), 1)
        with self._writers["val_"].as_default(step=0):
            picture = tf.image.decode_png(confusion_png(matrix.tolist(), classes), channels=3)
            tf.summary.image("confusion", picture[tf.newaxis])

    def _stop_profiling(self) -> None:
        if self._profiled and self._steps >= _WARM_STEPS:
            tf.profiler.experimental.stop()
            self._profiled = 0
