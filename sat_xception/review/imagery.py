"""Images for the review page: from a tile server, or copied next to the page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.imagery.check import CheckConfig
from sat_xception.imagery.fetch import FetchConfig, FetchStore, fetch_tiles
from sat_xception.imagery.open import open_imagery
from sat_xception.imagery.source import ImagerySource
from sat_xception.log import get_logger
from sat_xception.review.data import CopiedTiles, ReviewData, WebTiles
from sat_xception.review.settings import ReviewPageConfig
from sat_xception.settings.config import shown
from sat_xception.storage import scratch_folder

__all__ = ["PageImagery", "copy_tiles", "page_imagery", "web_tiles"]

_log = get_logger(__name__)
_PLACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([a-z])-([a-z])|(\d)-(\d)")
_ENDINGS = {"jpeg": "jpg"}


@dataclass(frozen=True)
class PageImagery:
    """Imagery of the page; without images, `web` and `source` are both None.

    Attributes:
        attribution: Attribution required by the imagery's licence.
        web: Tile server that the page loads images from.
        source: Source that tiles are copied from, instead of a server.
    """

    attribution: str
    web: WebTiles | None = None
    source: ImagerySource | None = None


def page_imagery(config: ReviewPageConfig) -> PageImagery:
    """Return the imagery that the page shows.

    Raises:
        ConfigError: The imagery can't be opened, or its address can't be put on a page.
    """
    address, attribution = config.imagery, config.imagery_attribution
    if not address:
        _log.warning("review    without pictures: neither scores.json nor --imagery names any")
        return PageImagery(attribution)
    if "***" in address:
        raise ConfigError(
            f"the scores are of imagery whose address has a key, {address}: give the address once more with --imagery, "
            "with {token} in place of the key and --imagery-token-env"
        )
    is_web = address.startswith(("http://", "https://")) and "{z}" in address
    has_secret = "{token}" in address or shown(address) != address
    if is_web and not attribution:
        _log.warning("review    no attribution is known for %s; give --imagery-attribution", shown(address))
    if is_web and not has_secret and not config.with_tiles:
        return PageImagery(attribution, web=web_tiles(address, attribution, "--imagery", config.imagery_tms))
    source = open_imagery(address, config.source_config())
    return PageImagery(source.attribution or attribution, source=source)


def web_tiles(template: str, attribution: str, flag: str, tms: bool = False) -> WebTiles:
    """Return a tile server for the page.

    Raises:
        ConfigError: The template isn't an address that a page can use without a secret.
    """
    places = set(_PLACES.findall(template))
    ranges = {place for place in places if _RANGE.fullmatch(place)}
    if not template.startswith(("http://", "https://")) or not {"z", "x"} <= places or not {"y", "-y"} & places:
        raise ConfigError(f"{flag} must be a template such as https://host/{{z}}/{{x}}/{{y}}.png; got {template!r}")
    if unknown := places - ranges - {"z", "x", "y", "-y", "s"}:
        secret = " A page can't keep a token." if "token" in unknown else ""
        raise ConfigError(f"{flag} has {{{min(unknown)}}}, which the page doesn't know.{secret}")
    if len(ranges) + ("s" in places) > 1:
        raise ConfigError(f"{flag} names its hosts in several ways; use one of {{s}} and {{a-c}}")
    hosts = "abc"
    for place in ranges:
        first, last = place[0], place[2]
        hosts = "".join(map(chr, range(ord(first), ord(last) + 1)))
        template = template.replace(f"{{{place}}}", "{s}")
    if tms:
        template = template.replace("{y}", "{-y}")
    names = {template.replace("{s}", host) for host in hosts} if "{s}" in template else {template}
    parts = [urlsplit(name) for name in sorted(names)]
    if any(not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9a-fA-F:]+\](:\d+)?", part.netloc) for part in parts):
        raise ConfigError(f"{flag} has no plain host name; got {template!r}")
    origins = tuple(sorted({f"{part.scheme}://{part.netloc}" for part in parts}))
    return WebTiles(url=template, hosts=hosts, attribution=attribution, origins=origins)


def copy_tiles(data: ReviewData, source: ImagerySource, config: ReviewPageConfig, folder: Path) -> CopiedTiles:
    """Fetch the tiles that the page shows into `folder/z/x/y.ext`.

    Args:
        data: The candidates.
        source: Source of the tiles; it is closed afterwards.
        config: Settings.
        folder: Folder to write the tiles to.

    Raises:
        ServiceError: None of the tiles could be fetched.
    """
    zoom = data.zoom
    wanted = sorted(_shown_tiles(data))
    check = CheckConfig.of(config.source_config())
    fetching = FetchConfig(workers=config.workers, rate_per_s=config.rate_per_s, check=check)
    endings: dict[tuple[int, int], str] = {}
    size, reason = 0, ""
    with scratch_folder() as place, FetchStore(place) as store:
        fetch_tiles(((x, y, zoom) for x, y in wanted), source, store, fetching, len(wanted))
        for tile in store:
            ending = _ENDINGS.get(tile.format, tile.format) if tile.data else ""
            endings[tile.x, tile.y] = ending
            if not ending:
                reason = tile.reason
                continue
            path = folder / str(zoom) / str(tile.x) / f"{tile.y}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tile.data)
            size += len(tile.data)
    lost = sum(not ending for ending in endings.values())
    if endings and lost == len(endings):
        raise ServiceError(f"none of the {lost:,} tiles for the review page could be had: {reason}. Check --imagery")
    _log.info("tiles     %s copied for the review page, %.1f MB", f"{len(endings) - lost:,}", size / 1e6)
    if lost:
        _log.warning("tiles     %s couldn't be had; the last: %s", f"{lost:,}", reason)
    found = [ending for ending in endings.values() if ending]
    most = max(sorted(set(found)), key=found.count) if found else "jpg"
    others = {f"{x}/{y}": ending for (x, y), ending in endings.items() if ending != most}
    return CopiedTiles(ending=most, others=others)


def _shown_tiles(data: ReviewData) -> set[tuple[int, int]]:
    """Return the column and row of every tile in the rectangle around each candidate's tiles."""
    return {tile for places in zip(data.x, data.y, data.beside, strict=True) for tile in _rectangle(*places)}


def _rectangle(x: int, y: int, beside: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    across, down = [0, *(place[0] for place in beside)], [0, *(place[1] for place in beside)]
    for column in range(x + min(across), x + max(across) + 1):
        for row in range(y + min(down), y + max(down) + 1):
            yield column, row
