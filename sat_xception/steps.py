"""What each step takes: one configuration class a step, and the function that does the work.

The command line, the components and the tests all read this table, so a setting has one name, one default and one
description. Nothing here imports TensorFlow; a step's module is imported when the step runs.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from sat_xception.config import POSITIONAL, StepConfig, load_config, second_name, setting_of
from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.log import get_logger, quiet_imports, set_up_logging
from sat_xception.storage import GcsPath, Stored, write_json

__all__ = [
    "DATASET_VERBS",
    "SMALLEST_INPUT",
    "STEPS",
    "TERMINATION_LOG_ENV",
    "AssembleConfig",
    "BackboneName",
    "ConvertConfig",
    "DeployConfig",
    "DiffConfig",
    "EvaluateConfig",
    "GateConfig",
    "NotifyConfig",
    "PackageConfig",
    "PredictConfig",
    "ServeConfig",
    "Step",
    "StepResult",
    "TrainConfig",
    "TrainFoldersConfig",
    "ValidateConfig",
    "run_step",
    "telling_why",
]

_log = get_logger(__name__)

# Names the file that gets the reason when a component's step fails; otherwise Kubernetes's own place, if there is one.
TERMINATION_LOG_ENV = "SAT_XCEPTION_TERMINATION_LOG"

BackboneName = Literal["xception", "mobilenetv2"]
# Height and width in pixels that Keras's constructors ask for at least; here, so that it is known without TensorFlow.
SMALLEST_INPUT: Mapping[str, int] = {"xception": 71, "mobilenetv2": 32}
Fraction = Annotated[float, Field(ge=0, le=1)]
# Paths that may be gs:// addresses; see docs/storage.md. What is read is local by the time a step's function is called.
Folder = Annotated[Path, Stored("folder")]
FolderOrNone = Annotated[Path | None, Stored("folder")]
FileOrNone = Annotated[Path | None, Stored("file")]
Dataset = Annotated[Path, Stored("folder", "dataset.json")]
Examples = Annotated[Path, Stored("folder", "examples.json")]
TrainedModel = Annotated[Path, Stored("folder", "train.json")]
Result = Annotated[Path, Stored("result")]


def _fractions_sum_to_one(fractions: tuple[float, float, float]) -> tuple[float, float, float]:
    if abs(sum(fractions) - 1.0) > 1e-6:
        raise ValueError(f"fractions sum to {sum(fractions):g}, expected 1")
    return fractions


def _names_weights(weights: str) -> str:
    if weights not in ("imagenet", "none") and not weights.endswith((".h5", ".hdf5")):
        raise ValueError("expected 'imagenet', 'none', or a path or gs:// address of a .h5 file")
    return weights


def _is_address(address: str) -> str:
    if address and not address.startswith(("http://", "https://", "grpc://")):
        raise ValueError("expected http://host:port, https://host:port or grpc://host:port")
    return address


Fractions = Annotated[tuple[Fraction, Fraction, Fraction], AfterValidator(_fractions_sum_to_one)]


class AssembleConfig(StepConfig):
    """Gather labelled tiles into a dataset: Parquet shards, a manifest with a row for each tile, a digest."""

    data: Annotated[str, Stored("folder")] = Field(
        "", description="Class folders, DIR/<class>/* or DIR/{train,valid,test}/<class>/*; or 'sample'."
    )
    train: FolderOrNone = Field(None, description="Class folders of the training split, instead of --data.")
    valid: FolderOrNone = Field(None, description="Class folders of the validation split, with --train.")
    test: FolderOrNone = Field(None, description="Class folders of the test split, with --train.")
    labels: FileOrNone = Field(
        None, description="Labelled places, instead of --data: GeoJSON, GeoPackage, Shapefile, CSV, Parquet."
    )
    label_column: str = Field("label", description="Column of the labels that holds the class.")
    label: str = Field("", description="Class of every labelled place, instead of a column.")
    slice_columns: tuple[str, ...] = Field((), description="Columns of the labels to keep with each tile, as slices.")
    zoom: int = Field(18, ge=0, le=22, description="Zoom of the tiles, with --labels.")
    imagery: str = Field(
        "",
        description="Imagery of --labels: a URL template with {z}, {x}, {y}, a folder of z/x/y.jpg, an MBTiles file.",
    )
    imagery_token_env: str = Field("", description="Environment variable that fills {token} in the URL template.")
    imagery_attribution: str = Field("", description="Whom the imagery's licence wants named; kept with the dataset.")
    imagery_contact: str = Field("", description="Your address or page, for the tile server's owner.")
    imagery_tms: bool = Field(False, description="The imagery counts rows from the south, as TMS does.")
    workers: int = Field(16, gt=0, le=256, description="Tiles in flight at once.")
    rate_per_s: float = Field(0.0, ge=0, description="Most requests a second. Default: no limit.")
    tile_size: int = Field(0, ge=0, description="Width and height that a tile must have, in pixels. Default: any.")
    tile_cache: Path | None = Field(
        None, description="Folder that keeps fetched tiles. Default: beside --out, until the dataset is complete."
    )
    negative_label: str = Field("", description="Class of the negatives below. Default: 'not-' and the positive label.")
    negatives_ratio: float = Field(0.0, ge=0, description="Random negatives a positive tile, with --labels.")
    negatives_within: FileOrNone = Field(
        None, description="Polygons to draw them in. Default: around the labelled places."
    )
    negatives_distance_m: float = Field(
        10_000.0, gt=0, description="Their largest distance from a labelled place, in metres, without polygons."
    )
    negatives_buffer_m: float = Field(
        500.0,
        ge=0,
        description="Least distance of random negatives and look-alikes from any labelled place, in metres.",
    )
    negatives_lookalikes: FileOrNone = Field(
        None, description="Second layer, of things that look alike: its tiles are negatives."
    )
    negatives_review: FileOrNone = Field(
        None, description="Reviewed tiles, with a 'verdict' of yes, no or unsure, which overrules the labels."
    )
    # About 7 km wide at 45 degrees: wider than most towns, so few straddle two splits.
    block_zoom: int = Field(12, ge=0, description="Zoom of the blocks that share a split, with --labels.")
    out: Result = Field(description="Folder to write the dataset to.")
    fractions: Fractions = Field(
        (0.7, 0.15, 0.15), description="Shares of train, valid and test. A split that the folders give is kept."
    )
    seed: int = Field(0, description="Part of the hash that deals tiles to splits.")
    positive_label: str = Field(
        "", description="The class that is looked for. Default: 'school', or X where the other class is 'not-X'."
    )
    # Pillow itself refuses more than twice its MAX_IMAGE_PIXELS.
    max_pixels: int = Field(
        64_000_000, gt=0, le=178_956_970, description="Larger images are refused unread (decompression bombs)."
    )
    max_failed: Fraction = Field(0.05, description="Stop when more than this share of the tiles can't be read.")

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON types; of an address, what may be a key or a password is left out."""
        settings = super().resolved()
        settings["imagery"] = re.sub(r"(?<=://)[^/@]*@|(?<==)[^&{}]+(?=&|$)", "***", self.imagery)
        return settings

    @model_validator(mode="after")
    def _has_one_source(self) -> AssembleConfig:
        if sum(map(bool, (self.data, self.train, self.labels))) != 1:
            raise ValueError("give either --data, or --train with --valid, or --labels with --imagery")
        if bool(self.labels) != bool(self.imagery):
            raise ValueError("--labels and --imagery go together")
        if self.labels and self.tile_cache is None and isinstance(self.out, GcsPath):
            raise ValueError("--labels with an --out in a bucket need --tile-cache, a folder here for fetched tiles")
        if self.block_zoom > self.zoom:
            raise ValueError(f"--block-zoom {self.block_zoom} is above --zoom {self.zoom}")
        if self.negatives_buffer_m >= self.negatives_distance_m:
            raise ValueError("--negatives-distance-m must be more than --negatives-buffer-m")
        if (self.valid or self.test) and not self.train:
            raise ValueError("--valid and --test go with --train")
        return self


