"""Image files as they come: every kind that people have, and every kind of damage."""

import io
import math
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from sat_xception.dataset.images import encode_for_tensorflow, probe_image
from sat_xception.errors import DataError

WIDTH, HEIGHT = 37, 23


def colours(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A picture with every kind of gradient and a bit of noise."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    noise = np.random.default_rng(0).integers(0, 32, (height, width))
    channels = [x * 255 // width, y * 255 // height, (x * y) % 224 + noise]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def wide() -> np.ndarray:
    """Grey of 16 bits, over the whole range."""
    return np.linspace(0, 65_535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)


def encoded(image: Image.Image, fmt: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def clear() -> Image.Image:
    """The picture, more and more transparent, nowhere wholly."""
    image = colours().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda value: max(value, 1)))
    return image


def big_endian() -> bytes:
    """A TIFF of 16-bit grey in the byte order of old machines, as GDAL writes with ENDIANNESS=BIG."""
    return encoded(Image.frombytes("I;16B", (WIDTH, HEIGHT), wide().astype(">u2").tobytes()), "TIFF")


# Kind: the bytes, Pillow's name of the format, what is stored.
KINDS = {
    "jpeg": (lambda: encoded(colours(), "JPEG"), "jpeg", "jpeg"),
    "jpeg-progressive": (lambda: encoded(colours(), "JPEG", progressive=True), "jpeg", "jpeg"),
    "jpeg-grey": (lambda: encoded(colours().convert("L"), "JPEG"), "jpeg", "jpeg"),
    "jpeg-cmyk": (lambda: encoded(colours().convert("CMYK"), "JPEG"), "jpeg", "png"),
    "jpeg-with-bytes-after-its-end": (lambda: encoded(colours(), "JPEG") + b"\0" * 99, "jpeg", "jpeg"),
    "png": (lambda: encoded(colours(), "PNG"), "png", "png"),
    "png-rgba": (lambda: encoded(clear(), "PNG"), "png", "png"),
    "png-grey": (lambda: encoded(colours().convert("L"), "PNG"), "png", "png"),
    "png-grey-alpha": (lambda: encoded(clear().convert("LA"), "PNG"), "png", "png"),
    "png-palette": (lambda: encoded(colours().quantize(64), "PNG"), "png", "png"),
    "png-palette-transparent": (
        lambda: encoded(colours().quantize(64), "PNG", transparency=b"\x80" * 64),
        "png",
        "png",
    ),
    "png-1-bit": (lambda: encoded(colours().convert("1"), "PNG"), "png", "png"),
    "png-with-bytes-after-its-end": (lambda: encoded(colours(), "PNG") + b"\0" * 99, "png", "png"),
    "webp-lossy": (lambda: encoded(colours(), "WEBP", quality=80), "webp", "webp"),
    "webp-lossless": (lambda: encoded(colours(), "WEBP", lossless=True), "webp", "webp"),
    "webp-rgba": (lambda: encoded(clear(), "WEBP", lossless=True), "webp", "png"),
    "tiff": (lambda: encoded(colours(), "TIFF"), "tiff", "png"),
    "tiff-deflate": (lambda: encoded(colours(), "TIFF", compression="tiff_deflate"), "tiff", "png"),
    "tiff-jpeg": (lambda: encoded(colours(), "TIFF", compression="jpeg"), "tiff", "png"),
    "tiff-rgba": (lambda: encoded(clear(), "TIFF"), "tiff", "png"),
    "tiff-grey": (lambda: encoded(colours().convert("L"), "TIFF"), "tiff", "png"),
    "tiff-1-bit": (lambda: encoded(colours().convert("1"), "TIFF"), "tiff", "png"),
    "tiff-palette": (lambda: encoded(colours().quantize(64), "TIFF"), "tiff", "png"),
    "tiff-cmyk": (lambda: encoded(colours().convert("CMYK"), "TIFF"), "tiff", "png"),
    "tiff-lab": (lambda: encoded(Image.new("LAB", (WIDTH, HEIGHT), (120, 90, 200)), "TIFF"), "tiff", "png"),
    "gif": (lambda: encoded(colours().quantize(64), "GIF"), "gif", "png"),
    "bmp": (lambda: encoded(colours(), "BMP"), "bmp", "png"),
    "jpeg2000": (lambda: encoded(colours(), "JPEG2000"), "jpeg2000", "png"),
}
WIDE_KINDS = {
    "png-16-bit": (lambda: encoded(Image.fromarray(wide()), "PNG"), "png", "png"),
    "tiff-16-bit": (lambda: encoded(Image.fromarray(wide()), "TIFF"), "tiff", "png"),
    "tiff-16-bit-big-endian": (big_endian, "tiff", "png"),
}


def rgb(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    return np.asarray((image.convert("RGBA") if image.mode == "P" else image).convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_and_its_facts_are_right(kind):
    make, source_format, stored_format = KINDS[kind]
    data = make()
    facts = probe_image(data)
    assert (facts.source_format, facts.format) == (source_format, stored_format)
    assert (facts.width, facts.height) == (WIDTH, HEIGHT)
    luma = rgb(data) @ (0.299, 0.587, 0.114)
    assert facts.mean_luma == pytest.approx(luma.mean(), abs=0.6)
    assert facts.std_luma == pytest.approx(luma.std(), abs=0.6)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_tensorflow_decodes_are_kept_and_others_converted_without_loss(kind):
    make, source_format, stored_format = KINDS[kind]
    data = make()
    stored, fmt = encode_for_tensorflow(data)
    assert fmt == stored_format
    assert (stored == data) is (source_format == stored_format)
    assert Image.open(io.BytesIO(stored)).format == stored_format.upper()
    np.testing.assert_array_equal(rgb(stored), rgb(data))
    assert encode_for_tensorflow(data)[0] == stored, "not the same twice"


def test_what_is_converted_carries_no_colour_profile():
    # Pillow makes one for Lab, with the time in it; a CMYK file's own would be wrong for RGB.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for image in (Image.new("LAB", (8, 8), (120, 90, 200)), colours().convert("CMYK"), colours()):
        data = encoded(image, "TIFF", icc_profile=profile)
        assert "icc_profile" in Image.open(io.BytesIO(data)).info
        assert "icc_profile" not in Image.open(io.BytesIO(encode_for_tensorflow(data)[0])).info


@pytest.mark.parametrize("kind", WIDE_KINDS)
def test_wide_pixels_are_scaled_as_the_settings_say_and_refused_without(kind):
    make, source_format, stored_format = WIDE_KINDS[kind]
    assert reason(make()).startswith("1 band of uint16: say which values become black and white (--imagery-scale")
    facts = probe_image(make(), scale=(0, 65_535))
    assert (facts.source_format, facts.format) == (source_format, stored_format)
    expected = np.round(wide() / 257)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(facts.data))), expected)
    assert facts.mean_luma == pytest.approx(127.5, abs=0.1)
    assert facts.std_luma == pytest.approx(255 / math.sqrt(12), rel=0.01)


