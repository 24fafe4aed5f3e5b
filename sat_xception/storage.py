"""Files and folders, here or in a bucket: fetch what is remote, publish results so that no half of one is ever seen."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from sat_xception.errors import ConfigError, DataError, ServiceError
from sat_xception.log import get_logger

__all__ = ["atomic_folder", "fetch_file", "file_digest", "folder_digests", "read_json", "write_json"]

_log = get_logger(__name__)
# How long a bucket is asked again, and how long a download may stand still.
_GCS_RETRY_S = 15
_GCS_TIMEOUT_S = 300
# One of these is in every folder that a step wrote.
_RECORDS = (
    "dataset.json",
    "examples.json",
    "anomalies.json",
    "train.json",
    "evaluation.json",
    "decision.json",
    "deployment.json",
)


@contextlib.contextmanager
def atomic_folder(out: Path, record: str = "") -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `out` when the block ends well, and vanishes when it doesn't.

    An earlier result at `out` is replaced, so a step that was interrupted or run before can be run again. A folder that
    holds anything else is left alone.

    Args:
        out: Folder to make.
        record: Name of the file that an earlier result of the same step holds. Default: any step's.

    Raises:
        ConfigError: `out` is a file, a mount point or somebody's folder, or can't be created.
        ServiceError: The disk is full.
    """
    target = out.resolve()
    try:
        _check_replaceable(out, target, (record,) if record else _RECORDS)
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ConfigError(f"can't write to {target.parent}: {error}; name another --out") from None
    work.chmod(0o755)
    try:
        yield work
        _replace(target, work)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ServiceError(f"no space left while writing {out}; free some, or name an --out on another disk") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_replaceable(out: Path, target: Path, records: tuple[str, ...]) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")
    if target.is_mount():
        raise ConfigError(f"--out {out} is a mount point, which can't be replaced; name a folder inside it")
    found = sorted(path.name for path in target.iterdir())
    if found and not any(name in records for name in found):
        raise ConfigError(
            f"--out {out} isn't an earlier result of this step (it holds {found[0]!r}) and would be replaced; "
            "name a new folder"
        )


def _replace(target: Path, work: Path) -> None:
    """Put `work` in the place of `target`, which is moved out of the way whole."""
    if not target.exists():
        os.replace(work, target)
        return
    old = tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent)
    os.replace(target, old)
    try:
        os.replace(work, target)
    except OSError:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def fetch_file(uri: str, cache: Path | None = None) -> Path:
    """Return a local path of a file that is named by a path or a `gs://bucket/object` address.

    Args:
        uri: Local path, or object in Google Cloud Storage. Credentials are the environment's own.
        cache: Folder for downloads. Default: `sat-xception` in the user's cache folder.

    Returns:
        Path of the file. A download that is complete and unchanged (same generation) is used again.

    Raises:
        ConfigError: There is no such file or object, `google-cloud-storage` isn't installed, or the cache can't be
            written.
        ServiceError: The bucket can't be read.
    """
    if not uri.startswith("gs://"):
        path = Path(uri).expanduser()
        if not path.is_file():
            raise ConfigError(f"no file at {uri} (seen from {Path.cwd()})")
        return path
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not bucket or not name or name.endswith("/"):
        raise ConfigError(f"{uri} names no object; expected gs://bucket/path/to/file")
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption
    except ImportError:
        raise ConfigError(f"reading {uri} needs google-cloud-storage: pip install 'sat-xception[gcs]'") from None
    try:
        return _download(bucket, name, cache or _cache_folder())
    except (GoogleAPIError, GoogleAuthError, DataCorruption, OSError) as error:
        reason = " ".join(str(error).split())
        raise ServiceError(
            f"can't read {uri}: {reason}. Check the network and the credentials (gcloud auth application-default login)"
        ) from None


def _cache_folder() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sat-xception"
    except RuntimeError:
        raise ConfigError(
            "there is no home folder to keep downloads in; set $XDG_CACHE_HOME to a writable folder"
        ) from None


def _download(bucket: str, name: str, cache: Path) -> Path:
    from google.cloud import storage
    from google.cloud.storage.retry import DEFAULT_RETRY

    uri, retry = f"gs://{bucket}/{name}", DEFAULT_RETRY.with_timeout(_GCS_RETRY_S)
    blob = storage.Client().bucket(bucket).get_blob(name, timeout=_GCS_RETRY_S, retry=retry)
    if blob is None:
        raise ConfigError(f"no object at {uri}; list what is there with: gcloud storage ls gs://{bucket}/")
    # A generation tells the versions of one object apart, not objects: two may share theirs and the end of their name.
    folder = cache / bucket / hashlib.sha256(name.encode()).hexdigest()[:16] / str(blob.generation)
    path = folder / PurePosixPath(name).name
    if path.is_file():
        return path
    _log.info("fetching  %s (%.1f MB)", uri, (blob.size or 0) / 1e6)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".part-", dir=folder)) / path.name
    except OSError as error:
        raise ConfigError(
            f"can't keep {uri} in {cache}: {error.strerror}; set $XDG_CACHE_HOME to a writable folder"
        ) from None
    try:
        blob.download_to_filename(str(partial), checksum="crc32c", timeout=_GCS_TIMEOUT_S, retry=retry)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial.parent, ignore_errors=True)
    return path


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path relative to the folder, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def write_json(path: Path, content: object) -> None:
    """Write JSON as people like to read and diff it: sorted keys, two spaces, a final newline."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Read a JSON object that an earlier step wrote.

    Args:
        path: The file.
        made_by: Verb of the step that writes it, for the message when it is missing.

    Raises:
        DataError: Missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: is {path.parent} a folder that `sat_xception {made_by}` wrote?") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}. Run `sat_xception {made_by}` again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected an object")
    return content
