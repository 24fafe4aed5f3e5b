"""What TensorBoard gets of a training: read back with TensorBoard's own reader."""

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sat_xception.model.board import Board


def tags(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {tag for tag in events.Tags()["tensors"] if not tag.startswith("_")}, events


def test_a_phase_shows_its_figures_its_tiles_and_its_confusion(tmp_path):
    row = {"loss": 0.5, "accuracy": 0.75, "learning_rate": 1e-3, "val_loss": None, "val_accuracy": 0.5}
    with Board(tmp_path) as board:
        for epoch in (1, 2):
            board.add({**row, "epoch": epoch})
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
        with Board(tmp_path / name, profiled) as board:
            for _ in range(steps):
                tf.reduce_sum(tf.ones([8, 8])).numpy()
                board.on_step()
    profiles = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.xplane.pb")}
    assert profiles == {"asked", "few"}
