"""Settings of the verbs that list, show and remove versions in a model root."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sat_xception.settings.config import StepConfig, second_name, setting_of
from sat_xception.settings.types import Place, model_name

__all__ = ["ListModelsConfig", "RemoveModelsConfig", "ShowModelConfig"]


class ListModelsConfig(StepConfig):
    """List the versions of a model, newest first."""

    model_root: Place = Field(Path("models/serving"), description="Folder that holds <name>/<version>/.")
    name: str = model_name()
    as_json: bool = Field(False, description="Print JSON instead of a table.", json_schema_extra=second_name("--json"))


class ShowModelConfig(ListModelsConfig):
    """Show the model card of a version."""

    version: int = Field(0, ge=0, description="Version to show. Default: the newest.")
    as_json: bool = Field(False, description="Print its model.json.", json_schema_extra=second_name("--json"))


class RemoveModelsConfig(StepConfig):
    """Remove old versions; the newest ones are kept."""

    model_root: Place = setting_of(ListModelsConfig, "model_root")
    name: str = model_name()
    keep: int = Field(3, gt=0, description="Number of newest versions to keep.")
    dry_run: bool = Field(False, description="Print what would be removed, without removing it.")
