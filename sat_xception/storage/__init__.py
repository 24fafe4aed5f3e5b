"""Files and folders, here or in a bucket: fetch what is remote, publish results so that no half of one is ever seen."""

from __future__ import annotations

from sat_xception.storage.address import GcsPath, Stored
from sat_xception.storage.atomic import get_file, list_files, put_file, remove_files
from sat_xception.storage.commit_marker import is_marked, marked_below, remove_marked, upload_marked
from sat_xception.storage.fetch import fetch_file, fetch_folder, fetch_settings
from sat_xception.storage.files import facts_digest, file_digest, folder_digests, read_json, write_json
from sat_xception.storage.folder import atomic_folder
from sat_xception.storage.json_file import read_record, write_record
from sat_xception.storage.scratch import partial_file, scratch_folder
from sat_xception.storage.writing import telling_of_the_disk, write_error

__all__ = [
    "GcsPath",
    "Stored",
    "atomic_folder",
    "facts_digest",
    "fetch_file",
    "fetch_folder",
    "fetch_settings",
    "file_digest",
    "folder_digests",
    "get_file",
    "is_marked",
    "list_files",
    "marked_below",
    "partial_file",
    "put_file",
    "read_json",
    "read_record",
    "remove_files",
    "remove_marked",
    "scratch_folder",
    "telling_of_the_disk",
    "upload_marked",
    "write_error",
    "write_json",
    "write_record",
]
