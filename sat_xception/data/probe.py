"""Read the image of every tile on the bench, and write down what it is."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from sat_xception.data.folders import Candidate, Content
from sat_xception.data.images import probe_image
from sat_xception.data.manifest import ManifestRow
from sat_xception.data.split import stable_fraction
from sat_xception.data.workbench import Workbench
from sat_xception.errors import DataError
from sat_xception.log import track

__all__ = ["Read", "probe_tiles", "read_file"]

Read = Callable[[Candidate], Content]


def read_file(candidate: Candidate) -> Content:
    """Return the bytes of a candidate's file."""
    if candidate.path is None:
        raise ValueError(f"{candidate.id} has no file")
    try:
        return Content(candidate.path.read_bytes())
    except OSError as error:
        return Content(b"", "failed", f"can't be read: {error.strerror}")


def probe_tiles(bench: Workbench, read: Read, max_pixels: int, seed: int) -> None:
    """Read the images of all tiles that wait for it, a page at a time, and record what became of them.

    Args:
        bench: The tiles.
        read: Returns the bytes of a candidate's image. Called from several threads.
        max_pixels: Larger images are refused unread.
        seed: Decides, with their content, in which order tiles are stored.
    """

    def judge(candidate: Candidate) -> tuple[ManifestRow, float]:
        row = _probe(candidate, read, max_pixels)
        return row, stable_fraction(f"order:{row.sha256}", seed)

    progress = iter(track(range(len(bench)), "assemble", len(bench)))
    # Pillow lets go of the interpreter lock while it decodes: threads use all cores. They share the warnings' filters.
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for page in bench.waiting():
            judged = []
            for verdict in pool.map(judge, page):
                judged.append(verdict)
                next(progress, None)
            bench.record(judged)
    for _ in progress:  # tiles that weren't read, as their labels can't be used
        pass


def _probe(candidate: Candidate, read: Read, max_pixels: int) -> ManifestRow:
    row = ManifestRow(candidate.id, candidate.label, candidate.split, status="failed", source=candidate.source)
    content = read(candidate)
    if content.status == "failed":
        return dataclasses.replace(row, reason=content.reason)
    row = dataclasses.replace(row, sha256=hashlib.sha256(content.data).hexdigest(), bytes=len(content.data))
    try:
        facts = probe_image(content.data, max_pixels)
    except DataError as error:
        return dataclasses.replace(row, reason=str(error))
    return dataclasses.replace(
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
