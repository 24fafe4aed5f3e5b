"""Write a step's output folder, local or in a bucket, atomically."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.log import get_logger
from sat_xception.storage.address import RemotePath, is_remote
from sat_xception.storage.atomic import read_stored_bytes
from sat_xception.storage.pointer import POINTER, PendingResult, begin_result
from sat_xception.storage.scratch import new_folder, scratch_folder, sweep
from sat_xception.storage.store import open_store
from sat_xception.storage.writing import reporting_disk_errors, write_error

__all__ = ["atomic_folder", "has_result"]

_log = get_logger(__name__)
# One of these is in every folder that a step wrote.
_RECORDS = (
    "dataset.json",
    "examples.json",
    "anomalies.json",
    "train.json",
    "search.json",
    "evaluation.json",
    "decision.json",
    "deployment.json",
)


@contextlib.contextmanager
def atomic_folder(out: Path, record: str = "") -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `out` if the block ends without an error, else it is removed.

    An earlier result at `out` is replaced, so a step can be repeated. A folder with other content is refused.

    Args:
        out: Folder to create; if it is in a bucket, a temporary folder is filled and then published.
        record: Name of the file by which an earlier result of the same step is recognised. Default: that of any step.

    Raises:
        ConfigError: `out` is a file, a mount point or a folder with other content, or can't be created.
        ServiceError: The disk is full, or the bucket can't be written.
    """
    records = (record,) if record else _RECORDS
    with _published_folder(out, records) if is_remote(out) else _local_folder(out, records) as work:
        yield work


def has_result(folder: Path, record: str) -> bool:
    """Return whether a folder contains a complete result of `atomic_folder`.

    Args:
        folder: Local folder or address in a bucket.
        record: File that every such result holds.

    Raises:
        ConfigError: There is no such bucket.
        ServiceError: The bucket can't be read.
    """
    if is_remote(folder):
        return read_stored_bytes(folder / POINTER) is not None
    return (folder / record).is_file()


@contextlib.contextmanager
def _published_folder(out: RemotePath, records: tuple[str, ...]) -> Iterator[Path]:
    with open_store(out) as store:
        publication = begin_result(store, out, records)
        with scratch_folder() as work:
            advice = f"free some in {work.parent}, or set $TMPDIR to a folder on another disk"
            with reporting_disk_errors(out, advice):
                yield work
            _publish(publication, work, out)


def _publish(publication: PendingResult, work: Path, out: RemotePath) -> None:
    try:
        publication.publish(work)
    except ServiceError as error:
        # The work may have taken hours. In a container without a volume it is lost nevertheless.
        kept = work.rename(work.with_name(f"{work.name}-{out.name}"))
        raise ServiceError(f"{error}. What was made is kept in {kept}") from None


@contextlib.contextmanager
def _local_folder(out: Path, records: tuple[str, ...]) -> Iterator[Path]:
    target = out.resolve()
    advice = "free some, or name an --out on another disk"
    with contextlib.ExitStack() as made:
        try:
            _restore(target)
            _check_replaceable(out, target, records)
            target.parent.mkdir(parents=True, exist_ok=True)
            work = made.enter_context(scratch_folder(f".{target.name}-", target.parent))
        except OSError as error:
            raise write_error(error, f"to {target.parent}", advice, "name another --out") from None
        work.chmod(0o755)
        with reporting_disk_errors(out, advice):
            yield work
            _replace(target, work)


def _restore(target: Path) -> None:
    """Restore a result that a killed run had moved away; remove replaced ones."""
    left = sorted(
        target.parent.glob(f".{glob.escape(target.name)}-old-*-????????"), key=lambda path: path.stat().st_mtime
    )
    if left and not target.exists():
        os.replace(left[-1], target)
        _log.info("restored  %s, which a run that was killed had moved out of the way", target)
    sweep(target.parent, f".{target.name}-old-")


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
    """Replace `target` by `work`; the old `target` is moved away as a whole."""
    if not target.exists():
        os.replace(work, target)
        return
    old = new_folder(f".{target.name}-old-", target.parent)
    os.replace(target, old)
    try:
        os.replace(work, target)
    except OSError:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
