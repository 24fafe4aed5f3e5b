"""What TensorBoard gets of a training: read back with TensorBoard's own reader."""

import contextlib
import resource

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sat_xception.errors import ServiceError
from sat_xception.model.parts import Epoch
from sat_xception.model.tensorboard import TensorBoardWriter

FIGURES = {"loss": 0.5, "accuracy": 0.75, "learning_rate": 1e-3, "val_loss": None, "val_accuracy": 0.5}


def tags(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {tag for tag in events.Tags()["tensors"] if not tag.startswith("_")}, events


def test_a_phase_shows_its_figures_its_tiles_and_its_confusion(tmp_path):
    with TensorBoardWriter(tmp_path) as board:
        for epoch in (1, 2):
            board.add(Epoch(phase="head", epoch=epoch, **FIGURES))
        board.show_samples(np.zeros((3, 16, 16, 3), np.uint8))
        scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], np.float32)
        board.show_confusion(np.array([0, 1, 1]), scores, ["a", "b"])
    train, events = tags(tmp_path / "train")
    assert train == {"epoch_loss", "epoch_accuracy", "epoch_learning_rate", "augmented tiles"}
    rates = [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("epoch_learning_rate")]
    assert np.allclose(rates, [1e-3, 1e-3])
    assert len(tf.make_ndarray(events.Tensors("augmented tiles")[0].tensor_proto)) == 2 + 3  # the sizes come first
    valid, events = tags(tmp_path / "validation")
    assert valid == {"epoch_accuracy", "confusion"}, "a loss that is no number isn't shown"
    picture = tf.io.decode_png(tf.make_ndarray(events.Tensors("confusion")[0].tensor_proto)[2])
    assert picture.shape[2] == 3


def test_steps_are_profiled_once_the_first_are_over_and_only_when_asked(tmp_path):
    for name, profiled, steps in (("asked", 2, 9), ("few", 50, 7), ("not", 0, 9)):
        with TensorBoardWriter(tmp_path / name, profiled) as board:
            for _ in range(steps):
                tf.reduce_sum(tf.ones([8, 8])).numpy()
                board.on_step()
    profiles = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.xplane.pb")}
    assert profiles == {"asked", "few"}


@contextlib.contextmanager
def files_of_at_most(size):
    """Let no file of this process grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# TensorFlow's writer raises where the file's buffer can't be written out, and drops an event that doesn't fit into it.
@pytest.mark.parametrize("more", [0, 30, 70, 150, 4_000, 8_000])
def test_events_that_dont_get_into_the_file_are_an_error_at_once(tmp_path, more):
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    board = TensorBoardWriter(tmp_path)
    board.add(Epoch(phase="head", epoch=1, **FIGURES))
    size = max(path.stat().st_size for path in tmp_path.rglob("events.*"))
    told = r"(is larger than this system lets it be|for TensorBoard are missing in).*--tensorboard"
    with files_of_at_most(size + more), pytest.raises(ServiceError, match=told), board:
        board.show_samples(pictures)
        pytest.fail("the pictures are larger than the file may be")


def test_events_that_are_dropped_without_a_word_are_an_error(tmp_path, monkeypatch):
    with TensorBoardWriter(tmp_path) as board:
        board.add(Epoch(phase="head", epoch=1, **FIGURES))
        monkeypatch.setattr(tf.summary, "scalar", lambda name, value: None)
        with pytest.raises(ServiceError, match=r"3 of 7 events for TensorBoard are missing in .*is its disk full"):
            board.add(Epoch(phase="head", epoch=2, **FIGURES))
