"""Tiles are decoded to the very pixels that the served model's graph decodes."""

import io

import numpy as np
import pytest
from PIL import Image

from sat_xception.imagery.check import CheckConfig, decode_tile
from tests.serving_fixtures import pixels_of

RGB = Image.fromarray(pixels_of(1, side=64)[0])
CLEAR = RGB.copy()
CLEAR.putalpha(Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)))
WIDE = Image.fromarray((np.arange(4096, dtype=np.uint16) * 16 + 7).reshape(64, 64))


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (RGB, {"format": "JPEG"}),
        (RGB, {"format": "JPEG", "subsampling": 0, "progressive": True}),
        (RGB.convert("L"), {"format": "JPEG"}),
        (RGB.convert("CMYK"), {"format": "JPEG"}),
        (RGB, {"format": "PNG"}),
        (RGB.quantize(32), {"format": "PNG", "transparency": 3}),
        (CLEAR, {"format": "PNG"}),
        (CLEAR.convert("LA"), {"format": "PNG"}),
        (WIDE, {"format": "PNG"}),
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