class ConvertConfig(StepConfig):
    """Turn a dataset into TFRecord files of `tf.train.Example`, without re-encoding an image."""

    dataset: Dataset = Field(description="Dataset written by assemble.")
    out: Result = Field(description="Folder to write the examples to.")
    shard_mb: int = Field(128, gt=0, description="Size of a TFRecord file, about, in MB.")


class ValidateConfig(StepConfig):
    """Check the examples with TensorFlow Data Validation: statistics, schema, anomalies, skew between splits."""

    examples: Examples = Field(description="Examples written by convert.")
    out: Result = Field(description="Folder to write statistics, schema, anomalies and the report to.")
    schema_file: FileOrNone = Field(
        None, description="Reviewed schema.pbtxt. Default: inferred from the training split."
    )
    accept: tuple[str, ...] = Field(
        (), description="Anomalies that don't stop the run, as <split>:<feature>:<kind>; '*' matches anything."
    )
    max_skew: float = Field(
        0.3, gt=0, description="Largest distance of a feature's distribution between training and another split."
    )


class TrainConfig(StepConfig):
    """Transfer-learn one backbone: a head on frozen features, then fine-tuning; the better of the two is kept."""

    examples: Examples = Field(description="Examples written by convert.")
    out: Result = Field(description="Folder to write the model, its history and its curves to.")
    backbone: BackboneName = Field("xception", description="Network to start from.")
    weights: Annotated[str, AfterValidator(_names_weights)] = Field(
        "imagenet", description="'imagenet' (downloaded), a .h5 file, gs://…/file.h5, or 'none'."
    )
    input_size: int = Field(
        0, ge=0, description="Height and width of the input in pixels. Default: the backbone's own."
    )
    alpha: float = Field(1.0, gt=0, description="Width multiplier of MobileNetV2.")
    batch_size: int = Field(32, gt=0, description="Tiles a step.")
    head_epochs: int = Field(100, gt=0, description="Most epochs of the head on frozen features.")
    fine_tune_epochs: int = Field(10, ge=0, description="Most epochs of fine-tuning; 0 leaves it out.")
    fine_tune_from: str = Field("", description="First layer that fine-tuning changes. Default: the backbone's own.")
    head_learning_rate: float = Field(1e-3, gt=0, description="Adam's rate for the head.")
    fine_tune_learning_rate: float = Field(1e-4, gt=0, description="Adam's rate for fine-tuning.")
    scratch_epochs: int = Field(25, gt=0, description="Epochs of the whole network where weights is 'none'.")
    scratch_learning_rate: float = Field(
        0.0, ge=0, description="Adam's first rate where weights is 'none'; it falls to 0. Default: the backbone's own."
    )
    patience: int = Field(10, gt=0, description="Epochs without a better validation accuracy before a phase stops.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of the features dropped before the last layer.")
    class_weights: bool = Field(True, description="Weigh classes by the inverse of their counts.")
    views: int = Field(2, ge=1, le=8, description="Flips and quarter turns of each tile that the head trains on.")
    seed: int = Field(0, description="Seed of weights, order and augmentation.")
    tensorboard: Path | None = Field(None, description="Folder for TensorBoard's logs. Default: tensorboard/ in --out.")

    @field_validator("input_size")
    @classmethod
    def _is_large_enough(cls, input_size: int, info: ValidationInfo) -> int:
        smallest = SMALLEST_INPUT.get(info.data.get("backbone", ""), 0)
        if 0 < input_size < smallest:
            raise ValueError(f"{info.data['backbone']} takes {smallest} pixels or more, or 0 for its own size")
        return input_size