@pytest.mark.parametrize("kind", [*KINDS, *WIDE_KINDS])
def test_the_models_own_decoder_reads_what_is_stored(kind):
    decode = pytest.importorskip("sat_xception.model.preprocess").decode
    make, *_ = {**KINDS, **WIDE_KINDS}[kind]
    scale = (0, 65_535) if kind in WIDE_KINDS else None
    stored = encode_for_tensorflow(make(), scale=scale)[0]
    np.testing.assert_array_equal(decode(stored).numpy(), rgb(stored if scale else make()))


@pytest.mark.parametrize(("level", "expected"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)])
def test_brightness_weighs_colours_as_the_eye_does(level, expected):
    facts = probe_image(encoded(Image.new("RGB", (8, 8), level), "PNG"))
    assert (facts.mean_luma, facts.std_luma) == (expected, 0)


# Pixels that aren't 8-bit colours


def raster(pixels: np.ndarray, driver: str = "GTiff", **options: object) -> bytes:
    """Write bands, `[n, h, w]`, as GDAL does."""
    rasterio = pytest.importorskip("rasterio")
    bands, height, width = pixels.shape
    profile = {"driver": driver, "width": width, "height": height, "count": bands, "dtype": pixels.dtype, **options}
    with warnings.catch_warnings(), rasterio.io.MemoryFile() as file:
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with file.open(**profile) as dataset:
            dataset.write(pixels)
        return bytes(file.getbuffer())


