"""Settings of the verbs that look after a model root."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sat_xception.settings.config import StepConfig, second_name, setting_of
from sat_xception.settings.types import Place, model_name

__all__ = ["ListModelsConfig", "RemoveModelsConfig", "ShowModelConfig"]


class ListModelsConfig(StepConfig):
    """List a model's versions, the newest first."""

    model_root: Place = Field(Path("models/serving"), description="Folder that holds <name>/<version>/.")
    name: str = model_name()
    as_json: bool = Field(False, description="Print JSON instead of a table.", json_schema_extra=second_name("--json"))


class ShowModelConfig(ListModelsConfig):
    """Show the model card of a version."""

    version: int = Field(0, ge=0, description="The version. Default: the newest.")
    as_json: bool = Field(False, description="Print its model.json.", json_schema_extra=second_name("--json"))


class RemoveModelsConfig(StepConfig):
    """Remove old versions; the newest ones stay."""

    model_root: Place = setting_of(ListModelsConfig, "model_root")
    name: str = model_name()
    keep: int = Field(3, gt=0, description="How many of the newest versions stay.")
    dry_run: bool = Field(False, description="Say what would be removed, and remove nothing.")
