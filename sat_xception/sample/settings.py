"""Settings of the sample area."""

from __future__ import annotations

from pydantic import Field

from sat_xception.settings.config import POSITIONAL, StepConfig
from sat_xception.settings.types import Result

__all__ = ["SampleAreaConfig"]


class SampleAreaConfig(StepConfig):
    """Draw a synthetic area with its imagery and known schools, for trying bulk scoring."""

    out: Result = Field(description="Folder to write.", json_schema_extra=POSITIONAL)
    side: int = Field(24, gt=1, le=512, description="Number of tiles along each side of the area, at zoom 18.")
