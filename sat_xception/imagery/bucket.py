"""Tiles in a bucket: a prefix of `{z}/{x}/{y}.ext` objects."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from concurrent.futures import ThreadPoolExecutor

from sat_xception.errors import ConfigError
from sat_xception.imagery.files import south_row
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.imagery.source import MISSING, TileFailure
from sat_xception.imagery.web import TRANSIENT
from sat_xception.storage.address import RemotePath
from sat_xception.storage.store import AbsentError, Store, open_store

__all__ = ["BucketSource", "read_object"]

# Google's client library keeps 10 connections; more threads than those would throw some away.
_THREADS = 8
_TILE = re.compile(r"\d+/\d+/\d+(\.\w+)")
# Beside the tiles there may be a description or two; their names come after the digits.
_LOOK_AT = 1000


class BucketSource:
    """Objects `{z}/{x}/{y}.ext` below an address. They share one suffix, that of the first one listed."""

    def __init__(self, address: RemotePath, config: ImageryConfig) -> None:
        """Look for a first tile.

        Raises:
            ConfigError: There is no tile below the address, or no such bucket.
            ServiceError: The bucket can't be read.
        """
        self._config = config
        self.attribution = config.attribution
        self._prefix = f"{address.object}/" if address.object else ""
        self._host = address.bucket
        with open_store(address) as store, store.reporting("read", address):
            found = itertools.islice(store.list(self._prefix), _LOOK_AT)
            names = [one.name.removeprefix(self._prefix) for one in found]
        matches = [match for match in map(_TILE.fullmatch, names) if match]
        if not matches:
            others = f"the first object is {names[0]!r}" if names else "there are no objects"
            raise ConfigError(f"--imagery {address} has no {{z}}/{{x}}/{{y}}.jpg objects ({others}); name their folder")
        self._suffix = matches[0][1]
        self._opened = contextlib.ExitStack()
        self._store = self._opened.enter_context(open_store(address, retries=False, timeout_s=config.timeout_s))
        self._pool = ThreadPoolExecutor(_THREADS)

    def bounds(self) -> tuple[float, float, float, float] | None:
        """Return None: the bounds aren't known."""
        return None

    def host(self, x: int, y: int, z: int) -> str:
        """Return the bucket."""
        return self._host

    async def read(self, x: int, y: int, z: int) -> bytes:
        """Return the bytes of the tile's object."""
        row = south_row(y, z) if self._config.tms else y
        name = f"{self._prefix}{z}/{x}/{row}{self._suffix}"
        limit = self._config.max_bytes
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(self._pool, read_object, self._store, name, 0, limit + 1)
        if len(data) > limit:
            raise TileFailure(f"more than {limit:,} bytes")
        return data

    async def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown()
        self._opened.close()


def read_object(store: Store, name: str, offset: int, length: int) -> bytes:
    """Return a part of an object. The store is one without retries, since the fetcher has its own.

    Raises:
        TileFailure: There is no such object, or it couldn't be read.
    """
    try:
        return store.read_range(name, offset, length)
    except AbsentError:
        raise TileFailure(MISSING) from None
    except Exception as error:
        failure = store.failure(error)
        if failure is None:
            raise
        if failure.status:
            # Not its message, which holds the address.
            transient = failure.status in TRANSIENT
            raise TileFailure(f"HTTP {failure.status}", transient=transient) from error
        if failure.kind == "login":
            raise TileFailure(f"no credentials: {type(error).__name__}") from error
        reason = f"connection failed: {type(error).__name__}"
        raise TileFailure(reason, transient=True, unreachable=True) from error
