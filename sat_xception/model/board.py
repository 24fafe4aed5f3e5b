"""What TensorBoard shows of a training."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tensorflow as tf

__all__ = ["Board"]


class Board:
    """TensorBoard's logs of one phase, in the folders and under the names that Keras's own callback gives them.

    Args:
        folder: Gets the folders `train` and `validation`.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folders."""
        self._writers = {
            "": tf.summary.create_file_writer(str(folder / "train")),
            "val_": tf.summary.create_file_writer(str(folder / "validation")),
        }

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Write what is left to write."""
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
