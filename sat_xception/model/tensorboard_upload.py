"""Copy the TensorBoard logs of a training to a bucket while it runs.

TensorBoard's event files grow at their end, and its readers wait for the rest of a last event that isn't complete. So a
growing file is copied as it is, and copied again when it has grown.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from sat_xception.errors import SatXceptionError
from sat_xception.log import get_logger
from sat_xception.storage import is_remote
from sat_xception.storage.store import open_store

__all__ = ["local_logs", "uploading_logs"]

_log = get_logger(__name__)
# Seconds between two copies: a file is written whole each time.
_EVERY_S = 30.0


def local_logs(asked: Path | None, out: Path) -> Path:
    """Return the local folder that the logs are written to.

    Args:
        asked: Folder or address in a bucket that the settings name, if any.
        out: Folder of the training's result.
    """
    return out / "tensorboard" if asked is None or is_remote(asked) else asked


@contextlib.contextmanager
def uploading_logs(folder: Path, asked: Path | None, every_s: float = _EVERY_S) -> Iterator[None]:
    """Copy what changes in a folder to a bucket while the block runs, and once more at its end.

    A copy that fails is a warning and is tried again; it never ends the training.

    Args:
        folder: Local folder, which may not exist yet.
        asked: Address in a bucket; for None or a local folder, nothing is copied.
        every_s: Seconds between two copies.
    """
    if asked is None or not is_remote(asked):
        yield
        return
    copies = _Copies(folder, asked)
    ended = threading.Event()

    def copy() -> None:
        while not ended.wait(every_s):
            copies.copy()

    thread = threading.Thread(target=copy, name="tensorboard-upload", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if not copies.copy():
            _log.warning("logs      the copy for TensorBoard at %s isn't complete", asked)


class _Copies:
    """The files of a folder, and which of them were copied."""

    def __init__(self, folder: Path, address: Path) -> None:
        self._folder, self._address = folder, address
        self._copied: dict[Path, tuple[int, int]] = {}
        self._failing = False

    def copy(self) -> bool:
        """Copy the files that are new or have changed; return whether all are in the bucket now."""
        try:
            waiting = [path for path in sorted(self._folder.rglob("*")) if path.is_file() and self._has_changed(path)]
            if waiting:
                self._put(waiting)
        except (SatXceptionError, OSError) as error:
            if not self._failing:
                _log.warning(
                    "logs      can't be copied to %s: %s; training goes on, and it is tried again", self._address, error
                )
            self._failing = True
        else:
            self._failing = False
        return not self._failing

    def _put(self, waiting: list[Path]) -> None:
        with open_store(self._address) as store, store.reporting("write", self._address):
            for path in waiting:
                state = _state(path)
                name = store.name_of(self._address / path.relative_to(self._folder))
                store.put(name, path.read_bytes(), patient=False)
                self._copied[path] = state

    def _has_changed(self, path: Path) -> bool:
        return self._copied.get(path) != _state(path)


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
