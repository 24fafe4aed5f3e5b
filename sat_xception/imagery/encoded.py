"""Check the bytes of an image file against the specification of its format.

Decoders differ in what they forgive: Pillow fills rows that are missing with black, TensorFlow stops. What passes here
is read by both. The rules are those of libpng, libjpeg and libwebp, and stricter where that costs nothing: a file that
is whole and not plain is stored anew.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

__all__ = ["find_damage", "is_plain"]

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# Channels by colour type, and the depths that each may have (PNG specification, 11.2.2).
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# libpng's limits: PNG_USER_WIDTH_MAX, and PNG_USER_CHUNK_MALLOC_MAX for chunks beside the pixels.
_PNG_MAX_SIDE, _PNG_MAX_CHUNK = 1_000_000, 8_000_000
_PNG_LAST_FILTER = 4
# First column, first row, and steps of Adam7's seven passes (PNG specification, 8.2).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# What TensorFlow's decoder knows of JPEG (ITU T.81, B.1.1.3): baseline, extended and progressive, with Huffman codes.
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
_JPEG_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
# Huffman and quantisation tables, the restart interval, application data and comments.
_JPEG_SEGMENTS = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_WEBP_ANIMATED, _WEBP_ALPHA = 0x02, 0x10


def find_damage(data: bytes) -> str:
    """Return the defect of a PNG that decoders may ignore; "" without one, and for other formats.

    A PNG says itself how many pixels it has, and sums up its chunks and its pixels, so damage can be detected reliably.
    """
    return _png_damage(data) if data.startswith(_PNG) else ""


def is_plain(data: bytes) -> bool:
    """Return whether TensorFlow decodes a file like other programs.

    Args:
        data: A JPEG, a PNG in which `find_damage` found nothing, or a WebP.
    """
    if data.startswith(_PNG):
        return _is_plain_png(data)
    if data[:3] == b"\xff\xd8\xff":
        return _is_plain_jpeg(data)
    return data[:4] == b"RIFF" and _is_plain_webp(data)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and length of the content of each chunk, up to the end of the image or of the file."""
    at = len(_PNG)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, at)
        yield kind, at + 8, length
        if kind == b"IEND":
            return
        at += length + 12


def _png_damage(data: bytes) -> str:
    if data[8:16] != b"\0\0\0\x0dIHDR" or len(data) < 33:
        return "the header of the PNG is damaged"
    width, height, depth, colour, method, filtering, interlace = struct.unpack_from(">LLBBBBB", data, 16)
    if depth not in _PNG_DEPTHS.get(colour, ()) or method or filtering or interlace > 1 or not width or not height:
        return "the header of the PNG is damaged"
    if max(width, height) > _PNG_MAX_SIDE:
        return f"{width} x {height} pixels; a PNG of more than {_PNG_MAX_SIDE:,} in a row or column can't be decoded"
    pixels: list[memoryview] = []
    view = memoryview(data)
    last = b""
    palette = 0
    for kind, start, length in _png_chunks(data):
        end = start + length
        if end + 4 > len(data):
            return "the end of the PNG is missing"
        name = kind.decode("latin-1")
        if zlib.crc32(view[start - 4 : end]) != struct.unpack_from(">L", data, end)[0]:
            return f"the checksum of the PNG's {name} chunk is wrong"
        if not kind.isalpha() or (kind[0:1].isupper() and kind not in _PNG_CRITICAL):
            return f"the PNG has a chunk {name!r}, which no decoder knows and without which none may show it"
        if (kind == b"IHDR") is not (last == b"") or (kind == b"IDAT" and pixels and last != b"IDAT"):
            return f"the PNG's {name} chunk is in the wrong place"
        if kind == b"PLTE":
            if palette or pixels or length % 3 or not 0 < length <= 3 * 256 or colour in (0, 4):
                return "the palette of the PNG is damaged"
            palette = length // 3
        if kind == b"IDAT":
            pixels.append(view[start:end])
        last = kind
    if last != b"IEND":
        return "the end of the PNG is missing"
    if colour == 3 and not palette:
        return "the palette of the PNG is missing"
    return _damage_of_rows(pixels, list(_png_rows(width, height, depth * _PNG_CHANNELS[colour], interlace)))


