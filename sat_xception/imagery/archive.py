"""Tiles of a PMTiles archive (specification 3), read in parts from a file, a web server or a bucket.

An archive is a directory of tiles, the directory's leaves, and the tiles. All of its metadata is checked
before it is believed: a damaged or hostile one costs a failed tile, not the memory.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import threading
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pmtiles.tile import (
    Compression,
    Entry,
    MagicNumberNotFound,
    SpecVersionUnsupported,
    TileType,
    deserialize_directory,
    deserialize_header,
    find_tile,
    zxy_to_tileid,
)

from sat_xception.errors import ConfigError, DataError, ServiceError
from sat_xception.imagery.ranges import Ranges
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.imagery.source import MISSING, TileFailure

__all__ = ["PMTilesSource"]

_HEADER_BYTES = 127
# Writers keep a directory at some thousand entries, which are tens of kilobytes.
_MAX_DIRECTORY_BYTES = 4_000_000
_MAX_DEPTH = 4
# About 100 bytes each in memory.
_KEPT_ENTRIES = 500_000
_IMAGES = (TileType.PNG, TileType.JPEG, TileType.WEBP)
_ENDLESS = re.compile(rb"[\x80-\xff]{10}")
_DAMAGED = "the archive is damaged"
# What the library raises when bytes aren't what they should be.
_BROKEN = (ValueError, IndexError, EOFError, OSError, zlib.error, RecursionError)


class _Header(NamedTuple):
    """Fields of an archive's header that are used here: offsets and lengths in bytes, bounds in 1e-7 degrees."""

    root_offset: int
    root_length: int
    metadata_offset: int
    metadata_length: int
    leaf_directory_offset: int
    tile_data_offset: int
    internal_compression: Compression
    tile_compression: Compression
    tile_type: TileType
    min_lon_e7: int
    min_lat_e7: int
    max_lon_e7: int
    max_lat_e7: int


