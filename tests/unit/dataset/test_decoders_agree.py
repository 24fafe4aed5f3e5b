"""Whatever is taken into a dataset, TensorFlow decodes: to the same pixels, however the file was damaged."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sat_xception.dataset.images import encode_for_tensorflow, probe_image
from sat_xception.errors import DataError
from sat_xception.imagery.check import CheckConfig, decode_tile
from sat_xception.imagery.source import TileFailure

SIDE = 48


def picture() -> Image.Image:
    """Forms and noise, `[48, 48]`."""
    rng = np.random.default_rng(0)
    forms = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((SIDE, SIDE))
    noisy = np.asarray(forms).astype(int) + rng.integers(-20, 20, (SIDE, SIDE, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def clear() -> Image.Image:
    image = picture()
    image.putalpha(128)
    return image


def encoded(image: Image.Image, fmt: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, fmt, **options)
    return content.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: list[bytes], pixels: bytes = b"", extra: bytes = b"", colour: int = 2, size=(SIDE, SIDE)) -> bytes:
    """Put a PNG together by hand: its rows, or its packed pixels, and chunks before them."""
    header = struct.pack(">IIBBBBB", *size, 8, colour, 0, 0, 0)
    pixels = pixels or zlib.compress(b"".join(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


COLOURS = [b"\0" + row.tobytes() for row in np.asarray(picture())]
NUMBERS = [b"\0" + (row[:, 0] % 16).tobytes() for row in np.asarray(picture())]
PACKED = zlib.compress(b"".join(COLOURS))


def webp_film_of_one_frame() -> bytes:
    def three(number: int) -> bytes:
        return struct.pack("<I", number)[:3]

    side = three(SIDE - 1)
    frame = three(0) * 2 + side * 2 + three(100) + b"\0" + encoded(picture(), "WEBP", quality=90)[12:]
    head = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + side * 2
    body = head + b"ANIM" + struct.pack("<I", 6) + b"\xff\xff\xff\xff\0\0" + b"ANMF" + struct.pack("<I", len(frame))
    return b"RIFF" + struct.pack("<I", len(body + frame)) + body + frame


# Files that Pillow reads and TensorFlow doesn't: why they are refused; "" where they are stored anew.
PICKY = {
    "rows are missing": (png(COLOURS[:30]), "the pixels of the PNG are cut short"),
    "one byte is missing": (png([*COLOURS[:-1], COLOURS[-1][:-1]]), "the pixels of the PNG are cut short"),
    "the sum of the pixels is missing": (png([], PACKED[:-4]), "the pixels of the PNG are cut short"),
    "the sum of the pixels is wrong": (png([], PACKED[:-4] + b"\0" * 4), "the pixels of the PNG are damaged"),
    "a filter that isn't known": (png([b"\5" + COLOURS[0][1:], *COLOURS[1:]]), "the pixels of the PNG are"),
    "an unknown critical chunk": (png(COLOURS, extra=chunk(b"ABCD", b"x")), "the PNG has a chunk 'ABCD'"),
    "no palette": (png(NUMBERS, colour=3), "the palette of the PNG is missing"),
    "a palette that ends within a colour": (
        png(NUMBERS, colour=3, extra=chunk(b"PLTE", bytes(range(47)))), "the palette of the PNG is damaged"),
    "a palette twice": (
        png(NUMBERS, colour=3, extra=chunk(b"PLTE", bytes(48)) * 2), "the palette of the PNG is damaged"),
    "the header twice": (
        png(COLOURS, extra=png(COLOURS)[8:33]), "the PNG's IHDR chunk is in the wrong"),
    "a very wide image": (
        png([bytes(3_000_004)], size=(1_000_001, 1)), "1000001 x 1 pixels; a PNG of more than 1,000,0"),
    "a film of one frame": (webp_film_of_one_frame(), ""),
    "a lossless WebP with transparency": (encoded(clear(), "WEBP", lossless=True), ""),
    "a JPEG of four inks": (encoded(picture().convert("CMYK"), "JPEG"), ""),
    "a long note": (png(COLOURS, extra=chunk(b"teXt", bytes(8_000_001))), ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", PICKY)
def test_what_tensorflow_cant_read_is_refused_or_stored_anew(kind):
    data, why = PICKY[kind]
    if why:
        for judge in (probe_image, lambda data: decode_tile(data, CheckConfig())):
            with pytest.raises((DataError, TileFailure), match=f"can't be decoded: {why}"):
                judge(data)
        return
    stored, fmt = encode_for_tensorflow(data)
    assert fmt == "png" and stored != data
    assert_equal_pixels(stored, data)


def assert_equal_pixels(stored: bytes, data: bytes) -> None:
    decode = pytest.importorskip("sat_xception.model.preprocess").decode
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decode(stored).numpy(), expected)


KINDS = {
    "JPEG": encoded(picture(), "JPEG"),
    "progressive JPEG": encoded(picture(), "JPEG", progressive=True),
    "JPEG with restarts": encoded(picture(), "JPEG", restart_marker_blocks=3),
    "grey JPEG": encoded(picture().convert("L"), "JPEG"),
    "JPEG of four inks": encoded(picture().convert("CMYK"), "JPEG"),
    "JPEG of red, green and blue": encoded(picture(), "JPEG", keep_rgb=True),
    "PNG": encoded(picture(), "PNG"),
    "PNG of a palette": encoded(picture().quantize(32), "PNG"),
    "PNG of 1 bit": encoded(picture().convert("1"), "PNG"),
    "PNG with transparency": encoded(picture().convert("RGBA"), "PNG"),
    "WebP": encoded(picture(), "WEBP"),
    "lossless WebP": encoded(picture(), "WEBP", lossless=True),
    "WebP with a note": encoded(picture(), "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "GIF": encoded(picture().quantize(32), "GIF"),
    "TIFF": encoded(picture(), "TIFF", compression="tiff_lzw"),
}


def damaged(good: bytes, chance: random.Random) -> bytes:
    """Flip bits, zero, cut, take out or put in bytes, anywhere or near the beginning."""
    data = bytearray(good)
    at = chance.randrange(len(data) if chance.random() < 0.6 else min(len(data), 200))
    match chance.choice(("flip", "zero", "cut", "take", "put")):
        case "flip":
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(at, len(data))] ^= 1 << chance.randrange(8)
        case "zero":
            length = min(chance.randint(1, 60), len(data) - at)
            data[at : at + length] = bytes(length)
        case "cut":
            del data[max(at, 1) :]
        case "take":
            del data[at : at + chance.randint(1, 20)]
        case "put":
            data[at:at] = chance.randbytes(chance.randint(1, 20))
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_the_judge_agrees_with_the_reader_on_damaged_files(kind):
    chance = random.Random(kind)
    taken = 0
    for _ in range(60):
        data = damaged(KINDS[kind], chance)
        try:
            stored, _ = encode_for_tensorflow(data, 1_000_000)
        except DataError:
            with pytest.raises(TileFailure):
                decode_tile(data, CheckConfig())
            continue
        taken += 1
        assert_equal_pixels(stored, data)
    assert taken < 60


def test_a_damaged_compressed_tiff_is_the_same_each_time_or_refused():
    chance = random.Random(7)
    large = picture().resize((200, 200), Image.Resampling.NEAREST)
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        good = encoded(large, "TIFF", compression=compression)
        for _ in range(25):
            data = damaged(good, chance)
            results = set()
            for filling in (1, 2, 3):
                np.full(200 * 200 * 3 * 2, filling, np.uint8)
                try:
                    results.add(probe_image(data, 1_000_000).data)
                except DataError as error:
                    results.add(str(error)[:20])
            assert len(results) == 1
