"""Lock a folder during a review, so that it is neither published to nor reviewed by a second server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sat_xception.storage import file_lock, is_remote

__all__ = ["review_lock"]

_NAME = ".review.lock"


@contextlib.contextmanager
def review_lock(out: Path) -> Iterator[None]:
    """Lock a folder, if it exists, while the block runs; the system releases the lock if the process ends.

    Raises:
        ConfigError: Another process holds it, or it can't be written to.
    """
    if is_remote(out) or not (out / "publication.json").is_file():
        yield
        return
    held = f"{out} is being reviewed, or published to, by another process: stop that `sat_xception review` first"
    with file_lock(out / _NAME, held):
        yield