def reflectances(dtype: str, bands: int = 3) -> np.ndarray:
    """Return patches between 0 and 3000, as satellites' chips have them."""
    small = np.random.default_rng(0).integers(0, 3000, (bands, 3, 4))
    return small.repeat(8, 1).repeat(8, 2).astype(dtype)


def scaled(pixels: np.ndarray) -> np.ndarray:
    """Return what a scale of 0 to 3000 makes of pixels, `[h, w, n]`."""
    return np.moveaxis(np.round(pixels.astype(float) / 3000 * 255), 0, -1).squeeze()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 3])
def test_numbers_of_other_types_are_refused_with_what_they_are_or_scaled_as_the_settings_say(dtype, bands):
    pixels = reflectances(dtype, bands)
    data = raster(pixels)
    assert reason(data).startswith(
        f"{bands} band{'s' * (bands > 1)} of {dtype}: say which values become black and white"
    )
    facts = probe_image(data, scale=(0, 3000))
    assert (facts.source_format, facts.format) == ("tiff", "png")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(facts.data))), scaled(pixels))
    assert encode_for_tensorflow(data, scale=(0, 3000))[0] == facts.data


@pytest.mark.parametrize(("driver", "name"), [("PNG", "png"), ("JP2OpenJPEG", "jpeg2000")])
def test_16_bits_of_colour_are_found_in_every_format_that_has_them(driver, name):
    pixels = reflectances("uint16")
    data = raster(pixels, driver, **({"QUALITY": 100, "REVERSIBLE": "YES"} if name == "jpeg2000" else {}))
    assert reason(data).startswith("3 bands of uint16: say which values become black and white")
    facts = probe_image(data, scale=(0, 3000))
    assert (facts.source_format, facts.format) == (name, "png")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(facts.data))), scaled(pixels))


def test_many_bands_are_refused_with_what_they_are_until_three_are_named():
    pixels = reflectances("uint16", 13)
    data = raster(pixels)
    assert reason(data).startswith("13 bands of uint16: say which are red, green and blue (--imagery-bands 4")
    assert reason(data, scale=(0, 3000)).startswith("13 bands of uint16: say which are red, green and blue")
    assert reason(data, bands=(4, 3, 14)).startswith("bands 1 to 13, and --imagery-bands is 4,3,14")
    facts = probe_image(data, bands=(4, 3, 2), scale=(0, 3000))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(facts.data))), scaled(pixels[[3, 2, 1]]))
    five = reflectances("uint8", 5)
    assert reason(raster(five)).startswith("5 bands of uint8: say which are red, green and blue")
    facts = probe_image(raster(five), bands=(1, 2, 3))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(facts.data))), np.moveaxis(five[:3], 0, -1))


def test_numbers_that_are_none_are_empty():
    pixels = reflectances("float32")
    pixels[:, :, 20:] = np.nan
    assert reason(raster(pixels), scale=(0, 3000)) == "only 62.5% of the tile is in the imagery"
    pixels[:] = np.nan
    assert reason(raster(pixels), scale=(0, 3000)) == "no tile in the imagery"
    assert reason(raster(pixels.astype("complex64"))).startswith("3 bands of complex64: complex numbers are no picture")


def test_a_smaller_copy_in_a_tiff_is_no_second_image(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    path.write_bytes(raster(reflectances("uint8").repeat(16, 1).repeat(16, 2), crs="EPSG:3857",
                            transform=rasterio.Affine(1, 0, 0, 0, -1, 0)))  # fmt: skip
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    assert probe_image(path.read_bytes()).width == 32 * 16


# What is refused, and why


def reason(data: bytes, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        probe_image(data, **settings)
    return str(caught.value)


def test_an_empty_file_is_refused():
    assert reason(b"") == "the file is empty"


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html>404 Not Found</html>",
        b"{}",
        b"\0" * 1000,
        b"\xff\xd8",
        b"RIFF\0\0\0\0WEBP",
        encoded(colours(), "EPS"),
        encoded(colours(), "PDF"),
        encoded(colours(), "PPM"),
    ],
)
def test_what_is_no_image_is_refused_by_its_first_bytes(data):
    told = reason(data)
    assert told == f"not an image (starts with {data[:8]!r})"


