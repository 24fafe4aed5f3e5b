"""Folders in a bucket with a commit marker: readers treat a folder as absent until its marker object exists.

TensorFlow Serving and KServe read a version of a model below its own name, so no `published.json` can say which objects
count. Instead one of the folder's own files, the marker, is written last and removed first: without it, it isn't there.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from sat_xception.errors import ConfigError
from sat_xception.log import get_logger, track
from sat_xception.storage.address import RemotePath
from sat_xception.storage.gcs import (
    TRANSFER_TIMEOUT_S,
    in_parallel,
    open_bucket,
    query_retry,
    reporting_gcs_errors,
    transfer_retry,
)

__all__ = ["is_committed", "marked_below", "remove_committed", "upload_with_marker"]

_log = get_logger(__name__)


def is_committed(address: RemotePath, marker: str) -> bool:
    """Return whether a folder is complete.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be read.
    """
    with open_bucket(address) as bucket, reporting_gcs_errors("read", address):
        return (
            bucket.get_blob(f"{address.object}/{marker}", timeout=TRANSFER_TIMEOUT_S, retry=query_retry()) is not None
        )


def marked_below(address: RemotePath, marker: str) -> list[RemotePath]:
    """Return the complete folders directly below an address, by name.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be read.
    """
    with open_bucket(address) as bucket, reporting_gcs_errors("read", address):
        below = f"{address.object}/"
        paths = [blob.name.removeprefix(below) for blob in bucket.list_blobs(prefix=below, retry=query_retry())]
    names = sorted(path.split("/")[0] for path in paths if path.split("/")[1:] == [marker])
    return [address / name for name in names]


def upload_with_marker(folder: Path, address: RemotePath, last: tuple[str, ...]) -> None:
    """Upload a folder atomically; remains of an interrupted upload are replaced.

    Args:
        folder: What to upload.
        address: Where to.
        last: Files of the folder that go after all others, in this order; the last one is the marker.

    Raises:
        ConfigError: There is no such bucket, or the folder there is whole already.
        ServiceError: The bucket can't be written.
    """
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    first = [path for path in paths if path not in last]
    with open_bucket(address) as bucket, reporting_gcs_errors("write", address):
        from google.api_core.exceptions import PreconditionFailed

        def upload(path: str, **condition: int) -> None:
            bucket.blob(f"{address.object}/{path}").upload_from_filename(
                str(folder / path),
                checksum="crc32c",
                timeout=TRANSFER_TIMEOUT_S,
                retry=transfer_retry(),
                **condition,
            )

        size = sum((folder / path).stat().st_size for path in paths)
        _log.info("publish   %s: %s files, %.1f MB", address, f"{len(paths):,}", size / 1e6)
        left = {blob.name.removeprefix(f"{address.object}/") for blob in _objects(bucket, address)}
        if last[-1] in left:
            raise ConfigError(f"{address} is there already, and never changes; name another address")
        _remove(bucket, address, left - set(paths))
        for _ in track(in_parallel(upload, first), "publish", len(first)):
            pass
        for path in last[:-1]:
            upload(path)
        try:
            upload(last[-1], if_generation_match=0)
        except PreconditionFailed:
            # An answer that got lost is asked for again, and finds our own marker.
            if bucket.blob(f"{address.object}/{last[-1]}").download_as_bytes() != (folder / last[-1]).read_bytes():
                raise ConfigError(f"somebody else published {address} while this ran; name another address") from None


def remove_committed(address: RemotePath, marker: str) -> None:
    """Remove a folder: its marker first, so that the rest isn't taken for a complete one.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be written.
    """
    with open_bucket(address) as bucket, reporting_gcs_errors("write", address):
        _remove(bucket, address, {marker})
        _remove(bucket, address, {blob.name.removeprefix(f"{address.object}/") for blob in _objects(bucket, address)})


def _objects(bucket: Any, address: RemotePath) -> list[Any]:  # noqa: ANN401 - the library has no types
    return list(bucket.list_blobs(prefix=f"{address.object}/", retry=query_retry()))


def _remove(bucket: Any, address: RemotePath, paths: set[str]) -> None:  # noqa: ANN401
    from google.api_core.exceptions import NotFound

    def remove(path: str) -> None:
        with contextlib.suppress(NotFound):
            bucket.blob(f"{address.object}/{path}").delete(timeout=TRANSFER_TIMEOUT_S, retry=query_retry())

    for _ in in_parallel(remove, sorted(paths)):
        pass
