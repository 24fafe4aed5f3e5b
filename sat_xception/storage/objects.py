"""Single files in a bucket, which people read and edit where they are."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sat_xception.storage.address import GcsPath
from sat_xception.storage.gcs import TRANSFER_TIMEOUT_S, open_bucket, telling_why, transfer_retry

__all__ = ["put_file"]


def put_file(source: Path, address: GcsPath, keep_earlier: bool = False) -> None:
    """Upload a file in one step: whoever reads sees the earlier one, or this one.

    Args:
        source: Local file.
        address: The object.
        keep_earlier: Leave an object that is already there as it is.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be written.
    """
    with open_bucket(address) as bucket, telling_why("write", address):
        from google.api_core.exceptions import PreconditionFailed

        kept = contextlib.suppress(PreconditionFailed) if keep_earlier else contextlib.nullcontext()
        with kept:
            bucket.blob(address.object).upload_from_filename(
                str(source),
                checksum="crc32c",
                timeout=TRANSFER_TIMEOUT_S,
                retry=transfer_retry(),
                if_generation_match=0 if keep_earlier else None,
            )
