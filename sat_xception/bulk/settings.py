"""Settings of bulk scoring: plan the tiles of an area, score them, inspect the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from sat_xception.dataset.settings import AssembleConfig, LabelsConfig
from sat_xception.examples.settings import ConvertConfig
from sat_xception.imagery.settings import ImagerySettings
from sat_xception.settings.config import POSITIONAL, StepConfig, second_name, setting_of, shown
from sat_xception.settings.types import (
    Address,
    FileOrNone,
    FolderOrNone,
    Place,
    PlaceOrNone,
    Result,
    check_layers,
    layers_of,
    model_name,
)
from sat_xception.storage import Stored

__all__ = [
    "BulkPlanConfig",
    "BulkPredictConfig",
    "BulkRetryConfig",
    "BulkStatusConfig",
    "EngineName",
    "EnginePrecision",
    "ScoringConfig",
]

EngineName = Literal["auto", "tensorflow", "openvino"]
EnginePrecision = Literal["fp32", "bf16", "int8"]
_PRECISION_HELP = "Precision of the openvino engine. bf16 and int8 are faster and less accurate; the loss is measured."


class ScoringConfig(StepConfig):
    """The model, and the engine that runs it."""

    model: Place = Field(description="A packaged version, the folder of a model name, or a model root.")
    name: str = model_name()
    engine: EngineName = Field(
        "auto", description="Inference engine. auto: openvino if it is installed and there is no GPU."
    )
    precision: EnginePrecision = Field("fp32", description=_PRECISION_HELP)
    calibrate: FolderOrNone = Field(
        None,
        description="Examples written by convert: int8 is calibrated on their training split, and accuracy losses are "
        "measured on valid.",
    )
    batch_size: int = Field(32, gt=0, le=4096, description="Maximum batch size, in tiles.")


class BulkPlanConfig(ImagerySettings):
    """Plan which tiles are scored, in shards; estimate tiles, time, bytes and cost before the run."""

    area: FileOrNone = Field(
        None, description="Area as polygons, or as points and lines with --buffer-m, in any vector format."
    )
    area_layer: tuple[str, ...] = layers_of("--area")
    bbox: str = Field(
        "", description="Instead of --area: west,south,east,north in degrees; west > east crosses the antimeridian."
    )
    tiles: FileOrNone = Field(
        None, description="Instead of --area: a list of tiles, as .txt with z/x/y lines, .csv or .parquet."
    )
    dataset: FolderOrNone = Field(
        None, description="Instead of --area: a dataset written by assemble, with its images."
    )
    zoom: int = setting_of(LabelsConfig, "zoom")
    buffer_m: float = Field(0.0, ge=0, description="Buffer around the features of --area, in metres.")
    scored: Annotated[tuple[Path, ...], Stored("folder", "scores.json")] = Field(
        (), description="Scores of an earlier run: tiles that --model has scored there are skipped; repeat for more."
    )
    scored_under: PlaceOrNone = Field(
        None,
        description="Folder of score folders: tiles of every finished run of --model on this --imagery are skipped. "
        "If no tiles remain, the plan is empty, which is not an error.",
    )
    model: PlaceOrNone = Field(
        None, description="Model that will score the tiles: --scored compares its version, and its speed is measured."
    )
    name: str = model_name()
    engine: EngineName = setting_of(ScoringConfig, "engine")
    shard_tiles: int = Field(
        10_000, gt=0, le=1_000_000, description="Tiles per shard: the maximum that is lost if a process is killed."
    )
    probe: int = Field(
        24, ge=0, le=1000, description="Number of tiles fetched to measure their size and time; 0 fetches none."
    )
    backend: str = Field(
        "this-machine", description="Hardware profile used for the estimate; docs/bulk.md lists the names."
    )
    machines: int = Field(1, gt=0, description="Number of such machines.")
    prices: FileOrNone = Field(
        None, description="YAML of hardware profiles with rates and prices, instead of the built-in ones."
    )
    max_pixels: int = setting_of(AssembleConfig, "max_pixels")
    out: Result = Field(description="Folder to write the plan to.")

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if sum(map(bool, (self.area, self.bbox, self.tiles, self.dataset))) != 1:
            raise ValueError("give one of --area, --bbox, --tiles and --dataset")
        if bool(self.dataset) == bool(self.imagery):
            raise ValueError("give --imagery, unless the images come from a --dataset")
        check_layers(self)
        if self.buffer_m and not self.area:
            raise ValueError("--buffer-m goes with --area")
        for flag, given in (("--scored", self.scored), ("--scored-under", self.scored_under)):
            if given and not self.model:
                raise ValueError(f"{flag} needs --model: what another version scored isn't left out")
        return self


class BulkPredictConfig(ScoringConfig):
    """Score the tiles of a plan, shard by shard. After a kill, the same command resumes without losing a tile."""

    plan: Place = Field(description="Plan written by `sat_xception bulk plan`.")
    imagery: str = Field("", description="The plan's imagery address, if it contains a key; plans don't store keys.")
    endpoint: Address = Field(
        "",
        description="Score with a server that serves --model: grpc://host:port or http://host:port. Default: in this "
        "process.",
    )
    in_flight: int = Field(4, gt=0, le=256, description="Concurrent requests to the --endpoint, per process.")
    timeout_s: float = Field(60.0, gt=0, description="Timeout of a request to the --endpoint, in seconds.")
    workers: int = setting_of(ImagerySettings, "workers")
    rate_per_s: float = setting_of(ImagerySettings, "rate_per_s")
    processes: int = Field(
        1, gt=0, description="Number of scoring processes; each loads the model and uses its share of the cores."
    )
    part: str = Field(
        "",
        pattern=r"^([1-9][0-9]{0,3}/[1-9][0-9]{0,3})?$",
        description="Score one part of the shards: 2/8 is the second of eight, for tasks that run in parallel on one "
        "--out. Default: score all shards that are not scored yet, then close the ledger.",
    )
    runner: str = setting_of(ConvertConfig, "runner")
    beam_options: tuple[str, ...] = setting_of(ConvertConfig, "beam_options")
    out: Place = Field(description="Folder to write the scores to; finished shards in it are kept.")

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON types, with keys and passwords in addresses masked."""
        return super().resolved() | {"imagery": shown(self.imagery), "endpoint": shown(self.endpoint)}

    def has_shard(self, shard: int) -> bool:
        """Return whether a shard, counted from 0, belongs to this part."""
        number, _, parts = self.part.partition("/")
        return not self.part or shard % int(parts) == int(number) - 1

    @field_validator("part")
    @classmethod
    def _is_one_of_them(cls, part: str) -> str:
        number, _, parts = part.partition("/")
        if part and int(number) > int(parts):
            raise ValueError(f"there are {parts} parts; got number {number}")
        return part

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        ConvertConfig.check_runner(self.runner, self.beam_options, self.processes > 1)
        if self.endpoint and (self.engine != "auto" or self.precision != "fp32"):
            raise ValueError("--engine and --precision are of a model in this process; the --endpoint has its own")
        if self.precision != "fp32" and self.engine == "tensorflow":
            raise ValueError(f"--precision {self.precision} is of --engine openvino")
        if self.precision != "fp32" and self.calibrate is None:
            raise ValueError(f"--precision {self.precision} needs --calibrate: what it costs in accuracy is measured")
        return self


class BulkRetryConfig(BulkPredictConfig):
    """Score the failed tiles again, in the folder of the scores; the other tiles are left unchanged."""

    @field_validator("part")
    @classmethod
    def _has_no_part(cls, part: str) -> str:
        if part:
            raise ValueError("all failed tiles are scored again; leave --part out")
        return part


class BulkStatusConfig(StepConfig):
    """Report the progress of a bulk run, and that no tile is lost: planned = scored + failed + waiting."""

    scores: Place = Field(description="Folder that `sat_xception bulk predict` writes.", json_schema_extra=POSITIONAL)
    as_json: bool = Field(False, description="Print JSON.", json_schema_extra=second_name("--json"))
