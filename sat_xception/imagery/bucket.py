"""Tiles in a bucket of Google Cloud Storage: a prefix of `{z}/{x}/{y}.ext` objects."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sat_xception.errors import ConfigError
from sat_xception.imagery.files import south_row
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.imagery.source import MISSING, TileFailure
from sat_xception.imagery.web import TRANSIENT
from sat_xception.storage import GcsPath
from sat_xception.storage.gcs import open_bucket, query_retry, reporting_gcs_errors

__all__ = ["BucketSource", "read_object"]

# The client library keeps 10 connections; more threads than those would throw some away.
_THREADS = 8
_TILE = re.compile(r"\d+/\d+/\d+(\.\w+)")
# Beside the tiles there may be a description or two; their names come after the digits.
_LOOK_AT = 1000


class BucketSource:
    """Objects `{z}/{x}/{y}.ext` below an address. They share one suffix, that of the first one listed."""

    def __init__(self, address: GcsPath, config: ImageryConfig) -> None:
        """Look for a first tile.

        Raises:
            ConfigError: There is no tile below the address, or no such bucket.
            ServiceError: The bucket can't be read.
        """
        self._config = config
        self.attribution = config.attribution
        self._prefix = f"{address.object}/" if address.object else ""
        self._host = address.bucket
        with contextlib.ExitStack() as opened:
            self._bucket = opened.enter_context(open_bucket(address))
            with reporting_gcs_errors("read", address):
                blobs = self._bucket.list_blobs(prefix=self._prefix, retry=query_retry())
                names = [blob.name.removeprefix(self._prefix) for blob in itertools.islice(blobs, _LOOK_AT)]
            matches = [match for match in map(_TILE.fullmatch, names) if match]
            if not matches:
                found = f"the first object is {names[0]!r}" if names else "there are no objects"
                raise ConfigError(
                    f"--imagery {address} has no {{z}}/{{x}}/{{y}}.jpg objects ({found}); name their folder"
                )
            self._suffix = matches[0][1]
            self._opened = opened.pop_all()
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
        blob = self._bucket.blob(f"{self._prefix}{z}/{x}/{row}{self._suffix}")
        limit = self._config.max_bytes
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(self._pool, read_object, blob, 0, limit + 1, self._config.timeout_s)
        if len(data) > limit:
            raise TileFailure(f"more than {limit:,} bytes")
        return data

    async def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown()
        self._opened.close()


def read_object(blob: Any, offset: int, length: int, timeout_s: float) -> bytes:  # noqa: ANN401 - it has no types
    """Return a part of an object, without the library's retries, since the fetcher has its own.

    Raises:
        TileFailure: There is no such object, or it couldn't be read.
    """
    from google.api_core.exceptions import GoogleAPICallError, NotFound, RequestRangeNotSatisfiable
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from requests.exceptions import RequestException

    try:
        data = blob.download_as_bytes(start=offset, end=offset + length - 1, timeout=timeout_s, retry=None)
    except NotFound:
        raise TileFailure(MISSING) from None
    except RequestRangeNotSatisfiable:
        return b""
    except GoogleAPICallError as error:
        # Not its message, which holds the address.
        raise TileFailure(f"HTTP {error.code}", transient=error.code in TRANSIENT) from error
    except GoogleAuthError as error:
        raise TileFailure(f"no credentials: {type(error).__name__}") from error
    except (DataCorruption, InvalidResponse, RequestException, OSError) as error:
        raise TileFailure(f"connection failed: {type(error).__name__}", transient=True, unreachable=True) from error
    return bytes(data)
