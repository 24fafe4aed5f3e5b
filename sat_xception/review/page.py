"""The review page: a folder of files that works from a disk, from a web server and with `sat_xception review`.

A page opened from a disk can't fetch other files, so the candidates are in a script.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pydantic import ValidationError

from sat_xception.errors import DataError, faults_of
from sat_xception.geo.sites import Sites
from sat_xception.reports.page import render_page
from sat_xception.review.data import ReviewData
from sat_xception.review.imagery import PageImagery, web_tiles
from sat_xception.review.settings import ReviewPageConfig
from sat_xception.storage.files import dump_json

__all__ = ["PageHead", "content_policy", "read_data", "review_data", "write_page"]

_STATIC = Path(__file__).parent / "static"
_DATA = "candidates.js"
_BEFORE, _AFTER = "window.REVIEW_DATA = ", ";\n"
# Number of tiles shown on each side of the best one: 5 x 5 tiles fill a screen.
_REACH = 2


class PageHead(NamedTuple):
    """What all candidates of a page have in common; see `ReviewData`.

    Attributes:
        label: The positive class.
        zoom: Zoom of the tiles.
        threshold: Decision threshold.
        model: Name and version of the model.
        compared: Whether the candidates were compared with known places.
    """

    label: str
    zoom: int
    threshold: float
    model: str
    compared: bool


def review_data(head: PageHead, table: pa.Table, sites: Sites, limit: int) -> ReviewData:
    """Return the candidates of a page, without its imagery.

    Args:
        head: Values that all candidates share.
        table: Candidates, as returned by `candidate_table`.
        sites: The same.
        limit: Maximum number of candidates on the page.
    """
    rows = table.slice(0, limit)
    columns = {name: rows[name].to_pylist() for name in ("x", "y", "score", "lon", "lat", "tiles")}
    beside, hidden = _tiles_beside(sites, len(rows))
    in_areas = rows["area"].to_pylist()
    names = sorted(set(in_areas) - {None})
    index_of = {name: index for index, name in enumerate(names)}
    keyed = json.dumps([head.label, head.zoom, columns["x"], columns["y"], beside])
    return ReviewData(
        label=head.label,
        zoom=head.zoom,
        threshold=head.threshold,
        model=head.model,
        total=len(table),
        areas=names,
        area=[index_of.get(name, -1) for name in in_areas] if names else [],
        **columns,
        known=[value == "known" for value in rows["comparison"].to_pylist()] if head.compared else [],
        distance_m=rows["distance_m"].to_pylist() if head.compared else [],
        beside=beside,
        hidden=hidden,
        key=hashlib.sha256(keyed.encode()).hexdigest()[:16],
    )


def _tiles_beside(sites: Sites, size: int) -> tuple[list[list[list[int]]], list[int]]:
    width = 1 << sites.zoom
    best = sites.first[sites.site]
    across = ((sites.x - sites.x[best] + width // 2) % width - width // 2).tolist()
    down = (sites.y - sites.y[best]).tolist()
    beside, hidden = [], []
    for first, count in zip(sites.first[:size].tolist(), sites.count[:size].tolist(), strict=True):
        places = [[across[tile], down[tile]] for tile in range(first + 1, first + count)]
        near = [place for place in places if max(map(abs, place)) <= _REACH]
        # A rectangle of tiles doesn't cross the edge of the grid: tiles beyond the 180th meridian aren't shown.
        inside = [place for place in near if 0 <= sites.x[first] + place[0] < width]
        beside.append(inside)
        hidden.append(len(places) - len(inside))
    return beside, hidden


def write_page(folder: Path, data: ReviewData, imagery: PageImagery, config: ReviewPageConfig) -> None:
    """Write the page, its candidates and its scripts.

    Args:
        folder: Folder to write; it may hold the tiles already.
        data: The candidates, with `images` where tiles were copied.
        imagery: Imagery that the page shows.
        config: Settings with the base map.
    """
    basemap = web_tiles(config.basemap, config.basemap_attribution, "--basemap") if config.basemap else None
    origins = {origin for tiles in (imagery.web, basemap) if tiles for origin in tiles.origins}
    shutil.copytree(_STATIC, folder, dirs_exist_ok=True)
    shown = {"attribution": imagery.attribution, "imagery": imagery.web, "basemap": basemap}
    text = dump_json(data.model_copy(update=shown).content(), ensure_ascii=False, separators=(",", ":"))
    (folder / _DATA).write_text(f"{_BEFORE}{text}{_AFTER}", encoding="utf-8")
    page = render_page("review", label=data.label, policy=content_policy(origins), model=data.model)
    (folder / "index.html").write_text(page, encoding="utf-8")


def content_policy(origins: set[str]) -> str:
    """Return the page's content security policy: its own files, and images from these servers."""
    pictures = " ".join(["'self'", "data:", *sorted(origins)])
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src {pictures}; base-uri 'none'; form-action 'none'"
    )


def read_data(out: Path) -> ReviewData:
    """Return the candidates on the page of a published folder.

    Raises:
        DataError: The page is missing or damaged.
    """
    path = out / "review" / _DATA
    try:
        text = path.read_text(encoding="utf-8")
        return ReviewData.model_validate_json(text.removeprefix(_BEFORE).removesuffix(_AFTER))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: is {out} a folder that `sat_xception bulk publish` wrote?") from None
    except ValidationError as error:
        first = faults_of(error)[0]
        raise DataError(
            f"{path} is damaged: {first.field or 'the file'}: {first.why}. Run `sat_xception bulk publish` again"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}. Run `sat_xception bulk publish` again") from None
