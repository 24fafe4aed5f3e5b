"""Settings of what makes scores of many tiles into maps, and of the server that people review candidates with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from sat_xception.config import POSITIONAL, StepConfig, setting_of, shown
from sat_xception.steps.assemble import LabelsConfig
from sat_xception.steps.kinds import FileOrNone, Fraction, Result, check_layers, layers_of
from sat_xception.storage import Stored

__all__ = ["PublishConfig", "ReviewConfig"]


class PublishConfig(StepConfig):
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
    imagery: str = Field(
        "", description="Imagery that the review page shows, as for assemble. Default: the one that was scored."
    )
    imagery_token_env: str = setting_of(LabelsConfig, "imagery_token_env")
    imagery_attribution: str = Field("", description="Whom the imagery's licence wants named; shown on every page.")
    imagery_tms: bool = setting_of(LabelsConfig, "imagery_tms")
    with_tiles: bool = Field(
        False,
        description="Copy the candidates' tiles beside the review page, so that it works offline. Imagery that is no "
        "web address, or whose address has a token or a key, is always copied.",
    )
    workers: int = setting_of(LabelsConfig, "workers")
    rate_per_s: float = setting_of(LabelsConfig, "rate_per_s")
    basemap: str = Field("", description="URL template of a map to draw below the candidates. Default: none.")
    basemap_attribution: str = Field("", description="Whom the basemap's licence wants named.")
    most_reviewed: int = Field(50_000, gt=0, description="Candidates on the review page, the best ones.")

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON types; of an address, what may be a key or a password is left out."""
        return super().resolved() | {"imagery": shown(self.imagery), "basemap": shown(self.basemap)}

    @model_validator(mode="after")
    def _fit_together(self) -> PublishConfig:
        check_layers(self)
        if self.basemap and not self.basemap_attribution:
            raise ValueError("--basemap needs --basemap-attribution: maps have owners who want to be named")
        if self.basemap_attribution and not self.basemap:
            raise ValueError("--basemap-attribution goes with --basemap, which isn't given")
        return self


class ReviewConfig(StepConfig):
    """Open the review page of published candidates, and save every decision to OUT/review.geojson as it is made."""

    out: Path = Field(description="Folder written by bulk publish.", json_schema_extra=POSITIONAL)
    port: int = Field(8600, ge=0, le=65535, description="Port to listen on, on this machine only; 0 picks a free one.")
    browser: bool = Field(True, description="Open the page in a browser.")