class PMTilesSource:
    """A PMTiles archive of JPEG, PNG or WebP tiles."""

    def __init__(self, name: str, ranges: Ranges, config: ImageryConfig) -> None:
        """Read the archive's header and metadata.

        Args:
            name: What to call it in errors, without a token.
            ranges: Its bytes; closed with the source.
            config: Settings.

        Raises:
            ConfigError: It is no PMTiles archive, one of vector tiles, or can't be read in parts.
            DataError: It is damaged.
            ServiceError: It couldn't be read now.
        """
        self._ranges = ranges
        self._name = name
        self._max_bytes = config.max_bytes
        self._leaves: OrderedDict[int, list[Entry]] = OrderedDict()
        self._kept_entries = 0
        self._lock = threading.Lock()
        try:
            self._header = self._read_header()
            self._root = self._directory(self._header.root_offset, self._header.root_length)
            said = self._read_metadata().get("attribution", "")
        except TileFailure as failure:
            ranges.close()
            kind = ServiceError if failure.transient else DataError if failure.reason == _DAMAGED else ConfigError
            raise kind(f"--imagery {name} can't be read: {failure.reason}; see whether it is there and whole") from None
        except ConfigError:
            ranges.close()
            raise
        self.attribution = config.attribution or (said if isinstance(said, str) else "")
        self._pool = ThreadPoolExecutor(min(config.connections, 32))

    def _read_header(self) -> _Header:
        try:
            content = deserialize_header(self._ranges.read(0, _HEADER_BYTES))
            header = _Header(**{name: content[name] for name in _Header._fields})
        except MagicNumberNotFound:
            raise ConfigError(f"--imagery {self._name} is no PMTiles archive; give one of version 3") from None
        except SpecVersionUnsupported:
            raise ConfigError(
                f"--imagery {self._name} isn't of PMTiles version 3; convert it: pmtiles convert"
            ) from None
        except _BROKEN:
            raise TileFailure(_DAMAGED) from None
        if header.tile_type not in _IMAGES:
            kind = "vector tiles" if header.tile_type in (TileType.MVT, TileType.MLT) else "no images that are known"
            raise ConfigError(f"--imagery {self._name} holds {kind}; give an archive of JPEG, PNG or WebP tiles")
        if header.internal_compression not in (Compression.NONE, Compression.GZIP):
            way = header.internal_compression.name.lower()
            raise ConfigError(f"--imagery {self._name} has directories in {way}, not gzip; convert it: pmtiles convert")
        return header

    def _read_metadata(self) -> dict[str, Any]:
        metadata = self._part(self._header.metadata_offset, self._header.metadata_length)
        try:
            content = json.loads(metadata or b"{}")
        except _BROKEN:
            raise TileFailure(_DAMAGED) from None
        return content if isinstance(content, dict) else {}

    def bounds(self) -> tuple[float, float, float, float] | None:
        """Return the bounds in the header."""
        header = self._header
        ends = (header.min_lon_e7, header.min_lat_e7, header.max_lon_e7, header.max_lat_e7)
        west, south, east, north = (end / 1e7 for end in ends)
        return (west, south, east, north) if west < east and south < north else None

    def host(self, x: int, y: int, z: int) -> str:
        """Return "": an archive has only one server."""
        return ""

    async def read(self, x: int, y: int, z: int) -> bytes:
        """Return the tile's bytes."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, x, y, z)

    def _read(self, x: int, y: int, z: int) -> bytes:
        entry = self._find(zxy_to_tileid(z, x, y))
        if entry is None:
            raise TileFailure(MISSING)
        if entry.length > self._max_bytes:
            raise TileFailure(f"{entry.length:,} bytes, limit {self._max_bytes:,}")
        data = self._exactly(self._header.tile_data_offset + entry.offset, entry.length)
        if self._header.tile_compression == Compression.GZIP:
            data = _unzip(data, self._max_bytes)
        return data

    def _find(self, tile_id: int) -> Entry | None:
        directory = self._root
        for _ in range(_MAX_DEPTH):
            entry = find_tile(directory, tile_id)
            if entry is None or entry.run_length:
                return entry
            directory = self._leaf(self._header.leaf_directory_offset + entry.offset, entry.length)
        raise TileFailure(_DAMAGED)

    def _leaf(self, offset: int, length: int) -> list[Entry]:
        """Return a directory, from the cache if it was used recently."""
        with self._lock:
            if offset in self._leaves:
                self._leaves.move_to_end(offset)
                return self._leaves[offset]
        directory = self._directory(offset, length)
        with self._lock:
            if offset not in self._leaves:
                self._kept_entries += len(directory)
                self._leaves[offset] = directory
            while self._kept_entries > _KEPT_ENTRIES:
                self._kept_entries -= len(self._leaves.popitem(last=False)[1])
        return directory

    def _directory(self, offset: int, length: int) -> list[Entry]:
        content = self._part(offset, length)
        # No number takes more than nine bytes that say "more follows"; the library takes minutes to read longer ones.
        if _ENDLESS.search(content):
            raise TileFailure(_DAMAGED)
        try:
            directory: list[Entry] = deserialize_directory(gzip.compress(content, 0))
            return directory
        except _BROKEN:
            raise TileFailure(_DAMAGED) from None

    def _part(self, offset: int, length: int) -> bytes:
        """Return a directory or the metadata, decompressed."""
        if length > _MAX_DIRECTORY_BYTES:
            raise TileFailure(_DAMAGED)
        data = self._exactly(offset, length)
        if self._header.internal_compression == Compression.GZIP and data:
            return _unzip(data, _MAX_DIRECTORY_BYTES)
        return data

    def _exactly(self, offset: int, length: int) -> bytes:
        # Negative offsets and ones of more than 64 bits come from damaged directories.
        if offset < 0 or offset + length >= 1 << 63:
            raise TileFailure(_DAMAGED)
        data = self._ranges.read(offset, length) if length else b""
        if len(data) != length:
            raise TileFailure(_DAMAGED)
        return data

    async def close(self) -> None:
        """Close the archive."""
        self._pool.shutdown()
        self._ranges.close()


def _unzip(data: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = unpacker.decompress(data, limit)
    except zlib.error:
        raise TileFailure(_DAMAGED) from None
    if not unpacker.eof:
        raise TileFailure(_DAMAGED)
    return content
