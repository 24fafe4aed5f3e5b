"""Settings of publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from sat_xception.review.settings import ReviewPageConfig
from sat_xception.settings.types import FileOrNone, Fraction, Result, check_layers, layers_of
from sat_xception.storage import Stored

__all__ = ["PublishConfig"]


class PublishConfig(ReviewPageConfig):
    """Make maps of scored tiles: candidates merged into sites, held against known places, and a page to review them."""

    scores: Annotated[Path, Stored("folder", "scores.json")] = Field(description="Scores written by bulk predict.")
    out: Result = Field(description="Folder to write the maps, the tables and the review page to.")
    threshold: Fraction | None = Field(
        None, description="From which probability on a tile is a candidate. Default: the model's own."
    )
    known: FileOrNone = Field(None, description="Places that are known, to tell known candidates from new ones.")
    known_layer: tuple[str, ...] = layers_of("--known")
    # A tile of zoom 18 is 150 m wide at the equator.
    known_distance_m: float = Field(
        100.0, ge=0, description="Largest distance between a known place and a candidate's nearest tile, in metres."
    )
    areas: FileOrNone = Field(None, description="Polygons, such as provinces, to count by.")
    areas_layer: tuple[str, ...] = layers_of("--areas")
    area_name: str = Field("name", description="Column of the areas that holds their names.")
    most_reviewed: int = Field(50_000, gt=0, description="Candidates on the review page, the best ones.")

    @model_validator(mode="after")
    def _layers_go_with_files(self) -> Self:
        check_layers(self)
        return self
