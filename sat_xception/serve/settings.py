"""Settings of serve, predict and the verification of a version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from sat_xception.served_model.settings import ListModelsConfig, ShowModelConfig
from sat_xception.settings.config import POSITIONAL, StepConfig, second_name, setting_of
from sat_xception.settings.types import LocalFileOrNone, Place, PlaceOrNone, model_name
from sat_xception.storage import Stored

__all__ = ["PredictConfig", "ServeConfig", "VerifyModelConfig"]


class ServeConfig(StepConfig):
    """Serve a model root over TensorFlow Serving's REST and gRPC APIs, and load new versions as they appear."""

    model_root: Place = setting_of(ListModelsConfig, "model_root")
    name: str = model_name()
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all interfaces.")
    rest_port: int = Field(8501, ge=0, le=65535, description="Port of the REST interface; 0 picks a free one.")
    grpc_port: int = Field(8500, ge=0, le=65535, description="Port of the gRPC interface; 0 picks a free one.")
    poll_s: float = Field(2.0, gt=0, description="Poll interval for new versions, in seconds.")
    batch_size: int = Field(
        32, gt=0, description="Maximum number of images in a batch merged from several requests; 1 disables batching."
    )
    batch_wait_ms: float = Field(
        2.0,
        ge=0,
        le=1000,
        description="Maximum wait for requests that are still being read, to merge them into the batch, in ms.",
    )
    batch_threads: int = Field(0, ge=0, description="Number of concurrent runs of the model. Default: one per core.")
    max_batch_size: int = Field(512, gt=0, description="Maximum number of images per request.")
    max_image_pixels: int = Field(
        2048 * 2048, gt=0, description="Maximum image size, width times height; read from its header before decoding."
    )
    max_body_mb: int = Field(64, gt=0, description="Maximum request size, in MB.")
    max_queue: int = Field(
        256, gt=0, description="Maximum number of requests in progress; further ones get 429 or RESOURCE_EXHAUSTED."
    )
    max_queue_mb: int = Field(512, gt=0, description="Maximum total size of the requests in progress, in MB.")
    max_connections: int = Field(
        1000, gt=0, description="Maximum number of open REST connections; further ones are closed immediately."
    )
    timeout_s: float = Field(
        30.0, gt=0, description="Timeout of a request, in seconds, from its first line to its response."
    )
    head_timeout_s: float = Field(10.0, gt=0, description="Timeout for receiving a request's headers, in seconds.")
    idle_timeout_s: float = Field(3630.0, gt=0, description="Seconds that an idle REST connection is kept open.")
    grace_s: float = Field(
        25.0, ge=0, description="Timeout for requests in progress to finish after SIGTERM, in seconds."
    )
    access_log: bool = Field(False, description="Log one line per request.")
    enable_grpc_healthcheck_service: bool = Field(
        False,
        description="Serve grpc.health.v1 as well.",
        json_schema_extra=second_name("--enable_grpc_healthcheck_service"),
    )
    wait: bool = Field(
        False, description="Start without a version and wait for the first one, as TensorFlow Serving does."
    )


class PredictConfig(StepConfig):
    """Score image files or folders with a packaged model or a running endpoint."""

    inputs: Annotated[tuple[Path, ...], Stored("place")] = Field(
        min_length=1, description="Image files, or folders that are searched for images.", json_schema_extra=POSITIONAL
    )
    model: PlaceOrNone = Field(None, description="A packaged version, the folder of a model name, or a model root.")
    endpoint: str = Field(
        "", description="Instead of --model: http(s)://host:port (REST) or grpc(s)://host:port; the s means TLS."
    )
    name: str = model_name()
    out: PlaceOrNone = Field(None, description="File to write, .csv or .json. Default: CSV on stdout.")
    batch_size: int = Field(32, gt=0, description="Images per request.")
    calls: int = Field(
        4, gt=0, description="Number of concurrent requests; images of the next ones are read meanwhile."
    )
    timeout_s: float = Field(60.0, gt=0, description="Timeout of a request including retries, in seconds.")
    token_file: LocalFileOrNone = Field(None, description="File that holds a bearer token; read before each request.")
    ca_file: LocalFileOrNone = Field(
        None, description="PEM file of CA certificates to trust, instead of the default ones."
    )
    host_header: str = Field(
        "",
        description="Host name, for a gateway addressed by its IP: HTTP Host header, gRPC authority and TLS server "
        "name.",
    )

    @model_validator(mode="after")
    def _has_one_model(self) -> PredictConfig:
        if (self.model is None) == (self.endpoint == ""):
            raise ValueError("give either --model or --endpoint")
        given = [name for name in ("token_file", "ca_file", "host_header") if getattr(self, name)]
        if given and not self.endpoint:
            raise ValueError(f"{', '.join('--' + name.replace('_', '-') for name in given)} go with --endpoint")
        if self.ca_file and not self.endpoint.startswith(("https://", "grpcs://")):
            raise ValueError("--ca-file goes with an --endpoint of https:// or grpcs://")
        return self


class VerifyModelConfig(StepConfig):
    """Verify that a version is unchanged since packaging: its files by digest, the model by its golden tiles."""

    model_root: Place = setting_of(ListModelsConfig, "model_root")
    name: str = model_name()
    version: int = setting_of(ShowModelConfig, "version")
