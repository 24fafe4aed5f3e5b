"""Settings of bulk scoring: plan the tiles of an area, score them, look after the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from sat_xception.dataset.settings import AssembleConfig, LabelsConfig
from sat_xception.examples.settings import ConvertConfig
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
    "BulkImageryConfig",
    "BulkPlanConfig",
    "BulkPredictConfig",
    "BulkRetryConfig",
    "BulkSimulateConfig",
    "BulkStatusConfig",
    "EngineName",
    "EnginePrecision",
    "ScoringConfig",
]

EngineName = Literal["auto", "tensorflow", "openvino"]
EnginePrecision = Literal["fp32", "bf16", "int8"]
_PRECISION_HELP = "Numbers of the openvino engine. bf16 and int8 are faster and less exact; the loss is measured."


class BulkImageryConfig(StepConfig):
    """Where the images of tiles come from, and how patiently they are asked for."""

    imagery: str = setting_of(LabelsConfig, "imagery")
    imagery_token_env: str = setting_of(LabelsConfig, "imagery_token_env")
    imagery_attribution: str = setting_of(LabelsConfig, "imagery_attribution")
    imagery_contact: str = setting_of(LabelsConfig, "imagery_contact")
    imagery_bands: tuple[int, ...] = setting_of(LabelsConfig, "imagery_bands")
    imagery_scale: tuple[float, ...] = setting_of(LabelsConfig, "imagery_scale")
    imagery_tms: bool = setting_of(LabelsConfig, "imagery_tms")
    tile_size: int = setting_of(LabelsConfig, "tile_size")
    workers: int = setting_of(LabelsConfig, "workers")
    rate_per_s: float = setting_of(LabelsConfig, "rate_per_s")

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON types; of an address, what may be a key or a password is left out."""
        return super().resolved() | {"imagery": shown(self.imagery)}

    @model_validator(mode="after")
    def _scale_has_two_ends(self) -> Self:
        if self.imagery_scale and (len(self.imagery_scale) != 2 or self.imagery_scale[0] == self.imagery_scale[1]):
            raise ValueError(f"--imagery-scale takes two values, black and white; got {self.imagery_scale}")
        return self


class ScoringConfig(StepConfig):
    """The model that scores, and what it runs on."""

    model: Place = Field(description="A packaged version, a model name's folder, or a model root.")
    name: str = model_name()
    engine: EngineName = Field(
        "auto", description="What runs the model in this process. auto: openvino where it is installed and no GPU is."
    )
    precision: EnginePrecision = Field("fp32", description=_PRECISION_HELP)
    calibrate: FolderOrNone = Field(
        None, description="Examples written by convert: int8 is fitted on their training split, losses are of valid."
    )
    batch_size: int = Field(32, gt=0, le=4096, description="Most tiles that are scored at once.")


