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
    """Serve a model root over TensorFlow Serving's REST and gRPC interfaces, following new versions."""

    model_root: Place = setting_of(ListModelsConfig, "model_root")
    name: str = model_name()
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    rest_port: int = Field(8501, ge=0, le=65535, description="Port of the REST interface; 0 picks a free one.")
    grpc_port: int = Field(8500, ge=0, le=65535, description="Port of the gRPC interface; 0 picks a free one.")
    poll_s: float = Field(2.0, gt=0, description="Seconds between looks for a new version.")
    batch_size: int = Field(32, gt=0, description="Images up to which requests are merged into one run; 1 merges none.")
    batch_wait_ms: float = Field(
        2.0, ge=0, le=1000, description="Longest wait for requests that are being read, to merge with them, in ms."
    )
    batch_threads: int = Field(0, ge=0, description="Runs of the model at a time. Default: one a core.")
    max_batch_size: int = Field(512, gt=0, description="Most images of one request.")
    max_image_pixels: int = Field(
        2048 * 2048, gt=0, description="Largest image, width times height; read from its header, before it is decoded."
    )
    max_body_mb: int = Field(64, gt=0, description="Largest request, in MB.")
    max_queue: int = Field(
        256, gt=0, description="Most requests under way; others are told to come back: 429, RESOURCE_EXHAUSTED."
    )
    max_queue_mb: int = Field(512, gt=0, description="Most MB that the requests under way hold together.")
    max_connections: int = Field(1000, gt=0, description="Most open REST connections; others are closed at once.")
    timeout_s: float = Field(
        30.0, gt=0, description="Deadline of a request, in seconds, from its first line to its answer."
    )
    head_timeout_s: float = Field(
        10.0, gt=0, description="How long a client may take to send a request's header lines, in seconds."
    )
    idle_timeout_s: float = Field(
        3630.0, gt=0, description="How long a REST connection is kept open between requests, in seconds."
    )
    grace_s: float = Field(
        25.0, ge=0, description="After SIGTERM: how long requests under way may take to end, in seconds."
    )
    access_log: bool = Field(False, description="Log a line for each request.")
    enable_grpc_healthcheck_service: bool = Field(
        False,
        description="Answer grpc.health.v1 as well.",
        json_schema_extra=second_name("--enable_grpc_healthcheck_service"),
    )
    wait: bool = Field(False, description="Start without a version and wait for the first, as TensorFlow Serving does.")


class PredictConfig(StepConfig):
    """Score image files or folders with a packaged model or a running endpoint."""

    inputs: Annotated[tuple[Path, ...], Stored("place")] = Field(
        min_length=1, description="Image files, or folders that are searched for images.", json_schema_extra=POSITIONAL
    )
    model: PlaceOrNone = Field(None, description="A packaged version, a model name's folder, or a model root.")
    endpoint: str = Field(
        "", description="http(s)://host:port (REST) or grpc(s)://host:port, instead of --model; s: with TLS."
    )
    name: str = model_name()
    out: PlaceOrNone = Field(None, description="File to write, .csv or .json. Default: CSV on stdout.")
    batch_size: int = Field(32, gt=0, description="Images a call.")
    calls: int = Field(4, gt=0, description="Calls at a time; the next ones' images are read meanwhile.")
    timeout_s: float = Field(60.0, gt=0, description="Deadline of a call with its repetitions, in seconds.")
    token_file: LocalFileOrNone = Field(None, description="File with a bearer token; it is read again for each call.")
    ca_file: LocalFileOrNone = Field(
        None, description="PEM file of the authorities to trust, instead of the usual ones."
    )
    host_header: str = Field(
        "",
        description="Host that a gateway addressed by its IP is asked for: HTTP's Host, gRPC's authority, TLS's name.",
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
    """Prove that a version is what was packaged: its files by their digests, the model by its golden tiles."""

    model_root: Place = setting_of(ListModelsConfig, "model_root")
    name: str = model_name()
    version: int = setting_of(ShowModelConfig, "version")
