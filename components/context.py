"""The folder that images are built from: the Dockerfile, the locks, the licence, and the package as a wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from components.images import IMAGES, ROOT, build_files
from sat_xception.errors import ConfigError

__all__ = ["build_wheel", "make_context"]

# In place of the time of the build, so that the same code is the same bytes: 1 January 2020.
_TIMESTAMP = "1577836800"


def make_context(folder: Path) -> Path:
    """Fill an empty folder with what every image is built from, which depends on the code alone; return the folder.

    Raises:
        ConfigError: The wheel can't be built.
    """
    locks = dict.fromkeys(lock for layers in IMAGES.values() for lock in layers)
    for name, content in build_files(tuple(locks)):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    build_wheel(folder)
    # Docker copies the permissions too, which follow from the user's umask otherwise.
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def build_wheel(folder: Path) -> Path:
    """Build the wheel of the package with the locked builder of the development environment; return its path.

    Raises:
        ConfigError: The builder isn't installed, or refuses the project.
    """
    script = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    finished = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": _TIMESTAMP},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        reason = finished.stderr.strip().rpartition("\n")[2]
        raise ConfigError(f"the wheel of sat-xception can't be built: {reason}. `make setup` installs what builds it")
    return folder / finished.stdout.split()[-1]
