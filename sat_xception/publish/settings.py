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
    """Make maps of scored tiles: merge candidates into sites, compare them with known sites, write a review page."""

    scores: Annotated[Path, Stored("folder", "scores.json")] = Field(description="Scores written by bulk predict.")
    out: Result = Field(description="Folder to write the maps, the tables and the review page to.")
    threshold: Fraction | None = Field(None, description="Decision threshold of candidates. Default: the model's own.")
    known: FileOrNone = Field(
        None, description="Known sites; candidates near one are marked as known, the others as new."
    )
    known_layer: tuple[str, ...] = layers_of("--known")
    # A tile of zoom 18 is 150 m wide at the equator.
    known_distance_m: float = Field(
        100.0, ge=0, description="Maximum distance between a known site and a candidate's nearest tile, in metres."
    )
    areas: FileOrNone = Field(None, description="Polygons, such as provinces, for counts by area.")
    areas_layer: tuple[str, ...] = layers_of("--areas")
    area_name: str = Field("name", description="Column of --areas that holds the names.")
    most_reviewed: int = Field(
        50_000, gt=0, description="Maximum number of candidates on the review page, highest probabilities first."
    )

    @model_validator(mode="after")
    def _layers_go_with_files(self) -> Self:
        check_layers(self)
        return self
