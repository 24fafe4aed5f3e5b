"""Settings of package."""

from __future__ import annotations

from pydantic import Field

from sat_xception.settings.config import StepConfig
from sat_xception.settings.types import (
    DecisionOrNone,
    Examples,
    Place,
    TrainedModel,
    model_name,
)

__all__ = ["PackageConfig"]


class PackageConfig(StepConfig):
    """Export a model for TensorFlow Serving, check that its outputs equal Keras's, and score the test split once."""

    model: TrainedModel = Field(description="Model folder written by train.")
    examples: Examples = Field(description="Examples written by convert, for golden tiles and the test split.")
    decision: DecisionOrNone = Field(None, description="Folder written by gate; a model that didn't win is rejected.")
    out: Place = Field(description="Model root: the model goes to OUT/<name>/<version>/.")
    name: str = model_name()
    version: int = Field(
        0, ge=0, lt=2**63, description="Version, a positive integer. Default: the UTC time as YYYYMMDDhhmmss."
    )
    golden_tiles: int = Field(
        8, gt=0, le=64, description="Number of tiles stored with their expected outputs (golden tiles)."
    )
