"""The candidates of a review page, as its script and the server read them: one list per column, the best first."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from sat_xception.storage.document import Part

__all__ = ["CopiedTiles", "ReviewData", "WebTiles"]


class WebTiles(Part):
    """A tile server, as the page asks it.

    Attributes:
        url: Template with `{z}`, `{x}`, `{y}` or `{-y}`, and perhaps `{s}`.
        hosts: Values of `{s}`.
        attribution: Attribution required by the licence.
        origins: Scheme and host of every server, for the page's content security policy; not in the page's data.
    """

    url: str
    hosts: str
    attribution: str
    origins: tuple[str, ...] = Field((), exclude=True)


class CopiedTiles(Part):
    """Tiles that were copied beside the page.

    Attributes:
        ending: Ending of most files.
        others: Ending of each other file by `x/y`; "" of tiles that couldn't be fetched.
    """

    ending: str
    others: dict[str, str]


class ReviewData(Part):
    """Candidates, the best first.

    Attributes:
        label: The positive class.
        zoom: Zoom of the tiles.
        threshold: Decision threshold.
        model: Name and version of the model.
        total: Number of candidates, with those that aren't on the page.
        areas: Names of areas, sorted; empty without areas.
        area: Index of each candidate's area, -1 of none; empty without areas.
        x: Column of each candidate's best tile.
        y: Row of it.
        score: Probability of it.
        lon: Longitude of the candidate's centre, in degrees.
        lat: Latitude of it.
        tiles: Number of tiles.
        known: Whether it is known; empty without known places.
        distance_m: Distance to the nearest known place, in metres; empty without known places.
        beside: Offsets of the candidate's other tiles from the best one, as far as they are shown.
        hidden: Number of its tiles that aren't shown, because they are more than two tiles away from the best one.
        key: Digest of the candidates' tiles, under which the browser keeps decisions.
        images: Tiles beside the page; None, and left out of the file, without copies.
        attribution: Attribution required by the imagery's licence.
        imagery: Server of the imagery; None where tiles are copied, or there are none.
        basemap: Server of the base map; None without one.
    """

    label: str
    zoom: int
    threshold: float
    model: str
    total: int
    areas: tuple[str, ...]
    area: tuple[int, ...]
    x: tuple[int, ...]
    y: tuple[int, ...]
    score: tuple[float, ...]
    lon: tuple[float, ...]
    lat: tuple[float, ...]
    tiles: tuple[int, ...]
    known: tuple[bool, ...]
    distance_m: tuple[float | None, ...]
    beside: tuple[tuple[tuple[int, int], ...], ...]
    hidden: tuple[int, ...]
    key: str
    images: CopiedTiles | None = None
    attribution: str = ""
    imagery: WebTiles | None = None
    basemap: WebTiles | None = None

    @model_serializer(mode="wrap")
    def _leave_out_absent_images(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        if self.images is None:
            del content["images"]
        return content