class TrainFoldersConfig(StepConfig):
    """The original's command: class folders in, a trained and packaged model out."""

    model: BackboneName = Field("xception", description="Backbone, as in the original.")
    train: Folder = Field(description="Class folders to train on.")
    valid: Folder = Field(description="Class folders to validate on.")
    weights: Annotated[str, AfterValidator(_names_weights)] = setting_of(TrainConfig, "weights")
    alpha: float = setting_of(TrainConfig, "alpha")
    input_size: int = setting_of(TrainConfig, "input_size")
    seed: int = setting_of(TrainConfig, "seed")
    models: Path = Field(Path("models"), description="Folder that gets a folder for this run.")
    tensorboard: Path = Field(Path("tensorboard"), description="Folder that gets this run's TensorBoard logs.")


class EvaluateConfig(StepConfig):
    """Score a split with a trained model: accuracy, precision, recall, F1, areas under curves, calibration."""

    model: TrainedModel = Field(description="Model folder written by train.")
    examples: Examples = Field(description="Examples written by convert.")
    out: Result = Field(description="Folder to write evaluation.json, predictions.parquet and the report to.")
    split: Literal["train", "valid", "test"] = Field("valid", description="Split to score.")
    batch_size: int = Field(32, gt=0, description="Tiles a step.")