def _png_rows(width: int, height: int, bits: int, interlace: int) -> Iterator[tuple[int, int]]:
    """Yield number and bytes of the rows of each pass, a byte for the filter included."""
    for column, row, step, step_down in _ADAM7 if interlace else ((0, 0, 1, 1),):
        across, down = -(-(width - column) // step), -(-(height - row) // step_down)
        if across > 0 and down > 0:
            yield down, 1 + (across * bits + 7) // 8


def _damage_of_rows(pixels: list[memoryview], passes: list[tuple[int, int]]) -> str:
    """Unpack the pixels, and check that they are as many as the header says, with their sum and known filters."""
    expected = sum(count * size for count, size in passes)
    unpacker = zlib.decompressobj()
    parts = []
    try:
        found = 0
        for part in pixels:
            parts.append(unpacker.decompress(part, expected + 1 - found))
            found += len(parts[-1])
            if found > expected or unpacker.eof:
                break
    except zlib.error:
        return "the pixels of the PNG are damaged"
    if found != expected or not unpacker.eof:
        return (
            "the pixels of the PNG are cut short"
            if found < expected or not unpacker.eof
            else "the PNG has too many pixels"
        )
    rows = np.frombuffer(b"".join(parts), np.uint8)
    begin = 0
    for count, size in passes:
        if rows[begin : begin + count * size : size].max() > _PNG_LAST_FILTER:
            return "the pixels of the PNG are damaged"
        begin += count * size
    return ""


def _is_plain_png(data: bytes) -> bool:
    """Return whether chunks beside the pixels are such as libpng reads, and whether 8 bits hold what the pixels say."""
    small = all(length <= _PNG_MAX_CHUNK for _, _, length in _png_chunks(data))
    return small and data[24] != 16


def _is_plain_jpeg(data: bytes) -> bool:
    """Follow the markers of a JPEG (ITU T.81, annex B) to its end."""
    at, framed, scanned = 2, False, False
    while at + 4 <= len(data) or data[at : at + 2] == b"\xff\xd9":
        if data[at] != 0xFF:
            return False
        marker = data[at + 1]
        if marker == _JPEG_END:
            return framed and scanned
        (length,) = struct.unpack_from(">H", data, at + 2)
        if length < 2 or at + 2 + length > len(data):
            return False
        if marker in _JPEG_FRAMES:
            # One frame, of 8 bits, grey or coloured. Of four inks, TensorFlow takes dark for light where no Adobe
            # segment says which they are.
            if framed or length < 8 or data[at + 4] != 8 or data[at + 9] not in (1, 3):
                return False
            framed = True
        elif marker == _JPEG_SCAN:
            scanned = True
        elif marker not in _JPEG_SEGMENTS:
            return False
        at += 2 + length
        if marker == _JPEG_SCAN:
            at = _end_of_scan(data, at)
    return False


def _end_of_scan(data: bytes, at: int) -> int:
    """Return where the next marker is that ends a scan's data; stuffed bytes and restarts don't."""
    while (at := data.find(b"\xff", at)) >= 0:
        following = data[at + 1 : at + 2]
        if following and following != b"\0" and not 0xD0 <= following[0] <= 0xD7:
            return at
        at += 2
    return len(data)


def _is_plain_webp(data: bytes) -> bool:
    """Return whether a WebP is one picture without transparency, and its chunks fill the file (RFC 9649, 2)."""
    if len(data) < 20 or data[8:12] != b"WEBP" or struct.unpack_from("<L", data, 4)[0] + 8 != len(data):
        return False
    kinds, at = [], 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sL", data, at)
        kinds.append(kind)
        if at + 8 + length > len(data) or kind == b"ANIM":
            return False
        if kind == b"VP8X" and (length < 10 or data[at + 8] & (_WEBP_ANIMATED | _WEBP_ALPHA)):
            return False
        # In a lossless image, width - 1 and height - 1 take 14 bits each; the next bit is set for transparency.
        if kind == b"VP8L" and (length < 5 or struct.unpack_from("<L", data, at + 9)[0] >> 28):
            return False
        at += 8 + length + length % 2
    pictures = [kind for kind in kinds if kind in (b"VP8 ", b"VP8L")]
    return at == len(data) and len(pictures) == 1 and kinds[0] in (b"VP8X", b"VP8 ", b"VP8L")
