"""Settings of the steps that put a model where it answers, ask it, and tell people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from sat_xception.config import POSITIONAL, StepConfig, second_name, setting_of
from sat_xception.steps.kinds import Place, PlaceOrNone, ResultOrNone
from sat_xception.steps.model import PackageConfig
from sat_xception.storage import Stored

__all__ = [
    "ListModelsConfig",
    "NotifyConfig",
    "PredictConfig",
    "RemoveModelsConfig",
    "ServeConfig",
    "ShowModelConfig",
    "VerifyModelConfig",
]


class ServeConfig(StepConfig):
    """Serve a model root over TensorFlow Serving's REST and gRPC interfaces, following new versions."""

    model_root: Place = Field(Path("models/serving"), description="Folder that holds <name>/<version>/.")
    name: str = setting_of(PackageConfig, "name")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    rest_port: int = Field(8501, ge=0, le=65535, description="Port of the REST interface; 0 picks a free one.")
    grpc_port: int = Field(8500, ge=0, le=65535, description="Port of the gRPC interface; 0 picks a free one.")
    poll_s: float = Field(2.0, gt=0, description="Seconds between looks for a new version.")
    max_body_mb: int = Field(64, gt=0, description="Largest request, in MB.")
    wait: bool = Field(False, description="Start without a version and wait for the first, as TensorFlow Serving does.")


class PredictConfig(StepConfig):
    """Score image files or folders with a packaged model or a running endpoint."""

    inputs: Annotated[tuple[Path, ...], Stored("place")] = Field(
        min_length=1, description="Image files, or folders that are searched for images.", json_schema_extra=POSITIONAL
    )
    model: PlaceOrNone = Field(None, description="A packaged version, a model name's folder, or a model root.")
    endpoint: str = Field("", description="http://host:port (REST) or grpc://host:port, instead of --model.")
    name: str = setting_of(PackageConfig, "name")
    out: PlaceOrNone = Field(None, description="File to write, .csv or .json. Default: CSV on stdout.")
    batch_size: int = Field(32, gt=0, description="Images a call.")
    timeout_s: float = Field(60.0, gt=0, description="Deadline of a call, in seconds.")

    @model_validator(mode="after")
    def _has_one_model(self) -> PredictConfig:
        if (self.model is None) == (self.endpoint == ""):
            raise ValueError("give either --model or --endpoint")
        return self


class ListModelsConfig(StepConfig):
    """List a model's versions, the newest first."""

    model_root: Place = setting_of(ServeConfig, "model_root")
    name: str = setting_of(PackageConfig, "name")
    as_json: bool = Field(False, description="Print JSON instead of a table.", json_schema_extra=second_name("--json"))


class ShowModelConfig(ListModelsConfig):
    """Show the model card of a version."""

    version: int = Field(0, ge=0, description="The version. Default: the newest.")
    as_json: bool = Field(False, description="Print its model.json.", json_schema_extra=second_name("--json"))


class VerifyModelConfig(StepConfig):
    """Prove that a version is what was packaged: its files by their digests, the model by its golden tiles."""

    model_root: Place = setting_of(ServeConfig, "model_root")
    name: str = setting_of(PackageConfig, "name")
    version: int = setting_of(ShowModelConfig, "version")


class RemoveModelsConfig(StepConfig):
    """Remove old versions; the newest ones stay."""

    model_root: Place = setting_of(ServeConfig, "model_root")
    name: str = setting_of(PackageConfig, "name")
    keep: int = Field(3, gt=0, description="How many of the newest versions stay.")
    dry_run: bool = Field(False, description="Say what would be removed, and remove nothing.")


class NotifyConfig(StepConfig):
    """Say how a run ended: in the log, and to a webhook when one is given."""

    pipeline: str = Field(description="Name of the run.")
    state: str = Field(description="How it ended: SUCCEEDED, FAILED or CANCELLED.")
    message: str = Field("", description="Why, when it failed.")
    baseline: ResultOrNone = Field(None, description="Folder whose last-run.json may say more of how it ended.")
    run: str = Field("", description="What Kubeflow calls the run, to know it there.")
    webhook_env: str = Field(
        "SAT_XCEPTION_WEBHOOK", description="Environment variable that holds the webhook's address."
    )
    timeout_s: float = Field(10.0, gt=0, description="Deadline of the call, in seconds.")
