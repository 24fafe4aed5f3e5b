"""Tiles are decoded to the very pixels that the served model's graph decodes."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from sat_xception.errors import DataError
from sat_xception.imagery.check import CheckConfig, decode_tile
from sat_xception.imagery.decode import decode_image
from sat_xception.imagery.pixels import PixelType, pixel_type
from sat_xception.imagery.source import TileFailure
from tests.serving_fixtures import pixels_of

RGB = Image.fromarray(pixels_of(1, side=64)[0])
CLEAR = RGB.copy()
CLEAR.putalpha(Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64) | 1))
WIDE = Image.fromarray((np.arange(4096, dtype=np.uint16) * 16 + 7).reshape(64, 64))


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (RGB, {"format": "JPEG"}),
        (RGB, {"format": "JPEG", "subsampling": 0, "progressive": True}),
        (RGB.convert("L"), {"format": "JPEG"}),
        (RGB.convert("CMYK"), {"format": "JPEG"}),
        (RGB, {"format": "PNG"}),
        (RGB.quantize(32), {"format": "PNG", "transparency": b"\x80" * 32}),
        (CLEAR, {"format": "PNG"}),
        (CLEAR.convert("LA"), {"format": "PNG"}),
        (RGB, {"format": "WEBP"}),
    ],
)
def test_equal_to_the_graphs(image, options):
    import tensorflow as tf

    from sat_xception.model.preprocess import decode

    content = io.BytesIO()
    image.save(content, **options)
    found = decode_tile(content.getvalue(), CheckConfig(blank_std=-1.0)).pixels
    assert np.array_equal(found, decode(tf.constant(content.getvalue())).numpy())


def test_wide_pixels_are_scaled_as_the_settings_say_and_refused_without():
    content = io.BytesIO()
    WIDE.save(content, "PNG")
    with pytest.raises(TileFailure, match="1 band of uint16: say which values become black and white"):
        decode_tile(content.getvalue(), CheckConfig())
    found = decode_tile(content.getvalue(), CheckConfig(scale=(7, 65_527)))
    expected = np.round((np.asarray(WIDE).astype(float) - 7) / 65_520 * 255)
    assert np.array_equal(found.pixels, np.repeat(expected[..., np.newaxis], 3, axis=-1))


@pytest.mark.parametrize("big", [False, True])
def test_offsets_of_a_tiff_that_are_beyond_any_file_are_damage(big):
    content = io.BytesIO()
    WIDE.resize((8, 8)).save(content, "TIFF", big_tiff=big)
    good = content.getvalue()
    assert pixel_type(good) == PixelType(1, "uint16", False)
    for at in range(2, len(good)):
        data = good[:at] + b"\xff" * min(8, len(good) - at) + good[at + 8 :]
        assert isinstance(pixel_type(data), PixelType | None)
        try:
            decode_image(data, 10_000, None, (0, 65_535))
        except DataError as error:
            assert str(error)


def test_a_directory_that_ends_the_file_early_says_what_the_pixels_are_all_the_same():
    tags = {256: 8, 257: 8, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: 128}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    data = struct.pack("<2sHL", b"II", 42, 8 + 128) + bytes(range(128)) + struct.pack("<H", len(tags)) + entries
    whole = data + bytes(4)  # there is no further directory
    for cut in range(5):
        assert pixel_type(whole[: len(whole) - cut]) == PixelType(1, "uint16", False)
