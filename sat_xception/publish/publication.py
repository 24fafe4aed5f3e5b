"""`publication.json`: the counts of a publication, for programs."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import AliasChoices, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from sat_xception.bulk.plan_document import ModelId
from sat_xception.bulk.run_document import ScoredImagery
from sat_xception.storage.document import Document, Part

__all__ = ["AreaRow", "KnownCounts", "Publication", "ReviewCounts", "SiteCounts", "TileCounts"]


class TileCounts(Part):
    """Tiles: planned = scored + failed; scored = candidates + below."""

    planned: int
    scored: int
    failed: int
    candidates: int
    below: int


class _Compared(Part):
    """Counts with `known` and `new`, which are left out of the file where no known places were given."""

    known: int | None = None
    new: int | None = None

    @model_serializer(mode="wrap")
    def _leave_out_what_was_not_compared(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        known, new = content.pop("known"), content.pop("new")
        return content if known is None else content | {"known": known, "new": new}


class SiteCounts(_Compared):
    """Sites that the candidate tiles make."""

    sites: int


class AreaRow(_Compared):
    """Tiles and candidates of an area; tiles = scored + failed."""

    area: str
    tiles: int
    scored: int
    failed: int
    candidates: int


class KnownCounts(Part):
    """Numbers of known places by outcome.

    Attributes:
        found: A candidate is near.
        below_threshold: The place's tile is below the threshold.
        tile_failed: Its tile failed.
        not_planned: Its tile wasn't planned.
    """

    found: int
    below_threshold: int = Field(validation_alias=AliasChoices("below_threshold", "below the threshold"))
    tile_failed: int = Field(validation_alias=AliasChoices("tile_failed", "tile failed"))
    not_planned: int = Field(validation_alias=AliasChoices("not_planned", "not planned"))

    @property
    def unseen(self) -> int:
        """Places that are on no scored tile."""
        return self.tile_failed + self.not_planned

    @property
    def places(self) -> int:
        """All places."""
        return self.found + self.below_threshold + self.unseen


class ReviewCounts(Part):
    """Candidates on the review page, those left out of it, and decisions kept of an earlier publication."""

    candidates: int
    left_out: int
    kept_decisions: int


class Publication(Document):
    """Content of `publication.json`.

    Attributes:
        model: Model that scored.
        classes: Names in index order.
        positive_label: The positive class.
        threshold: Decision threshold.
        zoom: Zoom of the tiles.
        tiles: Number of tiles.
        by_label: Scored tiles by label.
        reasons: Reasons to fail, with their numbers, the most common first.
        candidates: Number of sites.
        known: Known places; None where none were given.
        areas: Counts by area; empty where no areas were given.
        attribution: Attribution required by the imagery's licence.
        imagery: Imagery that was scored; None in files of versions that didn't record it.
        review: The review page.
        config: Settings of bulk publish.
    """

    file_name: ClassVar[str] = "publication.json"
    made_by: ClassVar[str] = "bulk publish"
    # Publishing again reads it, too.
    advice: ClassVar[str] = "remove it and run `sat_xception bulk publish` again"

    model: ModelId
    classes: tuple[str, ...]
    positive_label: str
    threshold: float
    zoom: int
    tiles: TileCounts
    by_label: dict[str, int]
    reasons: dict[str, int]
    candidates: SiteCounts
    known: KnownCounts | None
    areas: tuple[AreaRow, ...]
    attribution: str
    imagery: ScoredImagery | None = None
    review: ReviewCounts
    config: dict[str, Any]

    @field_validator("known", mode="before")
    @classmethod
    def _empty_is_none(cls, known: object) -> object:
        return known or None
