"""Decisions on candidates, as GeoJSON that `assemble --negatives-review` reads: one feature per tile.

A verdict applies to the tiles that were shown:

- "no" applies to all of them, so all are negatives;
- "yes" applies to the best tile. The others get "unsure", so they are in no class: the site may not extend into them;
- "unsure" applies to all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sat_xception.errors import DataError, ServiceError
from sat_xception.geo.tiles import grid_to_lonlat
from sat_xception.review.data import ReviewData
from sat_xception.storage import partial_file
from sat_xception.storage.files import dump_json

__all__ = ["RECORD", "ReviewDecision", "ReviewRecord"]

RECORD = "review.geojson"
_DIGITS = 7  # decimals of a degree: a centimetre


class ReviewDecision(BaseModel):
    """A reviewer's decision on a candidate.

    Attributes:
        site: The candidate, by its best tile, as z/x/y.
        verdict: The verdict; "" withdraws an earlier one.
        note: Free text.
        reviewer: Name of the reviewer.
        time: Time of the decision, as ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    site: str = Field(max_length=40)
    verdict: Literal["yes", "no", "unsure", ""]
    note: str = Field("", max_length=2000)
    reviewer: str = Field("", max_length=100)
    time: str = Field("", max_length=40)

    def version(self) -> str:
        """Return an identifier that differs from that of any other decision on the candidate."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16] if self.verdict else ""


class ReviewRecord:
    """The decisions in a file.

    Attributes:
        path: Path of the file.
        decisions: Decisions by candidate.
        others: Number of decisions on tiles that aren't candidates any more; they are kept unchanged.
    """

    def __init__(self, path: Path, data: ReviewData) -> None:
        """Read the file, if it exists.

        Args:
            path: The file.
            data: The candidates.

        Raises:
            DataError: The file is damaged.
        """
        self.path = path
        self._data = data
        places = zip(data.x, data.y, strict=True)
        self._index = {f"{data.zoom}/{x}/{y}": index for index, (x, y) in enumerate(places)}
        self.decisions: dict[str, ReviewDecision] = {}
        self._lines: dict[str, list[str]] = {}
        if path.exists():
            self._read()
        self.others = sum(site not in self._index for site in self._lines)

    def _read(self) -> None:
        try:
            features = json.loads(self.path.read_text(encoding="utf-8"))["features"]
            for feature in features:
                facts = feature["properties"]
                site = str(facts["site"])
                self._lines.setdefault(site, []).append(_line(feature))
                if facts["tile_id"] == site and site in self._index:
                    told = {name: facts.get(name) or "" for name in ("verdict", "note", "reviewer", "time")}
                    self.decisions[site] = ReviewDecision.model_validate({"site": site, **told})
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise DataError(
                f"{self.path} isn't a review that this program wrote: {type(error).__name__} {error}. Repair it, or "
                "move it away and start again"
            ) from None

    def counts(self) -> dict[str, int]:
        """Return the number of candidates by verdict."""
        verdicts = [decision.verdict for decision in self.decisions.values()]
        return {verdict: verdicts.count(verdict) for verdict in ("yes", "no", "unsure")}

    def knows(self, site: str) -> bool:
        """Return whether a candidate is on the page."""
        return site in self._index

    def version(self, site: str) -> str:
        """Return the version of the decision on a candidate; "" if there is none."""
        decision = self.decisions.get(site)
        return decision.version() if decision else ""

    def put(self, decision: ReviewDecision) -> None:
        """Store a decision, and replace an earlier one on the candidate; `save` writes it to the file."""
        if not decision.verdict:
            self.decisions.pop(decision.site, None)
            self._lines.pop(decision.site, None)
            return
        self.decisions[decision.site] = decision
        self._lines[decision.site] = [_line(feature) for feature in self._features(decision)]

    def text(self) -> str:
        """Return the file's content."""
        lines = ",\n".join(line for site in sorted(self._lines) for line in self._lines[site])
        return f'{{"type":"FeatureCollection","features":[\n{lines}\n]}}\n'

    def save(self, text: str) -> None:
        """Write the file atomically.

        Raises:
            ServiceError: The file can't be written.
        """
        try:
            with partial_file(self.path) as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ServiceError(f"can't write {self.path}: {error.strerror}") from None

    def _features(self, decision: ReviewDecision) -> Sequence[dict[str, Any]]:
        data, index = self._data, self._index[decision.site]
        x, y, zoom = data.x[index], data.y[index], data.zoom
        tiles = [(x, y), *((x + across, y + down) for across, down in data.beside[index])]
        features = []
        for tile in tiles:
            said = decision.verdict if tile == (x, y) or decision.verdict == "no" else "unsure"
            properties = {
                "tile_id": f"{zoom}/{tile[0]}/{tile[1]}",
                "x": tile[0],
                "y": tile[1],
                "z": zoom,
                "verdict": said,
                "site": decision.site,
                "score": data.score[index],
                "note": decision.note,
                "reviewer": decision.reviewer,
                "time": decision.time,
            }
            geometry = {"type": "Polygon", "coordinates": [_outline(*tile, zoom)]}
            features.append({"type": "Feature", "properties": properties, "geometry": geometry})
        return features


def _line(feature: Mapping[str, Any]) -> str:
    return dump_json(feature, ensure_ascii=False, separators=(",", ":"))


def _outline(x: int, y: int, zoom: int) -> list[list[float]]:
    """Return the ring around a tile, counter-clockwise as RFC 7946 requires."""
    (west, east), (north, south) = (values.tolist() for values in grid_to_lonlat([x, x + 1], [y, y + 1], zoom))  # type: ignore[arg-type]
    corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    return [[round(lon, _DIGITS), round(lat, _DIGITS)] for lon, lat in corners]