class BulkPlanConfig(BulkImageryConfig):
    """Plan which tiles are scored, in shards; tell their number, the time, the bytes and the money before it begins."""

    area: FileOrNone = Field(None, description="Polygons, or points and lines with --buffer-m, in any vector format.")
    area_layer: tuple[str, ...] = layers_of("--area")
    bbox: str = Field(
        "", description="Instead: west,south,east,north in degrees; west > east crosses the antimeridian."
    )
    tiles: FileOrNone = Field(None, description="Instead: a list of tiles, .txt with z/x/y lines, .csv or .parquet.")
    dataset: FolderOrNone = Field(None, description="Instead: a dataset written by assemble, with its images.")
    zoom: int = setting_of(LabelsConfig, "zoom")
    buffer_m: float = Field(0.0, ge=0, description="How far around the places of --area it reaches, in metres.")
    scored: Annotated[tuple[Path, ...], Stored("folder", "scores.json")] = Field(
        (), description="Scores of an earlier run, whose tiles are left out if --model scored them; repeat for more."
    )
    scored_under: PlaceOrNone = Field(
        None,
        description="Folder of such folders: tiles of every finished run of --model on this --imagery are left out. "
        "When none is left, the plan is empty, and that is no error.",
    )
    model: PlaceOrNone = Field(
        None, description="The model that is going to score: --scored asks for its version, and its speed is measured."
    )
    name: str = model_name()
    engine: EngineName = setting_of(ScoringConfig, "engine")
    shard_tiles: int = Field(10_000, gt=0, le=1_000_000, description="Tiles a shard: what is lost by a kill, at most.")
    probe: int = Field(24, ge=0, le=1000, description="Tiles that are fetched to measure them; 0 asks nobody.")
    backend: str = Field("this-machine", description="What the work is reckoned for; see docs/bulk.md for their names.")
    machines: int = Field(1, gt=0, description="How many of them.")
    prices: FileOrNone = Field(
        None, description="YAML of backends with rates and prices, instead of the built-in ones."
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
    """Score the tiles of a plan, shard by shard; killed at any moment, the same command goes on and loses nothing."""

    plan: Place = Field(description="Plan written by `sat_xception bulk plan`.")
    imagery: str = Field(
        "", description="The plan's imagery, where its address has a key in it, which plans don't keep."
    )
    endpoint: Address = Field(
        "", description="Score by a server that serves --model: grpc://host:port or http://host:port. Default: here."
    )
    in_flight: int = Field(4, gt=0, le=256, description="Requests to the --endpoint at once, a process.")
    timeout_s: float = Field(60.0, gt=0, description="Deadline of a request to the --endpoint, in seconds.")
    workers: int = setting_of(LabelsConfig, "workers")
    rate_per_s: float = setting_of(LabelsConfig, "rate_per_s")
    processes: int = Field(1, gt=0, description="Processes that score, each with a model and its share of the cores.")
    part: str = Field(
        "",
        pattern=r"^([1-9][0-9]{0,3}/[1-9][0-9]{0,3})?$",
        description="Score a part of the shards, 2/8 the second of eight: for tasks side by side on one --out. "
        "Without, all shards are scored that aren't yet, and the ledger is closed.",
    )
    runner: str = setting_of(ConvertConfig, "runner")
    beam_options: tuple[str, ...] = setting_of(ConvertConfig, "beam_options")
    out: Place = Field(description="Folder to write the scores to; finished shards in it are kept.")

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON types; of an address, what may be a key or a password is left out."""
        return super().resolved() | {"imagery": shown(self.imagery), "endpoint": shown(self.endpoint)}

    def has_shard(self, shard: int) -> bool:
        """Return whether a shard, counted from 0, is of this part."""
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
    """Score the tiles again that failed, in the folder of the scores; the others stay as they are."""

    @field_validator("part")
    @classmethod
    def _has_no_part(cls, part: str) -> str:
        if part:
            raise ValueError("all failed tiles are scored again; leave --part out")
        return part


class BulkSimulateConfig(StepConfig):
    """Play a bulk run with a queue, machines that start late and fail, and see when it is through and what it costs."""

    tiles: int = Field(gt=0, description="Tiles to score.")
    backend: str = Field("t4", description="Kind of machine; see docs/bulk.md for their names.")
    backbone: str = Field("xception", description="What the model is made of.")
    tiles_per_s: float = Field(0.0, ge=0, description="Rate of one machine. Default: what is published for it.")
    machines: int = Field(1, gt=0, le=100_000, description="Most machines at once.")
    min_machines: int = Field(0, ge=0, description="Machines at the beginning. Default: all of them.")
    prestarted: bool = Field(False, description="They are started before the run, and not paid for till then.")
    startup_s: float = Field(180.0, ge=0, description="Seconds until a machine scores: node, image, model.")
    failures_per_hour: float = Field(0.0, ge=0, le=60, description="How often a machine fails an hour it is up.")
    shard_tiles: int = setting_of(BulkPlanConfig, "shard_tiles")
    prices: FileOrNone = setting_of(BulkPlanConfig, "prices")
    seed: int = Field(0, description="Of the chances.")
    as_json: bool = Field(False, description="Print JSON.", json_schema_extra=second_name("--json"))


class BulkStatusConfig(StepConfig):
    """Say how far a bulk run is, and that no tile is lost: planned = scored + failed + waiting."""

    scores: Place = Field(description="Folder that `sat_xception bulk predict` writes.", json_schema_extra=POSITIONAL)
    as_json: bool = Field(False, description="Print JSON.", json_schema_extra=second_name("--json"))
