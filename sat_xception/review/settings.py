"""Settings of review."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from sat_xception.imagery.settings import ImagerySettings
from sat_xception.settings.config import POSITIONAL, StepConfig, shown

__all__ = ["ReviewConfig", "ReviewPageConfig"]


class ReviewPageConfig(ImagerySettings):
    """Imagery and base map of a review page."""

    imagery: str = Field(
        "", description="Imagery shown on the review page, as for assemble. Default: the imagery that was scored."
    )
    imagery_attribution: str = Field(
        "", description="Attribution required by the imagery's licence; shown on every page."
    )
    with_tiles: bool = Field(
        False,
        description="Copy the candidates' tiles beside the review page, so that it works offline. Imagery that has no "
        "web address, or whose address contains a token or a key, is always copied.",
    )
    basemap: str = Field("", description="URL template of a base map, drawn below the candidates. Default: none.")
    basemap_attribution: str = Field("", description="Attribution required by the base map's licence.")

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON types, with keys and passwords in addresses masked."""
        return super().resolved() | {"basemap": shown(self.basemap)}

    @model_validator(mode="after")
    def _basemap_has_an_owner(self) -> Self:
        if self.basemap and not self.basemap_attribution:
            raise ValueError("--basemap needs --basemap-attribution, which licences of maps require")
        if self.basemap_attribution and not self.basemap:
            raise ValueError("--basemap-attribution goes with --basemap, which isn't given")
        return self


class ReviewConfig(StepConfig):
    """Open the review page of published candidates; each decision is saved to OUT/review.geojson immediately."""

    out: Path = Field(description="Folder on this machine, written by bulk publish.", json_schema_extra=POSITIONAL)
    port: int = Field(8600, ge=0, le=65535, description="Port to listen on, on this machine only; 0 picks a free one.")
    browser: bool = Field(True, description="Open the page in a browser.")
