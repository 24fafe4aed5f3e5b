"""Settings of the sample area."""

from __future__ import annotations

from pydantic import Field

from sat_xception.settings.config import POSITIONAL, StepConfig
from sat_xception.settings.types import Result

__all__ = ["SampleAreaConfig"]


class SampleAreaConfig(StepConfig):
    """Draw an area of the synthetic sample's places, with its imagery and known schools, to try bulk scoring on."""

    out: Result = Field(description="Folder to write.", json_schema_extra=POSITIONAL)
    side: int = Field(24, gt=1, le=512, description="Tiles along each side of the area, at zoom 18.")
