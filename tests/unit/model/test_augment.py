"""Other views of a tile: the symmetries of the square, and the same random ones for the same key."""

import numpy as np
import pytest
import tensorflow as tf

from sat_xception.model.augment import random_view, view

LOW, HIGH = 100, 150


def dihedral_group(tile):
    """All eight symmetries of a square array: quarter turns of it and of its mirror image."""
    return [np.rot90(face, turns) for face in (tile, np.fliplr(tile)) for turns in range(4)]


def same(arrays):
    return sorted(array.tobytes() for array in arrays)


@pytest.fixture
def tiles():
    return np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def marked():
    """A tile of two values in a pattern that no symmetry leaves as it is."""
    pattern = np.zeros((16, 16), dtype=bool)
    pattern[0:3, 0:8] = pattern[3:9, 0] = pattern[5, 12] = True
    return np.where(pattern, HIGH, LOW).astype(np.uint8)[:, :, None].repeat(3, axis=2)


def views_of(tile, count, key=(1, 2), crop=1.0):
    keys = tf.data.Dataset.range(count).map(
        lambda place: tf.stack([tf.constant(key[0], tf.int64), key[1] + 1000 * place])
    )
    views = keys.map(lambda one: random_view(tf.constant(tile), one, crop))
    return np.array(list(views.as_numpy_iterator()), np.uint8).reshape(count, *tile.shape)


def test_views_are_the_eight_symmetries_of_the_square(tiles):
    views = np.stack([view(tf.constant(tiles), index) for index in range(8)])
    assert views.dtype == np.uint8
    for number, tile in enumerate(tiles):
        assert same(views[:, number]) == same(dihedral_group(tile))
        assert len(set(same(views[:, number]))) == 8


def test_the_first_views_are_the_ones_that_are_promised(tiles):
    np.testing.assert_array_equal(view(tf.constant(tiles), 0), tiles)
    np.testing.assert_array_equal(view(tf.constant(tiles), 1), tiles[:, :, ::-1])
    np.testing.assert_array_equal(view(tf.constant(tiles), 2), tiles[:, ::-1, ::-1])


def test_the_same_key_gives_the_same_views_and_another_key_others(marked):
    np.testing.assert_array_equal(views_of(marked, 4, (1, 2)), views_of(marked, 4, (1, 2)))
    assert not np.array_equal(views_of(marked, 4, (1, 2)), views_of(marked, 4, (1, 3)))
    assert not np.array_equal(views_of(marked, 4, (1, 2)), views_of(marked, 4, (2, 2)))


def test_views_dont_depend_on_other_random_numbers(marked):
    tf.random.set_seed(1)
    first = views_of(marked, 4)
    tf.random.set_seed(2)
    np.testing.assert_array_equal(views_of(marked, 4), first)


def test_shape_and_dtype_stay(marked):
    for count in (0, 1, 3):
        found = views_of(marked, count)
        assert (found.shape, found.dtype) == ((count, 16, 16, 3), np.uint8)


def test_each_image_is_a_symmetry_of_itself_but_for_brightness_and_contrast(marked):
    found = views_of(marked, 200)
    symmetries = same((tile > LOW).astype(np.uint8) for tile in dihedral_group(marked))
    seen = set()
    for image in found:
        values, counts = np.unique(image, return_counts=True)
        assert len(values) == 2
        assert counts.tolist() == np.unique(marked, return_counts=True)[1].tolist()
        pattern = (image > values[0]).astype(np.uint8).tobytes()
        assert pattern in symmetries
        seen.add(pattern)
    assert len(seen) == 8  # each image has a chance of its own


def test_brightness_and_contrast_change_within_their_limits_and_use_them(marked):
    found = views_of(marked, 400).astype(float)
    shift = found.mean(axis=(1, 2, 3)) - marked.mean()
    stretch = (found.max(axis=(1, 2, 3)) - found.min(axis=(1, 2, 3))) / (HIGH - LOW)
    assert 15 < shift.max() <= 28 and -28 <= shift.min() < -15  # 25.5, and what the sampled mean is off
    assert 1.1 < stretch.max() <= 1.17 and 0.83 <= stretch.min() < 0.9


def test_white_and_black_stay_near_white_and_black():
    white, black = np.full((8, 8, 3), 255, dtype=np.uint8), np.zeros((8, 8, 3), dtype=np.uint8)
    assert views_of(white, 50).min() >= 229
    assert views_of(black, 50).max() <= 26


def test_a_cut_shows_so_much_of_the_tile_and_no_less_in_its_own_size():
    side, low, high = 64, 70, 180
    ramp = np.linspace(low, high, side).astype(np.uint8)
    across, down = np.meshgrid(ramp, ramp)
    tile = np.stack([across, down, np.full_like(across, 125)], axis=2)
    found = views_of(tile, 300, crop=0.5).astype(float)
    assert found.shape == (300, side, side, 3)
    spans = np.ptp(found, axis=(1, 2))[:, :2] / (high - low)
    # Contrast changes both spans by up to 15 %, and a turn swaps them.
    area, aspect = spans.prod(axis=1), spans[:, 0] / spans[:, 1]
    assert 0.5 * 0.85**2 - 0.03 < area.min() < 0.55 and 0.9 < area.max() < 1.15**2 + 0.03
    assert 0.76 < aspect.min() < 0.9 and 1.1 < aspect.max() < 1.31
    np.testing.assert_array_equal(views_of(tile, 5, crop=0.5), views_of(tile, 5, crop=0.5))
