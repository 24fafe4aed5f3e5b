"""Inspect the image of every staged tile, and record the result."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sat_xception.dataset.folders import FetchedImage, TileCandidate
from sat_xception.dataset.images import probe_image
from sat_xception.dataset.manifest import ManifestRow
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.dataset.split import stable_fraction
from sat_xception.dataset.staging import TileStaging
from sat_xception.errors import DataError
from sat_xception.imagery.beside import check_beside, owner_of
from sat_xception.log import track
from sat_xception.process import usable_cores

__all__ = ["Read", "probe_tiles", "read_file"]

Read = Callable[[TileCandidate], FetchedImage]


def read_file(candidate: TileCandidate) -> FetchedImage:
    """Return the bytes of a candidate's file, unless it is a GDAL sidecar file of another one."""
    if candidate.path is None:
        raise ValueError(f"{candidate.id} has no file")
    try:
        if owner := owner_of(candidate.path):
            return FetchedImage(b"", "failed", f"belongs to {owner.name} beside it, and is no tile of its own")
        check_beside(candidate.path)
        return FetchedImage(candidate.path.read_bytes())
    except OSError as error:
        return FetchedImage(b"", "failed", f"can't be read: {error.strerror}")
    except DataError as error:
        return FetchedImage(b"", "failed", str(error))


def probe_tiles(bench: TileStaging, read: Read, config: AssembleConfig) -> None:
    """Inspect the images of all waiting tiles, page by page, and record the results.

    Args:
        bench: Staged tiles.
        read: Returns the bytes of a candidate's image. Called from several threads.
        config: Settings with the limits of images, and the seed of the order of storage.
    """

    def judge(candidate: TileCandidate) -> tuple[ManifestRow, float, bytes]:
        row, fine = _probe(candidate, read, config)
        return row, stable_fraction(f"order:{row.sha256}", config.seed), fine

    progress = iter(track(range(len(bench)), "assemble", len(bench)))
    # Pillow releases the GIL while it decodes, so threads use all cores.
    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        for page in bench.waiting():
            judged = []
            for verdict in pool.map(judge, page):
                judged.append(verdict)
                next(progress, None)
            bench.record(judged)
    for _ in progress:  # count the tiles that aren't read because their labels can't be used
        pass


def _probe(candidate: TileCandidate, read: Read, config: AssembleConfig) -> tuple[ManifestRow, bytes]:
    """Return the manifest row of a tile, and its fine hash."""
    row = ManifestRow(candidate.id, candidate.label, candidate.split, status="failed", source=candidate.source)
    content = read(candidate)
    if content.status == "failed":
        return dataclasses.replace(row, reason=content.reason), b""
    row = dataclasses.replace(row, sha256=hashlib.sha256(content.data).hexdigest(), bytes=len(content.data))
    try:
        facts = probe_image(content.data, config.max_pixels, config.imagery_bands, config.scale)
    except DataError as error:
        return dataclasses.replace(row, reason=str(error)), b""
    row = dataclasses.replace(
        row,
        status=content.status,
        reason=content.reason,
        source_format=facts.source_format,
        format=facts.format,
        width=facts.width,
        height=facts.height,
        bytes=len(facts.data),
        mean_luma=facts.mean_luma,
        std_luma=facts.std_luma,
        phash=facts.phash,
    )
    return row, facts.fine
