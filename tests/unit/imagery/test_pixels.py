"""Tiles are decoded to the very pixels that the served model's graph decodes."""

import io

import numpy as np
import pytest
from PIL import Image

from sat_xception.imagery.check import CheckConfig, decode_tile
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
