"""Draw the embedded sample's tiles and write them as class folders.

A tile depends on its label, its index and the seed alone, not on the number of tiles. The same versions of Pillow and
NumPy give the same bytes.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from sat_xception.errors import ConfigError
from sat_xception.log import track
from sat_xception.sample.scene import SIDE, Frame, Scene
from sat_xception.sample.sites import LOOKALIKES, draw_school
from sat_xception.sample.surroundings import surround

__all__ = ["DEFAULT_COUNTS", "SAMPLE_NAME", "SAMPLE_SEED", "draw_tile", "write_sample"]

SAMPLE_NAME = "synthetic sample"
SAMPLE_SEED = 2018
DEFAULT_COUNTS: Mapping[str, int] = MappingProxyType({"school": 260, "not-school": 340})

# Share of not-school tiles without a look-alike; models confuse the look-alikes. At 0.68 a MobileNetV2 with random
# initial weights has an accuracy of about 0.9 after 25 epochs; at 0.3 it had learned little by then (2026-11-22).
_SITELESS = 0.68


def draw_tile(label: str, index: int, seed: int = SAMPLE_SEED) -> Image.Image:
    """Return one synthetic satellite tile, RGB, 256 x 256, as if at zoom 18 (0.6 m per pixel).

    Args:
        label: "school" or "not-school".
        index: Number of the tile within its class, from 0.
        seed: Another seed gives other tiles.

    Raises:
        ConfigError: The sample has no such class, or the index is negative.

    Example:
        draw_tile("school", 0).save("school.png")
    """
    if index < 0:
        raise ConfigError(f"index {index} of class {label!r}: the sample's tiles are numbered from 0")
    _check(label)
    scene = Scene(_generator(label, index, seed))
    frame = Frame(
        x=SIDE / 2 + scene.between(-16, 16),
        y=SIDE / 2 + scene.between(-16, 16),
        angle=scene.between(0, 2 * math.pi),
        hand=scene.pick((-1, 1)),
    )
    if label != "school" and scene.chance(_SITELESS):
        surround(scene, frame, None)
        return scene.photograph()
    width, depth = scene.between(142, 190), scene.between(130, 174)
    surround(scene, frame, (width, depth))
    draw_site = draw_school if label == "school" else scene.pick(LOOKALIKES)
    draw_site(scene, frame, width, depth)
    return scene.photograph()


def write_sample(out: Path, counts: Mapping[str, int] = DEFAULT_COUNTS, seed: int = SAMPLE_SEED) -> int:
    """Write the sample as class folders: `OUT/<label>/<label>-0001.jpg` and so on.

    Args:
        out: Folder to write; it gets one folder per class.
        counts: Number of tiles of each class.
        seed: Another seed gives other tiles.

    Returns:
        The number of tiles written.

    Raises:
        ConfigError: The sample has no such class, or a count is negative.

    Example:
        write_sample(Path("sample"), {"school": 40, "not-school": 40})
    """
    for label, count in counts.items():
        _check(label)
        if count < 0:
            raise ConfigError(f"the sample can't have {count} tiles of class {label!r}; give 0 or more")
    for label in counts:
        (out / label).mkdir(parents=True, exist_ok=True)
    planned = [(label, index) for label, count in counts.items() for index in range(count)]
    for label, index in track(planned, "sample", len(planned)):
        # JPEG quality differs from tile to tile, as it does between providers and years.
        quality = 68 + zlib.crc32(f"{seed}/{label}/{index}".encode()) % 25
        draw_tile(label, index, seed).save(out / label / f"{label}-{index + 1:04d}.jpg", format="JPEG", quality=quality)
    return len(planned)


def _check(label: str) -> None:
    if label not in DEFAULT_COUNTS:
        raise ConfigError(f"the sample has no class {label!r}; its classes are {' and '.join(DEFAULT_COUNTS)}")


def _generator(label: str, index: int, seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64((seed, zlib.crc32(label.encode()), index)))
