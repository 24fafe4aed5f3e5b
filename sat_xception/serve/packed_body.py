"""Decompress a request's body, and refuse a truncated one."""

from __future__ import annotations

import zlib

from sat_xception.serve.protocol import Code, RequestError

__all__ = ["UnpackedTooLargeError", "unpack"]

_GZIP_BITS = 16 + zlib.MAX_WBITS
_ZLIB_METHOD = 8  # low four bits of a zlib header (RFC 1950); without them it is bare deflate, which some clients send


class UnpackedTooLargeError(Exception):
    """A body is larger than allowed after decompression."""


def unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return a decompressed body.

    Args:
        body: Body of the request.
        encoding: Value of Content-Encoding: gzip, deflate, identity, or "" if absent.
        max_bytes: Maximum size of the result.

    Raises:
        RequestError: INVALID_ARGUMENT: truncated, damaged, or another encoding.
        UnpackedTooLargeError: The result is larger than `max_bytes`.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise _invalid(f"its Content-Encoding is {encoding[:40]!r}; send gzip, deflate, or none")
    bits = _GZIP_BITS
    if encoding == "deflate":
        bits = zlib.MAX_WBITS if body[:1] and body[0] & 0xF == _ZLIB_METHOD else -zlib.MAX_WBITS
    unpacked = bytearray()
    while True:  # a gzip file may have several members (RFC 1952, 2.2)
        packer = zlib.decompressobj(bits)
        try:
            unpacked += packer.decompress(body, max_bytes + 1 - len(unpacked))
        except zlib.error as error:
            raise _invalid(f"it is no {encoding}: {error}") from None
        if len(unpacked) > max_bytes:
            raise UnpackedTooLargeError
        if not packer.eof:
            raise _invalid(f"its {encoding} is cut after {len(body):,} bytes; send it whole")
        body = packer.unused_data
        if not body:
            return bytes(unpacked)
        if bits != _GZIP_BITS:
            raise _invalid(f"{len(body):,} bytes follow its {encoding}")


def _invalid(what: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, f"the request's body can't be read: {what}")
