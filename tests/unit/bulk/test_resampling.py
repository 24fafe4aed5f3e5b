"""Tiles are resized to the very bytes that the served model's graph makes of them."""

import numpy as np
import pytest

from sat_xception.bulk.resampling import resized
from tests.serving_fixtures import pixels_of


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [
        (256, 256, 224),
        (256, 253, 224),
        (512, 512, 224),
        (64, 64, 224),
        (100, 30, 32),
        (1, 1, 8),
        (299, 299, 256),
        (257, 9, 31),
    ],
)
def test_equal_to_the_graphs(height, width, side):
    tf = pytest.importorskip("tensorflow")
    from sat_xception.model.preprocess import resize

    rng = np.random.default_rng(0)
    for pixels in (rng.integers(0, 256, (height, width, 3), np.uint8), np.full((height, width, 3), 255, np.uint8)):
        pixels.flags.writeable = False  # as Pillow gives them
        assert np.array_equal(resized(pixels, side), resize(tf.constant(pixels), side).numpy())


def test_a_tile_of_the_right_size_is_itself():
    (pixels,) = pixels_of(1)
    assert resized(pixels, len(pixels)) is pixels
