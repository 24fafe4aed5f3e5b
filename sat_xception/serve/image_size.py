"""Read the size of encoded images from their headers, to refuse a decompression bomb before it is decoded.

Formats are recognised as TensorFlow's decoders do it (`ClassifyFileFormat` in its decode_image_op.cc), and each size is
read from the same header field as the decoder that would allocate the pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from sat_xception.serve.protocol import Code, RequestError

__all__ = ["check_images", "image_pixels"]

# Frame headers of JPEG (ITU-T T.81, table B.1): SOF0 to SOF15 without DHT, JPG and DAC, which lie between them.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length: TEM, RST0 to RST7 and SOI.
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
# JPEG XL isn't accepted, though TensorFlow 2.21 can decode it: its size is packed in bit fields.
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
_JPEG_ENDS = frozenset({0xD9, 0xDA})  # end of the image, start of its data


def check_images(values: Iterable[object], max_pixels: int) -> None:
    """Refuse images that are too large, animated, or damaged in front of their size.

    Values of no known image format are left to the model.

    Args:
        values: Encoded images, each bytes.
        max_pixels: Maximum of width times height.

    Raises:
        RequestError: INVALID_ARGUMENT, with the image's index.
    """
    for place, data in enumerate(values):
        if not isinstance(data, bytes):
            continue
        try:
            pixels = image_pixels(data)
        except (ValueError, IndexError, struct.error) as error:
            reason = str(error) if type(error) is ValueError else "it ends before its size"
            raise RequestError(Code.INVALID_ARGUMENT, f"image {place} can't be decoded: {reason}") from None
        if pixels > max_pixels:
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"image {place} has {pixels:,} pixels, the limit is {max_pixels:,}; send tiles, or serve with a larger "
                "--max-image-pixels",
            )


def image_pixels(data: bytes) -> int:
    """Return width times height of an encoded image; 0 if the format isn't one that TensorFlow recognises.

    Raises:
        ValueError: The header is damaged, or the image is animated.
        IndexError: The data is truncated.
        struct.error: The data is truncated.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_pixels(data)
    if data.startswith(b"\x89PNG"):
        if data[12:16] != b"IHDR":
            raise ValueError("its first PNG chunk isn't IHDR")
        width, height = struct.unpack_from(">II", data, 16)
        return int(width * height)
    if data.startswith(b"GIF8"):
        return _gif_pixels(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp_pixels(data)
    if data.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", data, 18)
        return int(width * abs(height))
    if data.startswith(_JPEG_XL):
        raise ValueError("it is JPEG XL; send JPEG, PNG or WebP")
    return 0


def _jpeg_pixels(data: bytes) -> int:
    place = 2
    while True:
        place = data.find(b"\xff", place)
        if place < 0:
            raise IndexError
        while data[place] == 0xFF:  # any number of fill bytes may precede a marker
            place += 1
        marker = data[place]
        place += 1
        if marker in _JPEG_ALONE or marker == 0:
            continue
        if marker in _JPEG_ENDS:
            raise ValueError("its JPEG data begins before a frame header with its size")
        (length,) = struct.unpack_from(">H", data, place)
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 3)
            return int(width * height)
        place += length


def _gif_pixels(data: bytes) -> int:
    """Return the pixels of the logical screen or of the frame, whichever is larger; several frames are an error."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    pixels, frames = width * height, 0
    place = 13 + _gif_colours(flags)
    while place < len(data) and data[place] != 0x3B:
        kind = data[place]
        if kind == 0x2C:
            frames += 1
            if frames > 1:
                raise ValueError("it has several frames, one image is expected")
            width, height, flags = struct.unpack_from("<HHB", data, place + 5)
            pixels = max(pixels, width * height)
            place += 10 + _gif_colours(flags) + 1  # descriptor, colour table, LZW code size
        elif kind == 0x21:
            place += 2
        else:
            raise ValueError("its GIF blocks are damaged")
        while data[place]:  # sub-blocks of data, each with its length; a length of 0 ends them
            place += 1 + data[place]
        place += 1
    return int(pixels)


def _gif_colours(flags: int) -> int:
    """Return the size of the colour table, in bytes."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp_pixels(data: bytes) -> int:
    """Return the pixels of one of WebP's three formats (RFC 9649, 2.5 to 2.7)."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
        if len(data) < 30:
            raise IndexError
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    else:
        raise ValueError("its WebP container is of no known kind")
    return int(width * height)
