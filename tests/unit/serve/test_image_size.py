from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sat_xception.serve.image_size import check_images, image_pixels
from sat_xception.serve.protocol import Code, RequestError


def encoded(width: int, height: int, form: str, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes that would be decoded to as many pixels as it says."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def animated(form: str) -> bytes:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "green", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (37, 5), (300, 200)])
@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {"progressive": True, "optimize": True}),
        ("JPEG", "CMYK", {"exif": b"Exif\0\0" + bytes(500), "comment": b"\xff\xd8\xff\xc0"}),
        ("PNG", "RGB", {}),
        ("PNG", "I;16", {}),
        ("GIF", "P", {"comment": b"a comment"}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"exif": b"Exif\0\0"}),
        ("BMP", "RGB", {}),
    ],
)
def test_the_size_is_the_one_that_pillow_says(width, height, form, mode, options):
    assert image_pixels(encoded(width, height, form, mode, **options)) == width * height


def test_what_is_no_image_is_left_to_the_model():
    for data in (b"", b"text", b"RIFF1234WAVE", bytes(100)):
        assert image_pixels(data) == 0
    check_images([b"text", "text", 7], max_pixels=1)


def test_a_bomb_is_refused_by_its_header_with_its_place():
    fine = png_that_claims(100, 100)
    check_images([fine], max_pixels=10_000)
    with pytest.raises(
        RequestError, match=r"image 1 has 2,500,000,000 pixels, the limit is 10,000.*--max-image-pixels"
    ):
        check_images([fine, png_that_claims(50_000, 50_000)], max_pixels=10_000)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (animated("GIF"), "several frames"),
        (b"\xff\x0a" + bytes(50), "JPEG XL"),
        (b"\xff\xd8\xff\xda" + bytes(20), "before a frame header"),
        (b"\xff\xd8\xff\xe0\x00\x10" + bytes(30), "it ends before its size"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "isn't IHDR"),
        (b"RIFF\0\0\0\0WEBPVP9 " + bytes(30), "no known kind"),
        (encoded(9, 9, "GIF", "P")[:20] + b"\x99" * 900, "GIF blocks|it ends"),
    ],
)
def test_an_image_whose_size_cannot_be_told_is_refused(data, reason):
    with pytest.raises(RequestError, match=reason) as caught:
        check_images([data], max_pixels=10**9)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_an_animated_webp_counts_by_its_canvas():
    assert image_pixels(animated("WEBP")) == 200


def test_a_damaged_header_ends_in_an_answer_whatever_it_holds():
    source = random.Random(0)
    whole = [
        encoded(30, 20, form, mode) for form, mode in (("JPEG", "RGB"), ("PNG", "RGB"), ("GIF", "P"), ("WEBP", "RGB"))
    ]
    for _ in range(4000):
        data = bytearray(source.choice(whole)[: source.randint(0, 400)])
        for _ in range(source.randint(0, 8)):
            if data:
                data[source.randrange(len(data))] = source.randrange(256)
        try:
            check_images([bytes(data)], max_pixels=10**6)
        except RequestError as error:
            assert error.code is Code.INVALID_ARGUMENT