class GateConfig(StepConfig):
    """Choose the model that may be deployed, or none."""

    evaluations: Annotated[tuple[Path, ...], Stored("folder", "evaluation.json")] = Field(
        min_length=1, description="Folders written by evaluate, one a candidate."
    )
    out: Result = Field(description="Folder to write the decision and the run's report to.")
    min_accuracy: Fraction = Field(0.85, description="Lowest validation accuracy.")
    min_recall: Fraction = Field(0.0, description="Lowest recall of the positive class (macro average without one).")
    min_precision: Fraction = Field(
        0.0, description="Lowest precision of the positive class (macro average without one)."
    )
    max_calibration_error: Fraction = Field(1.0, description="Largest expected calibration error.")
    require_winner: bool = Field(False, description="Exit with 5 when no model passes.")


class PackageConfig(StepConfig):
    """Export a model for TensorFlow Serving, prove that it answers as Keras does, score the test split once."""

    model: TrainedModel = Field(description="Model folder written by train.")
    examples: Examples = Field(description="Examples written by convert, for golden tiles and the test split.")
    decision: Annotated[Path | None, Stored("folder", "decision.json")] = Field(
        None, description="Folder written by gate; the package refuses a model that lost."
    )
    out: Path = Field(description="Model root: the model goes to OUT/<name>/<version>/.")
    name: str = Field(
        "school-classifier", pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", description="Name it is served as."
    )
    version: int = Field(
        0, ge=0, lt=2**63, description="Version, a positive integer. Default: the UTC time as YYYYMMDDhhmmss."
    )
    golden_tiles: int = Field(8, gt=0, le=64, description="Tiles stored with their expected answers.")


class DeployConfig(StepConfig):
    """Put a packaged model where it answers, and prove with its golden tiles that it is the one that does."""

    target: Literal["local"] = Field("local", description="Where to: a model root that `sat_xception serve` watches.")
    package: Path = Field(description="Model root written by package.")
    name: str = setting_of(PackageConfig, "name")
    model_root: Path = Field(description="Model root of the endpoint.")
    endpoint: Annotated[str, AfterValidator(_is_address)] = Field(
        "", description="REST address of a running server. Default: one is started for the proof."
    )
    timeout_s: float = Field(120.0, gt=0, description="How long the new version may take to answer, in seconds.")
    out: Annotated[Path | None, Stored("result")] = Field(None, description="Folder to write the deployment record to.")


class ServeConfig(StepConfig):
    """Serve a model root over TensorFlow Serving's REST and gRPC interfaces, following new versions."""

    model_root: Path = Field(Path("models/serving"), description="Folder that holds <name>/<version>/.")
    name: str = setting_of(PackageConfig, "name")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    rest_port: int = Field(8501, ge=0, le=65535, description="Port of the REST interface; 0 picks a free one.")
    grpc_port: int = Field(8500, ge=0, le=65535, description="Port of the gRPC interface; 0 picks a free one.")
    poll_s: float = Field(2.0, gt=0, description="Seconds between looks for a new version.")
    max_body_mb: int = Field(64, gt=0, description="Largest request, in MB.")
    wait: bool = Field(False, description="Start without a version and wait for the first, as TensorFlow Serving does.")


class PredictConfig(StepConfig):
    """Score image files or folders with a packaged model or a running endpoint."""

    inputs: tuple[Path, ...] = Field(
        min_length=1, description="Image files, or folders that are searched for images.", json_schema_extra=POSITIONAL
    )
    model: Path | None = Field(None, description="A packaged version, a model name's folder, or a model root.")
    endpoint: str = Field("", description="http://host:port (REST) or grpc://host:port, instead of --model.")
    name: str = setting_of(PackageConfig, "name")
    out: Path | None = Field(None, description="File to write, .csv or .json. Default: CSV on stdout.")
    batch_size: int = Field(32, gt=0, description="Images a call.")
    timeout_s: float = Field(60.0, gt=0, description="Deadline of a call, in seconds.")

    @model_validator(mode="after")
    def _has_one_model(self) -> PredictConfig:
        if (self.model is None) == (self.endpoint == ""):
            raise ValueError("give either --model or --endpoint")
        return self


class NotifyConfig(StepConfig):
    """Say how a run ended: in the log, and to a webhook when one is given."""

    pipeline: str = Field(description="Name of the run.")
    state: str = Field(description="How it ended: SUCCEEDED, FAILED or CANCELLED.")
    message: str = Field("", description="Why, when it failed.")
    webhook_env: str = Field(
        "SAT_XCEPTION_WEBHOOK", description="Environment variable that holds the webhook's address."
    )
    timeout_s: float = Field(10.0, gt=0, description="Deadline of the call, in seconds.")


