"""Files and folders, local or in a bucket: download inputs, publish results atomically."""

from __future__ import annotations

from sat_xception.storage.address import GcsPath, Stored, is_remote, stored_path
from sat_xception.storage.atomic import (
    list_files,
    read_stored_bytes,
    remove_empty_folder,
    remove_files,
    write_stored_bytes,
)
from sat_xception.storage.commit_marker import (
    check_writable,
    is_committed,
    marked_below,
    prepare_upload,
    remove_committed,
    upload_with_marker,
)
from sat_xception.storage.fetch import fetch_file, fetch_folder, fetch_settings, local_file, local_folder
from sat_xception.storage.files import facts_digest, file_digest, folder_digests, read_json, write_json
from sat_xception.storage.folder import atomic_folder, has_result
from sat_xception.storage.json_file import read_json_file, write_json_file
from sat_xception.storage.lock import file_lock, lock_open_file
from sat_xception.storage.scratch import partial_file, scratch_folder
from sat_xception.storage.writing import reporting_disk_errors, write_error

__all__ = [
    "GcsPath",
    "Stored",
    "atomic_folder",
    "check_writable",
    "facts_digest",
    "fetch_file",
    "fetch_folder",
    "fetch_settings",
    "file_digest",
    "file_lock",
    "folder_digests",
    "has_result",
    "is_committed",
    "is_remote",
    "list_files",
    "local_file",
    "local_folder",
    "lock_open_file",
    "marked_below",
    "partial_file",
    "prepare_upload",
    "read_json",
    "read_json_file",
    "read_stored_bytes",
    "remove_committed",
    "remove_empty_folder",
    "remove_files",
    "reporting_disk_errors",
    "scratch_folder",
    "stored_path",
    "upload_with_marker",
    "write_error",
    "write_json",
    "write_json_file",
    "write_stored_bytes",
]
