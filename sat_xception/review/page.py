"""The review page: one folder of files that works from a disk, from a web server and from `sat_xception review`.

A page on a disk may not read other files, so the candidates are in a script.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from sat_xception.errors import DataError
from sat_xception.geo.sites import Sites
from sat_xception.reports.page import render_page
from sat_xception.review.imagery import PageImagery, WebTiles, web_tiles
from sat_xception.review.settings import ReviewPageConfig
from sat_xception.storage.files import dump_json

__all__ = ["content_policy", "read_data", "review_data", "write_page"]

_STATIC = Path(__file__).parent / "static"
_DATA = "candidates.js"
_BEFORE, _AFTER = "window.REVIEW_DATA = ", ";\n"
# Tiles to each side of the best one that are shown: 5 x 5 tiles fill a screen.
_REACH = 2


def review_data(description: Mapping[str, Any], table: pa.Table, sites: Sites, most: int) -> dict[str, Any]:
    """Return what the page shows, as JSON types; of candidates a list a column, the best first.

    `beside` has the place of a candidate's other tiles, counted from the best one, as far as they are shown; `hidden`
    how many aren't, because they are more than two tiles away from it.

    Args:
        description: Content of `publication.json`.
        table: Candidates, as `candidate_table` makes them.
        sites: The same.
        most: How many of them to take.
    """
    rows = table.slice(0, most)
    beside, hidden = _tiles_beside(sites, len(rows))
    names = sorted(set(rows["area"].to_pylist()) - {None})
    place = {name: index for index, name in enumerate(names)}
    data: dict[str, Any] = {
        "label": description["positive_label"],
        "zoom": description["zoom"],
        "threshold": description["threshold"],
        "model": f"{description['model']['name']} version {description['model']['version']}",
        "total": len(table),
        "areas": names,
        "area": [place.get(name, -1) for name in rows["area"].to_pylist()] if names else [],
        **{name: rows[name].to_pylist() for name in ("x", "y", "score", "lon", "lat", "tiles")},
        "known": [value == "known" for value in rows["comparison"].to_pylist()] if description["known"] else [],
        "distance_m": rows["distance_m"].to_pylist() if description["known"] else [],
        "beside": beside,
        "hidden": hidden,
    }
    places = json.dumps([data[name] for name in ("label", "zoom", "x", "y", "beside")])
    data["key"] = hashlib.sha256(places.encode()).hexdigest()[:16]
    return data


def _tiles_beside(sites: Sites, size: int) -> tuple[list[list[list[int]]], list[int]]:
    width = 1 << sites.zoom
    best = sites.first[sites.site]
    across = ((sites.x - sites.x[best] + width // 2) % width - width // 2).tolist()
    down = (sites.y - sites.y[best]).tolist()
    beside, hidden = [], []
    for first, count in zip(sites.first[:size].tolist(), sites.count[:size].tolist(), strict=True):
        places = [[across[tile], down[tile]] for tile in range(first + 1, first + count)]
        near = [place for place in places if max(map(abs, place)) <= _REACH]
        # A rectangle of tiles never crosses the edge of the grid: what is beyond the 180th meridian isn't shown.
        inside = [place for place in near if 0 <= sites.x[first] + place[0] < width]
        beside.append(inside)
        hidden.append(len(places) - len(inside))
    return beside, hidden


def write_page(folder: Path, data: Mapping[str, Any], imagery: PageImagery, config: ReviewPageConfig) -> None:
    """Write the page, its candidates and its scripts.

    Args:
        folder: Where to; it may hold the tiles already.
        data: What `review_data` returns, with `images` where tiles were copied.
        imagery: What it shows.
        config: Settings: the basemap.
    """
    basemap = web_tiles(config.basemap, config.basemap_attribution, "--basemap") if config.basemap else None
    origins = {origin for tiles in (imagery.web, basemap) if tiles for origin in tiles.origins}
    shutil.copytree(_STATIC, folder, dirs_exist_ok=True)
    content = {
        **data,
        "attribution": imagery.attribution,
        "imagery": _shown(imagery.web),
        "basemap": _shown(basemap),
    }
    text = dump_json(content, ensure_ascii=False, separators=(",", ":"))
    (folder / _DATA).write_text(f"{_BEFORE}{text}{_AFTER}", encoding="utf-8")
    page = render_page("review", label=data["label"], policy=content_policy(origins), model=data["model"])
    (folder / "index.html").write_text(page, encoding="utf-8")


def _shown(tiles: WebTiles | None) -> dict[str, str] | None:
    return {"url": tiles.url, "hosts": tiles.hosts, "attribution": tiles.attribution} if tiles else None


def content_policy(origins: set[str]) -> str:
    """Return the page's content security policy: its own files, and pictures of these servers."""
    pictures = " ".join(["'self'", "data:", *sorted(origins)])
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src {pictures}; base-uri 'none'; form-action 'none'"
    )


def read_data(out: Path) -> dict[str, Any]:
    """Return what the page of a published folder shows.

    Raises:
        DataError: There is no page, or it is damaged.
    """
    path = out / "review" / _DATA
    try:
        text = path.read_text(encoding="utf-8")
        content: dict[str, Any] = json.loads(text.removeprefix(_BEFORE).removesuffix(_AFTER))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: is {out} a folder that `sat_xception bulk publish` wrote?") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}. Run `sat_xception bulk publish` again") from None
    return content
