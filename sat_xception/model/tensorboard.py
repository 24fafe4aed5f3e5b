"""Write the TensorBoard logs of a training."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from sat_xception.errors import ServiceError
from sat_xception.model.parts import Epoch
from sat_xception.reports.charts import confusion_png
from sat_xception.storage import reporting_disk_errors

__all__ = ["TensorBoardWriter"]

# The first steps trace and compile, so they aren't profiled.
_WARM_STEPS = 5
_SAMPLES = 8
_ADVICE = "free some, or name a folder on another disk with --tensorboard"
# A disk with less free space than this counts as full: one file system block, with a margin.
_FULL_BYTES = 1_000_000


class TensorBoardWriter:
    """TensorBoard logs of one phase, with the folders and names that Keras's TensorBoard callback uses.

    Args:
        folder: Parent of the folders `train` and `validation`.
        profiled: Number of steps to profile after the warm-up; 0 for none.
    """

    def __init__(self, folder: Path, profiled: int = 0) -> None:
        """Make the folders."""
        self._folder, self._profiled, self._steps = folder, profiled, 0
        self._logs = {"": _EventLog(folder / "train"), "val_": _EventLog(folder / "validation")}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Flush and close; an earlier error takes precedence over one from closing."""
        with contextlib.suppress(tf.errors.OpError) if error else contextlib.nullcontext():
            self._stop_profiling()
            for log in self._logs.values():
                log.writer.close()

    def add(self, row: Epoch) -> None:
        """Add an epoch.

        Raises:
            ServiceError: The row can't be written.
        """
        for prefix, log in self._logs.items():
            names = ["loss", "accuracy"] + (["learning_rate"] if not prefix else [])
            figures = {name: getattr(row, prefix + name) for name in names}
            shown = {name: value for name, value in figures.items() if value is not None}
            with log.adding(len(shown), row.epoch - 1):
                for name, value in shown.items():
                    tf.summary.scalar(f"epoch_{name}", value)

    def on_step(self) -> None:
        """Count a training step, and start or stop the profiler at its steps."""
        self._steps += 1
        if self._profiled and self._steps == _WARM_STEPS:
            tf.profiler.experimental.start(str(self._folder / "train"))
        elif self._steps == _WARM_STEPS + self._profiled:
            self._stop_profiling()

    def show_samples(self, images: npt.NDArray[np.uint8]) -> None:
        """Write augmented tiles `uint8 [n, s, s, 3]` as images."""
        with self._logs[""].adding(1, step=0):
            tf.summary.image("augmented tiles", images, max_outputs=_SAMPLES)

    def show_confusion(
        self, labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], classes: list[str]
    ) -> None:
        """Write the confusion matrix of the validation split as an image.

        Args:
            labels: `int64 [n]`.
            probabilities: `float32 [n, classes]`.
            classes: Class names in index order.
        """
        matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
        np.add.at(matrix, (labels, probabilities.argmax(axis=1)), 1)
        with self._logs["val_"].adding(1, step=0):
            picture = tf.image.decode_png(confusion_png(matrix.tolist(), classes), channels=3)
            tf.summary.image("confusion", picture[tf.newaxis])

    def _stop_profiling(self) -> None:
        if self._profiled and self._steps >= _WARM_STEPS:
            self._profiled = 0
            tf.profiler.experimental.stop()


class _EventLog:
    """An event file that checks after each write whether its events have arrived.

    TensorFlow's writer reports some failed writes, and silently drops the events of others. The file has the TFRecord
    format: a length of 8 bytes, its checksum of 4 bytes, the event, its checksum of 4 bytes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._expected = self._found = self._end = 0
        earlier = {*folder.glob("events.*")}
        with reporting_disk_errors(folder, _ADVICE):
            self.writer = tf.summary.create_file_writer(str(folder))
            (self._path,) = {*folder.glob(f"events.*.{os.getpid()}.*")} - earlier
        with self.adding(1, step=0):
            pass  # the writer adds an event with the version of the format

    @contextlib.contextmanager
    def adding(self, count: int, step: int) -> Iterator[None]:
        """Check after the block that the file has `count` more events.

        Raises:
            ServiceError: The disk is full, or events are missing.
        """
        with reporting_disk_errors(self._folder, _ADVICE):
            with self.writer.as_default(step=step):
                yield
            self.writer.flush()
            self._expected += count
            self._count()
            if self._found == self._expected:
                return
            if shutil.disk_usage(self._folder).free < _FULL_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        lost = f"{self._expected - self._found} of {self._expected} events"
        raise ServiceError(f"{lost} for TensorBoard are missing in {self._path}: is its disk full? {_ADVICE}")

    def _count(self) -> None:
        """Count the complete events, starting where the last count ended."""
        size = self._path.stat().st_size
        with self._path.open("rb") as file:
            while self._end + 16 <= size:
                file.seek(self._end)
                end = self._end + struct.unpack("<Q", file.read(8))[0] + 16
                if end > size:
                    return
                self._end, self._found = end, self._found + 1
