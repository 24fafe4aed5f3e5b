"""One at a time: a folder that is being reviewed is neither published to nor reviewed by a second server."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sat_xception.errors import ConfigError
from sat_xception.storage import GcsPath

__all__ = ["review_lock"]

_NAME = ".review.lock"


@contextlib.contextmanager
def review_lock(out: Path) -> Iterator[None]:
    """Hold a folder, if it is there, for the length of a block; the system lets go of it when the process ends.

    Raises:
        ConfigError: Another process holds it.
    """
    if isinstance(out, GcsPath) or not (out / "publication.json").is_file():
        yield
        return
    with (out / _NAME).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{out} is being reviewed, or published to, by another process: stop that `sat_xception review` first"
            ) from None
        yield
