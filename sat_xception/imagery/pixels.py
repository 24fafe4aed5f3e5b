"""Read the pixel format of an image file from its header: decoders silently reduce wide pixels to 8 bits."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["PixelType", "TiffPage", "pixel_type", "tiff_pages", "why_unclear"]

# Colour type of a PNG to its number of bands (PNG specification, 11.2.2).
_PNG_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_JPEG2000_SIZE = b"\xff\x4f\xff\x51"
# Sample formats of a TIFF (TIFF 6, tag 339, and libtiff's tiff.h); 4 is "not said".
_TIFF_KINDS = {1: "uint", 2: "int", 3: "float", 4: "uint", 5: "complex", 6: "complex"}
# Bytes of the field types of a TIFF, and how `struct` reads those that hold whole numbers.
_FIELD_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_FIELD_CODES = {1: "B", 3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}
_MAX_PAGES, _MAX_FIELDS, _MAX_VALUES = 1000, 4096, 4096
_GREY, _RGB, _PALETTE, _CMYK, _ALPHAS = (0, 1), 2, 3, 5, (1, 2)
_ADVICE_SCALE = "which values become black and white (--imagery-scale 0 --imagery-scale 3000)"
_ADVICE_BANDS = "which are red, green and blue (--imagery-bands 4 --imagery-bands 3 --imagery-bands 2)"


@dataclass(frozen=True)
class PixelType:
    """Bands of an image, and whether every decoder makes the same 8-bit picture of them.

    Attributes:
        bands: Number of bands, transparency included.
        dtype: Type of a band, by NumPy's name.
        plain: 8 bits or fewer, unsigned: grey, a palette, or colours, with or without transparency.
    """

    bands: int
    dtype: str
    plain: bool


@dataclass(frozen=True)
class TiffPage:
    """What is needed of a directory of a TIFF.

    Attributes:
        bands: Number of bands.
        bits: Bits of each band.
        kind: "uint", "int", "float" or "complex".
        photometric: Tag 262.
        alphas: Bands of transparency.
        reduced: A smaller copy of another page.
        mask: Says which pixels of another page count.
        compressed: Tag 259 is anything but "none".
        nodata: GDAL's value of pixels that are empty (tag 42113), as text; "" without one.
    """

    bands: int
    bits: tuple[int, ...]
    kind: str
    photometric: int
    alphas: int
    reduced: bool
    mask: bool
    compressed: bool
    nodata: str

    @property
    def type(self) -> PixelType:
        """Return the type of its pixels."""
        widest = max(self.bits, default=1)
        visible = self.bands - self.alphas
        known = {_RGB: self.bands in (3, 4), _PALETTE: visible == 1, _CMYK: self.bands in (4, 5)}
        layout = visible == 1 if self.photometric in _GREY else known.get(self.photometric, self.bands == 3)
        plain = widest <= 8 and self.kind == "uint" and layout
        bits = next((bits for bits in (8, 16, 32, 64, 128) if bits >= widest), widest)
        return PixelType(self.bands, f"{self.kind}{bits}", plain)


def pixel_type(data: bytes) -> PixelType | None:
    """Return the type of an image's pixels; None for a format with 8 bits only, or if it isn't an image."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 25:
        depth, colour = data[24], data[25]
        return PixelType(_PNG_BANDS.get(colour, 1), "uint16" if depth == 16 else "uint8", depth != 16)
    if data[:2] in (b"II", b"MM"):
        page = next(tiff_pages(data), None)
        return page.type if page else None
    if data[4:8] == b"jP  " or data.startswith(_JPEG2000_SIZE):
        return _jpeg2000_type(data)
    return None


def why_unclear(bands: int, types: Sequence[str], chosen: bool, scaled: bool) -> str:
    """Return the settings that are missing to make a picture from bands; "" when nothing is missing.

    Args:
        bands: Number of bands in the file.
        types: Types of the bands, by NumPy's names.
        chosen: It is known which of them make the picture.
        scaled: It is known which values become black and white.
    """
    kinds = sorted(set(types))
    wide = kinds != ["uint8"]
    file = f"{bands} band{'' if bands == 1 else 's'} of {' and '.join(kinds)}"
    if any(kind.startswith("complex") for kind in kinds):
        return f"{file}: complex numbers are no picture; make one of their amplitude first"
    missing = [*([] if chosen else [_ADVICE_BANDS]), *([_ADVICE_SCALE] if wide and not scaled else [])]
    if not missing:
        return ""
    translate = "gdal_translate -ot Byte -scale" if wide else "gdal_translate -b 1 -b 2 -b 3"
    return f"{file}: say {' and '.join(missing)}, or convert to 8-bit RGB first ({translate})"


