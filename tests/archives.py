"""Archives of tiles for tests."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path


def write_mbtiles(path: Path, tiles: Mapping[tuple[int, int, int], bytes]) -> Path:
    """Write tiles, by zoom, column and row from the north, as MBTiles 1.3 has them: with rows from the south."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
        database.execute("CREATE TABLE tiles (zoom_level INT, tile_column INT, tile_row INT, tile_data BLOB)")
        database.execute("CREATE UNIQUE INDEX tile_index ON tiles (zoom_level, tile_column, tile_row)")
        rows = [(z, x, (1 << z) - 1 - y, data) for (z, x, y), data in tiles.items()]
        database.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
        facts = {"name": "test", "format": "png", "attribution": "© somebody", "bounds": "-75,4,-74,5"}
        database.executemany("INSERT INTO metadata VALUES (?, ?)", facts.items())
    return path
