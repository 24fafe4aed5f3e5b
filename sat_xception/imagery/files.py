"""Tiles on this machine: a folder of `{z}/{x}/{y}.ext` files, or an MBTiles file."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from sat_xception.errors import ConfigError, DataError
from sat_xception.imagery.beside import check_beside
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.imagery.source import MISSING, TileFailure

__all__ = ["FolderSource", "MBTilesSource", "south_row"]

_SUFFIXES = (".jpg", ".png", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".JPG", ".PNG", ".JPEG", ".TIF")


def south_row(y: int, z: int) -> int:
    """Return a row counted from the other end, as TMS does."""
    return (1 << z) - 1 - y


class FolderSource:
    """A folder of `{z}/{x}/{y}.ext` files."""

    def __init__(self, folder: Path, config: ImageryConfig) -> None:
        """Take the folder; nothing is listed, so that a million tiles cost nothing here."""
        self._folder = folder
        self._config = config
        self.attribution = config.attribution

    def bounds(self) -> tuple[float, float, float, float] | None:
        """Return None: the bounds of a folder aren't known."""
        return None

    def host(self, x: int, y: int, z: int) -> str:
        """Return "": it is all in one place."""
        return ""

    async def read(self, x: int, y: int, z: int) -> bytes:
        """Return the bytes of the tile's file."""
        return await asyncio.to_thread(self._read, x, south_row(y, z) if self._config.tms else y, z)

    def _read(self, x: int, y: int, z: int) -> bytes:
        for suffix in _SUFFIXES:
            path = self._folder / str(z) / str(x) / f"{y}{suffix}"
            try:
                size = path.stat().st_size
                if size > self._config.max_bytes:
                    raise TileFailure(f"{size:,} bytes, limit {self._config.max_bytes:,}")
                check_beside(path)
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise TileFailure(f"can't be read: {error.strerror}", transient=True) from error
            except DataError as error:
                raise TileFailure(str(error)) from error
        raise TileFailure(MISSING)

    async def close(self) -> None:
        """Nothing is held open."""


class MBTilesSource:
    """An MBTiles file (specification 1.3): a SQLite database whose rows are counted from the south."""

    def __init__(self, path: Path, config: ImageryConfig) -> None:
        """Check the file and read its metadata.

        Raises:
            ConfigError: It is no MBTiles file, or one of vector tiles.
        """
        self._uri = f"{path.resolve().as_uri()}?mode=ro"
        self._max_bytes = config.max_bytes
        self._of_thread = threading.local()
        self._opened: list[sqlite3.Connection] = []
        try:
            with closing(self._connect()) as database:
                database.execute("SELECT 1 FROM tiles LIMIT 1")
                rows = database.execute("SELECT name, value FROM metadata").fetchall()
        except (sqlite3.Error, OverflowError) as error:
            raise ConfigError(
                f"{path} is no MBTiles file, or a damaged one: {error}; make it again, or give the imagery as a folder"
            ) from error
        # A column of SQLite may hold anything.
        self._metadata = {name: value for name, value in rows if isinstance(name, str) and isinstance(value, str)}
        if self._metadata.get("format") == "pbf":
            raise ConfigError(f"{path} holds vector tiles; give a file of JPEG, PNG or WebP tiles")
        self.attribution = config.attribution or self._metadata.get("attribution", "")

    def _connect(self) -> sqlite3.Connection:
        # Closed by another thread than the one that opened it.
        return sqlite3.connect(self._uri, uri=True, check_same_thread=False)

    def _database(self) -> sqlite3.Connection:
        """Return the connection of this thread: opening one takes longer than reading a tile."""
        if not hasattr(self._of_thread, "database"):
            self._of_thread.database = self._connect()
            self._opened.append(self._of_thread.database)
        return self._of_thread.database  # type: ignore[no-any-return]

    def bounds(self) -> tuple[float, float, float, float] | None:
        """Return the bounds that the file states; None when it states none that can be read."""
        try:
            west, south, east, north = (float(part) for part in self._metadata["bounds"].split(","))
        except (KeyError, ValueError):
            return None
        return west, south, east, north

    def host(self, x: int, y: int, z: int) -> str:
        """Return "": it is all in one place."""
        return ""

    async def read(self, x: int, y: int, z: int) -> bytes:
        """Return the tile's bytes."""
        return await asyncio.to_thread(self._read, x, y, z)

    def _read(self, x: int, y: int, z: int) -> bytes:
        query = (
            "SELECT length(tile_data), substr(tile_data, 1, ?) FROM tiles "
            "WHERE zoom_level=? AND tile_column=? AND tile_row=?"
        )
        try:
            row = self._database().execute(query, (self._max_bytes, z, x, south_row(y, z))).fetchone()
        except sqlite3.Error as error:
            # A file that another program is writing is whole again in a moment; a damaged page isn't.
            busy = error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            raise TileFailure(f"can't be read: {error}", transient=busy) from error
        if row is None:
            raise TileFailure(MISSING)
        size, data = row[0] or 0, row[1] or b""  # SQLite makes NULL of no bytes
        if not isinstance(data, bytes):
            raise TileFailure("text instead of an image")
        if size > self._max_bytes:
            raise TileFailure(f"{size:,} bytes, limit {self._max_bytes:,}")
        return bytes(data)

    async def close(self) -> None:
        """Close the connections of all threads."""
        while self._opened:
            self._opened.pop().close()
