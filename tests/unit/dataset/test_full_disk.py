"""A disk that fills up while a step writes: a file system of one megabyte, which only the step's process sees."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.settings import AssembleConfig

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNT = 'mount -t tmpfs -o size=1m tmpfs "$1" && shift && "$@"; code=$?; ls -A "$0"; exit $code'


def on_a_small_disk(disk: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command with a small disk at a folder; its standard output ends with what was left on the disk."""
    command = [*UNSHARE, "sh", "-c", MOUNT, disk, disk, sys.executable, "-m", "sat_xception", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with an empty folder `disk`, and 3 MB of class folders `data`."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "disk").mkdir()
    probe = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", folder / "disk"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this system doesn't let us mount a file system of our own")
    for label in ("a", "b"):
        (folder / "data" / label).mkdir(parents=True)
        for index in range(8):
            pixels = np.random.default_rng([index, ord(label)]).integers(0, 256, (256, 256, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "data" / label / f"{index}.png")
    return folder


def check(finished: subprocess.CompletedProcess[str], out: Path, left: str = "") -> None:
    assert finished.returncode == 4, finished.stderr
    assert re.fullmatch(left, finished.stdout), finished.stdout
    last = finished.stderr.splitlines()[-1]
    assert last == f"error     no space left while writing {out}; free some, or name an --out on another disk"


def test_assemble_says_that_the_disk_is_full_and_leaves_nothing(place):
    out = place / "disk" / "dataset"
    check(on_a_small_disk(place / "disk", "assemble", "--data", place / "data", "--out", out), out)


def test_convert_says_that_the_disk_is_full_and_leaves_no_more_than_finished_files(place):
    dataset = assemble(AssembleConfig(data=str(place / "data"), out=place / "dataset")).folder
    out = place / "disk" / "examples"
    check(
        on_a_small_disk(place / "disk", "convert", "--dataset", dataset, "--out", out),
        out,
        r"\.examples-convert-\w{16}\n",
    )