def test_postscript_is_never_handed_to_a_program_outside(tmp_path, monkeypatch):
    witness = tmp_path / "ran"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {witness}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert reason(encoded(colours(), "EPS")).startswith("not an image")
    assert not witness.exists()


# All but those whose end is padding, and JPEG 2000, whose first layers are an image by themselves.
@pytest.mark.parametrize(
    "kind", [kind for kind in [*KINDS, *WIDE_KINDS] if "after-its-end" not in kind and kind != "jpeg2000"]
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_cut_short_is_refused(kind, share):
    make, *_ = {**KINDS, **WIDE_KINDS}[kind]
    data = make()
    told = reason(data[: int(len(data) * share)], scale=(0, 65_535))
    assert told.startswith(("can't be decoded: ", "not an image"))


def test_the_message_about_a_cut_file_says_so():
    for fmt, word in (("JPEG", "truncated"), ("PNG", "the end of the PNG is missing"), ("TIFF", "truncated")):
        data = encoded(colours(400, 400), fmt)
        assert word in reason(data[: len(data) // 2])


@pytest.mark.parametrize("missing", [1, 4, 8, 12])
def test_a_png_without_its_end_is_refused_as_tensorflow_refuses_it(missing):
    assert reason(encoded(colours(), "PNG")[:-missing]).startswith("can't be decoded: ")


def test_a_png_with_a_wrong_checksum_is_refused_as_tensorflow_refuses_it():
    data = bytearray(encoded(colours(), "PNG"))
    place = data.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", data[place - 8 : place - 4])
    data[place + length] ^= 1
    assert reason(bytes(data)).startswith("can't be decoded: ")


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (Image.fromarray(np.ones((4, 4), np.float32)), "1 band of float32: say which values"),
        (Image.fromarray(np.full((4, 4), -7, np.int32)), "1 band of int32: say which values"),
    ],
)
def test_numbers_that_no_png_holds_are_refused_with_advice(image, told):
    assert reason(encoded(image, "TIFF")).startswith(told)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_are_refused(fmt, count):
    frames = [colours().rotate(90 * turn) for turn in range(count)]
    data = encoded(frames[0], fmt, save_all=True, append_images=frames[1:])
    assert reason(data) == f"{count} frames; one image is expected"


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(9_000, 9_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_small_file_that_claims_to_be_huge_is_refused_unread(width, height):
    data = png_claiming(width, height)
    assert len(data) < 10_000
    assert "more than the limit of 64,000,000" in (told := reason(data)) or "exceeds limit" in told


def test_the_limit_of_pixels_is_inclusive():
    data = encoded(colours(), "PNG")
    assert probe_image(data, max_pixels=WIDTH * HEIGHT).width == WIDTH
    assert encode_for_tensorflow(data, max_pixels=WIDTH * HEIGHT)[0] == data
    assert reason(data, max_pixels=WIDTH * HEIGHT - 1) == "37 x 23 pixels, more than the limit of 850"


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000"])
def test_damage_of_any_kind_is_a_reason_and_never_another_error(fmt):
    image = colours().quantize(64) if fmt == "GIF" else colours()
    good, chance = encoded(image, fmt), random.Random(fmt)
    refused = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(min(len(data), chance.choice((60, len(data)))))] = chance.randrange(256)
        if chance.random() < 0.3:
            start = chance.randrange(len(data))
            del data[start : start + chance.randint(1, 40)]
        try:
            facts = probe_image(bytes(data), max_pixels=1_000_000)
        except DataError:
            refused += 1
        else:
            assert facts.width * facts.height <= 1_000_000
    assert refused > 20
