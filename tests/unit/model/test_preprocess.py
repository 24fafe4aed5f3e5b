"""Pixels to model input: equal to Pillow to the bit, in graph and out of it."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sat_xception.model.preprocess import decode, decode_and_resize, resize


def picture(mode="RGB", size=(64, 40), seed=0):
    """Noise on a slope: neither flat, which hides rounding, nor pure noise, which JPEG destroys."""
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 200, size[0])[None, :, None] + np.zeros((size[1], 1, channels))
    pixels = np.clip(slope + rng.integers(0, 56, slope.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels.squeeze(), mode) if mode == "CMYK" else Image.fromarray(pixels.squeeze())


def encode(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def as_pillow_sees_it(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


FILES = {
    "jpeg": encode(picture(), "JPEG", quality=90),
    "jpeg, coarse": encode(picture(), "JPEG", quality=20),
    "jpeg, colours in full": encode(picture(), "JPEG", quality=95, subsampling=0),
    "jpeg, progressive": encode(picture(), "JPEG", progressive=True),
    "jpeg, grey": encode(picture("L"), "JPEG"),
    "jpeg, CMYK": encode(picture("RGB").convert("CMYK"), "JPEG"),
    "png": encode(picture(), "PNG"),
    "png, grey": encode(picture("L"), "PNG"),
    "png, grey with alpha": encode(picture("LA"), "PNG"),
    "png, RGBA": encode(picture("RGBA"), "PNG"),
    "png, palette": encode(picture().convert("P"), "PNG"),
    "png, black and white": encode(picture().convert("1"), "PNG"),
    "webp": encode(picture(), "WEBP"),
    "webp, lossless": encode(picture(), "WEBP", lossless=True),
    "gif": encode(picture(), "GIF"),
    "one pixel": encode(picture().crop((0, 0, 1, 1)), "PNG"),
}


@pytest.mark.parametrize("kind", FILES)
def test_decoding_equals_pillow_to_the_bit(kind):
    decoded = decode(tf.constant(FILES[kind]))
    assert decoded.dtype == tf.uint8
    np.testing.assert_array_equal(decoded, as_pillow_sees_it(FILES[kind]))


def test_real_tiles_decode_as_pillow_decodes_them(ucmerced):
    for path in sorted((ucmerced / "residential").iterdir())[:20]:
        data = path.read_bytes()
        np.testing.assert_array_equal(decode(tf.constant(data)), as_pillow_sees_it(data))


FILM = encode(picture(), "WEBP", save_all=True, append_images=[picture(seed=1)])
TRANSPARENT_FILM = encode(picture("RGBA"), "WEBP", save_all=True, append_images=[picture("RGBA", seed=1)])
REFUSED = {
    "nothing": b"",
    "too short for a header": b"RI",
    "a text": b"hello, world",
    "half a JPEG": FILES["jpeg"][: len(FILES["jpeg"]) // 2],
    "half a PNG": FILES["png"][: len(FILES["png"]) // 2],
    "half a WebP": FILES["webp"][: len(FILES["webp"]) // 2],
    "an animated WebP": FILM,
    "an animated WebP with transparency": TRANSPARENT_FILM,
    "an animated GIF": encode(picture(), "GIF", save_all=True, append_images=[picture(seed=1)]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_single_image_is_an_error_and_never_pixels(kind):
    for _ in range(5):  # a decoder that writes past its memory crashes sooner or later
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(tf.constant(REFUSED[kind]))


@pytest.fixture(scope="module")
def in_graph():
    return tf.function(lambda data: decode_and_resize(data, 32), input_signature=[tf.TensorSpec([], tf.string)])


@pytest.mark.parametrize("kind", FILES)
def test_in_a_graph_it_is_the_same_as_out_of_it(in_graph, kind):
    found = in_graph(tf.constant(FILES[kind]))
    assert found.shape == (32, 32, 3)
    np.testing.assert_array_equal(found, decode_and_resize(tf.constant(FILES[kind]), 32))


def test_a_graph_knows_the_shape_of_what_it_returns(in_graph):
    assert in_graph.get_concrete_function().output_shapes == (32, 32, 3)


def test_a_tile_that_has_the_size_already_stays_as_it_is():
    tile = np.asarray(picture(size=(256, 256)))
    resized = resize(tf.constant(tile), 256)
    assert resized.dtype == tf.uint8
    np.testing.assert_array_equal(resized, tile)


def test_making_it_smaller_averages_and_doesnt_pick_pixels():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    tile = np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)
    smaller = resize(tf.constant(tile), 16).numpy()
    assert abs(smaller.astype(int) - 127).max() <= 2


def test_resizing_is_near_to_pillows_bilinear_filter():
    image = picture(size=(256, 256))
    expected = np.asarray(image.resize((96, 96), Image.Resampling.BILINEAR)).astype(int)
    found = resize(tf.constant(np.asarray(image)), 96).numpy().astype(int)
    assert abs(found - expected).max() <= 1


def test_values_are_rounded_not_cut():
    tile = np.array([[0, 255], [0, 255]], dtype=np.uint8)[:, :, None].repeat(3, axis=2)
    assert resize(tf.constant(tile), 4).numpy()[0, :, 0].tolist() == [0, 64, 191, 255]  # 63.75 and 191.25


def test_a_batch_is_resized_as_its_tiles_are_one_by_one():
    tiles = np.stack([np.asarray(picture(seed=seed)) for seed in range(3)])
    together = resize(tf.constant(tiles), 24)
    np.testing.assert_array_equal(together, np.stack([resize(tf.constant(tile), 24) for tile in tiles]))
    assert resize(tf.constant(tiles[:0]), 24).shape == (0, 24, 24, 3)