class DiffConfig(StepConfig):
    """Say what changed between two versions of a dataset, by class and split."""

    old: Path = Field(description="Dataset written by assemble.", json_schema_extra=POSITIONAL)
    new: Path = Field(description="Dataset to compare it with.", json_schema_extra=POSITIONAL)
    as_json: bool = Field(False, description="Print JSON instead of a table.", json_schema_extra=second_name("--json"))


class StepResult(Protocol):
    """What a step's function returns."""

    def summary(self) -> str:
        """Return what was done and where it is, in a few lines for stdout."""


@dataclass(frozen=True)
class Step:
    """A verb of the command line.

    Attributes:
        config: Class of its configuration.
        function: `module:function` that takes the configuration and returns a `StepResult`.
    """

    config: type[StepConfig]
    function: str

    def run(self, settings: Mapping[str, object], file: Path | None = None) -> Any:  # noqa: ANN401 - each step has its own result
        """Do the step's work with settings that override those of a YAML file; return its result.

        Raises:
            SatXceptionError: The settings or the data are wrong, or something outside failed.
        """
        config = load_config(self.config, file, settings)
        _log.debug("settings  %s", config.resolved())
        function = self.load()
        return function(config.at_hand())

    def load(self) -> Callable[[Any], StepResult]:
        """Import the module and return the function.

        Raises:
            ConfigError: Something it needs isn't installed.
        """
        module, name = self.function.split(":")
        try:
            with quiet_imports():
                function: Callable[[Any], StepResult] = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("sat_xception."):
                raise ConfigError("this step isn't in this image, which holds one step's code; run its own") from None
            raise ConfigError(
                f"this step needs {error.name}, which isn't installed: pip install 'sat-xception[all]'"
            ) from error
        return function


STEPS: dict[str, Step] = {
    "assemble": Step(AssembleConfig, "sat_xception.data.assemble:assemble"),
    "convert": Step(ConvertConfig, "sat_xception.data.tfrecord:convert"),
    "validate": Step(ValidateConfig, "sat_xception.data.validate:validate"),
    "train": Step(TrainConfig, "sat_xception.model.train:train"),
    "evaluate": Step(EvaluateConfig, "sat_xception.evaluate.evaluate:evaluate"),
    "gate": Step(GateConfig, "sat_xception.evaluate.gate:gate"),
    "package": Step(PackageConfig, "sat_xception.model.package:package"),
    "deploy": Step(DeployConfig, "sat_xception.deploy.deploy:deploy"),
    "serve": Step(ServeConfig, "sat_xception.serve.server:serve"),
    "predict": Step(PredictConfig, "sat_xception.serve.predict:predict"),
    "notify": Step(NotifyConfig, "sat_xception.notify:notify"),
    "train-folders": Step(TrainFoldersConfig, "sat_xception.model.train_folders:train_folders"),
}

# What people do with datasets beside the pipeline: `sat_xception dataset <verb>`.
DATASET_VERBS: dict[str, Step] = {"diff": Step(DiffConfig, "sat_xception.data.diff:diff_datasets")}


def run_step(verb: str, **settings: object) -> Any:  # noqa: ANN401 - each step has its own result
    """Run a step from a component: do the work, print the summary, return the result.

    An error that a user can act on ends the process, as `telling_why` says.
    """
    with telling_why(verb):
        result = STEPS[verb].run(settings)
    print(result.summary(), flush=True)
    return result


@contextlib.contextmanager
def telling_why(verb: str) -> Iterator[None]:
    """End a step's process with the exit code of an error that a user can act on.

    Its message is the last line of the log, and the container's termination message, which Kubernetes shows in the
    pod's status.
    """
    set_up_logging()
    try:
        yield
    except SatXceptionError as error:
        _log.error("error     %s", error)
        _tell_why(verb, error)
        raise SystemExit(error.exit_code) from None


def _tell_why(verb: str, error: SatXceptionError) -> None:
    place = os.environ.get(TERMINATION_LOG_ENV, "/dev/termination-log")
    if TERMINATION_LOG_ENV in os.environ or os.access(place, os.W_OK):
        try:
            write_json(Path(place), {"step": verb, "exit_code": error.exit_code, "error": str(error)})
        except OSError as problem:
            _log.warning("can't write the reason to %s: %s", place, problem)
