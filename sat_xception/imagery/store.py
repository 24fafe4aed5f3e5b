"""Store of fetched tiles, from which a killed run resumes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from sat_xception.errors import ServiceError

__all__ = ["FetchStore", "FetchedTile", "Status"]

Status = Literal["ok", "blank", "failed"]
_COLUMNS = "x, y, z, status, reason, data, format, transient"


@dataclass(frozen=True)
class FetchedTile:
    """The result of fetching one tile.

    Attributes:
        x: Column.
        y: Row, from the north.
        z: Zoom.
        status: "ok", "blank" or "failed".
        reason: Why it isn't ok; else "".
        data: The encoded image, as it came; empty when it failed.
        format: "jpeg", "png", …; empty when it failed.
        transient: It failed in a way that may pass: the next run asks again.
    """

    x: int
    y: int
    z: int
    status: Status
    reason: str = ""
    data: bytes = b""
    format: str = ""
    transient: bool = False


class FetchStore:
    """A SQLite file of finished tiles.

    With its write-ahead log, a tile is written atomically, even if the process is killed.
    """

    def __init__(self, folder: Path) -> None:
        """Open the store in a folder; a missing one is created."""
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(
                f"can't make the folder {folder} for fetched tiles: {error.strerror}; name another with --tile-cache"
            ) from None
        with self._telling_why():
            # SQLite serialises calls itself (sqlite3.threadsafety is 3), so tiles may be read from several threads.
            self._database = sqlite3.connect(folder / "fetched.sqlite", isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            # Enough against a kill; a power cut may cost the last tiles, never the file.
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS tiles (x INTEGER, y INTEGER, z INTEGER, status TEXT, reason TEXT, "
                "data BLOB, format TEXT, transient INTEGER, PRIMARY KEY (z, x, y))"
            )

    @contextlib.contextmanager
    def _telling_why(self) -> Iterator[None]:
        """Raise SQLite's errors as a `SatXceptionError`.

        Raises:
            ServiceError: The disk is full or read-only, or the file is damaged.
        """
        try:
            yield
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise ServiceError(
                    f"no room for more tiles in {self._folder}: free some, or give a folder on another disk with "
                    "--tile-cache, then run again: finished tiles are kept"
                ) from None
            damaged = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            advice = "remove that folder: its tiles are fetched anew" if damaged else "see whether it can be written to"
            raise ServiceError(f"the tiles in {self._folder} can't be read or written: {error}; {advice}") from None

    def get(self, x: int, y: int, z: int) -> FetchedTile | None:
        """Return a tile, or None if it wasn't fetched."""
        query = f"SELECT {_COLUMNS} FROM tiles WHERE z=? AND x=? AND y=?"
        with self._telling_why():
            row = self._database.execute(query, (z, x, y)).fetchone()
        return _tile(row) if row else None

    def outcome(self, x: int, y: int, z: int) -> tuple[Status, bool] | None:
        """Return a tile's status and whether its failure is transient, without reading its image."""
        query = "SELECT status, transient FROM tiles WHERE z=? AND x=? AND y=?"
        with self._telling_why():
            row = self._database.execute(query, (z, x, y)).fetchone()
        return (row[0], bool(row[1])) if row else None

    def put(self, tile: FetchedTile) -> None:
        """Store a tile, and replace an earlier record of it.

        Raises:
            ServiceError: The disk is full, or the file can't be written to.
        """
        row = (tile.x, tile.y, tile.z, tile.status, tile.reason, tile.data, tile.format, tile.transient)
        with self._telling_why():
            self._database.execute(f"INSERT OR REPLACE INTO tiles ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?)", row)

    def forget_failures(self) -> None:
        """Mark all failed tiles to be fetched again, whatever the reason was."""
        with self._telling_why():
            self._database.execute("DELETE FROM tiles WHERE status = 'failed'")

    def __iter__(self) -> Iterator[FetchedTile]:
        """Yield the tiles by zoom, column and row, one in memory at a time."""
        with self._telling_why():
            for row in self._database.execute(f"SELECT {_COLUMNS} FROM tiles ORDER BY z, x, y"):
                yield _tile(row)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()


def _tile(row: tuple[int, int, int, Status, str, bytes, str, int]) -> FetchedTile:
    x, y, z, status, reason, data, image_format, transient = row
    return FetchedTile(x, y, z, status, reason, data, image_format, bool(transient))