def tiff_pages(data: bytes) -> Iterator[TiffPage]:
    """Yield the directories of a TIFF or BigTIFF, as far as they can be read."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (version,) = _unpack(f"{order}H", data, 2)
        big = version == 43
        offset = _unpack(f"{order}{'Q' if big else 'L'}", data, 8 if big else 4)[0]
        seen: set[int] = set()
        while offset and offset not in seen and len(seen) < _MAX_PAGES:
            seen.add(offset)
            fields, offset = _fields(data, offset, order, big)
            yield _page(fields)
    except struct.error:
        return


def _fields(data: bytes, at: int, order: str, big: bool) -> tuple[dict[int, tuple[int, ...] | bytes], int]:
    """Return the fields of the directory at an offset, whole numbers and text only, and where the next directory is."""
    count_code, entry_bytes, value_at, value_code = ("Q", 20, 12, "Q") if big else ("H", 12, 8, "L")
    (count,) = _unpack(order + count_code, data, at)
    at += struct.calcsize(f"={count_code}")
    fields: dict[int, tuple[int, ...] | bytes] = {}
    for entry in range(at, at + min(count, _MAX_FIELDS) * entry_bytes, entry_bytes):
        tag, kind, values = _unpack(f"{order}HH{value_code}", data, entry)
        size = _FIELD_BYTES.get(kind, 0) * values
        start = entry + value_at
        if size > struct.calcsize(f"={value_code}"):
            (start,) = _unpack(order + value_code, data, start)
        if kind == 2:
            fields[tag] = data[start : start + size]
        elif kind in _FIELD_CODES and values <= _MAX_VALUES:
            fields[tag] = _unpack(f"{order}{values}{_FIELD_CODES[kind]}", data, start)
    try:
        (following,) = _unpack(order + value_code, data, at + count * entry_bytes)
    except struct.error:  # cut off there; what the directory says of its page counts all the same, as for libtiff
        following = 0
    return fields, following


def _unpack(code: str, data: bytes, at: int) -> tuple[int, ...]:
    """Return whole numbers at an offset, which in a damaged BigTIFF may be beyond what `struct` takes."""
    try:
        return struct.unpack_from(code, data, at)
    except OverflowError:
        raise struct.error(f"offset {at} is beyond any file") from None


def _page(fields: dict[int, tuple[int, ...] | bytes]) -> TiffPage:
    def numbers(tag: int, default: int) -> tuple[int, ...]:
        found = fields.get(tag)
        return found if isinstance(found, tuple) and found else (default,)

    bands, bits = numbers(277, 1)[0], numbers(258, 1)
    # Bands beyond those of the colour space are extra; some of them are transparency.
    extra = numbers(338, 0)
    kinds = {_TIFF_KINDS.get(kind, "uint") for kind in numbers(339, 1)}
    text = fields.get(42113, b"")
    subfile = numbers(254, 0)[0]
    return TiffPage(
        bands=bands,
        bits=bits,
        kind=next(iter(sorted(kinds - {"uint"})), "uint"),
        photometric=numbers(262, 1)[0],
        alphas=sum(kind in _ALPHAS for kind in extra),
        reduced=bool(subfile & 1),
        mask=bool(subfile & 4) or numbers(262, 1)[0] == 4,
        compressed=numbers(259, 1)[0] != 1,
        nodata=text.rstrip(b"\0 ").decode("latin-1") if isinstance(text, bytes) else "",
    )


def _jpeg2000_type(data: bytes) -> PixelType | None:
    """Read the SIZ segment of a JPEG 2000 codestream (ISO 15444-1, A.5.1)."""
    at = data.find(_JPEG2000_SIZE)
    if at < 0 or len(data) < at + 43:
        return None
    (bands,) = struct.unpack_from(">H", data, at + 40)
    depths = data[at + 42 : at + 42 + 3 * bands : 3]
    widest = max(((depth & 0x7F) + 1 for depth in depths), default=8)
    signed = any(depth & 0x80 for depth in depths)
    dtype = f"{'int' if signed else 'uint'}{8 if widest <= 8 else 16 if widest <= 16 else 32}"
    return PixelType(bands, dtype, widest <= 8 and not signed and bands <= 4)
