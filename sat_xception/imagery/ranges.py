"""Read parts of a large file on this machine, on a web server or in a bucket."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol

import httpx

from sat_xception.errors import ConfigError
from sat_xception.http_clients import quiet_http_clients, retry_after_s
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.imagery.source import TileFailure
from sat_xception.imagery.web import TRANSIENT, user_agent
from sat_xception.storage.address import RemotePath, remote_path

__all__ = ["Ranges", "open_ranges"]


class Ranges(Protocol):
    """A file that is read in parts; thread-safe."""

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes, fewer at the file's end.

        Raises:
            TileFailure: They couldn't be read.
        """

    def close(self) -> None:
        """Close connections and files."""


def open_ranges(uri: str, config: ImageryConfig) -> Ranges:
    """Open a path, an `https://` address or an address in a bucket; no request is sent yet.

    Raises:
        ConfigError: A local file can't be opened.
    """
    if uri.startswith(("http://", "https://")):
        return _WebRanges(uri, config)
    address = remote_path(uri)
    return _FileRanges(Path(uri)) if address is None else _BucketRanges(address, config)


class _FileRanges:
    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ConfigError(f"--imagery {path} can't be opened: {error.strerror}; check its permissions") from None

    def read(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._file, length, offset)
        except OSError as error:
            raise TileFailure(f"can't be read: {error.strerror}", transient=True) from error

    def close(self) -> None:
        os.close(self._file)


class _WebRanges:
    def __init__(self, url: str, config: ImageryConfig) -> None:
        self._url = url
        quiet_http_clients()
        limits = httpx.Limits(max_connections=config.connections, max_keepalive_connections=config.connections)
        headers = {"User-Agent": user_agent(config), "Accept-Encoding": "identity"}
        self._client = httpx.Client(
            http2=True, follow_redirects=True, timeout=config.timeout_s, limits=limits, headers=headers
        )

    def read(self, offset: int, length: int) -> bytes:
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        try:
            with self._client.stream("GET", self._url, headers=headers) as response:
                if response.status_code == 200:
                    raise TileFailure("the server sends whole files only, and not the byte ranges that are needed")
                if response.status_code == 416:
                    return b""
                if response.status_code != 206:
                    wait = retry_after_s(response.headers.get("Retry-After", ""))
                    transient = response.status_code in TRANSIENT
                    raise TileFailure(f"HTTP {response.status_code}", transient=transient, retry_after_s=wait)
                data = bytearray()
                for part in response.iter_bytes():
                    data += part
                    if len(data) > length:
                        raise TileFailure("the server sends more bytes than it was asked for")
                return bytes(data)
        except httpx.HTTPError as error:
            raise TileFailure(f"connection failed: {type(error).__name__}", transient=True, unreachable=True) from error

    def close(self) -> None:
        self._client.close()


class _BucketRanges:
    def __init__(self, address: RemotePath, config: ImageryConfig) -> None:
        from sat_xception.imagery.bucket import read_object
        from sat_xception.storage.store import open_store

        self._opened = contextlib.ExitStack()
        self._store = self._opened.enter_context(open_store(address, retries=False, timeout_s=config.timeout_s))
        self._name = address.object
        self._read = read_object

    def read(self, offset: int, length: int) -> bytes:
        return self._read(self._store, self._name, offset, length)

    def close(self) -> None:
        self._opened.close()
