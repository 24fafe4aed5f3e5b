"""Settings of the two pipelines when they run on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from sat_xception.bulk.settings import BulkPlanConfig, BulkPredictConfig
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.evaluate.settings import GateConfig
from sat_xception.imagery.settings import ImagerySettings
from sat_xception.kubeflow.bulk_settings import BULK
from sat_xception.kubeflow.pipeline_settings import Headline, PipelineSettings, Resolved
from sat_xception.kubeflow.task_settings import plain
from sat_xception.kubeflow.training_settings import SAMPLE, TRAINED_BACKBONES, TRAINING
from sat_xception.model.backbones import get_backbone
from sat_xception.model.settings import TrainConfig
from sat_xception.package.settings import PackageConfig
from sat_xception.publish.settings import PublishConfig
from sat_xception.serve.settings import ServeConfig
from sat_xception.settings.config import StepConfig, setting_of, shown
from sat_xception.settings.types import FileOrNone, Fraction, LocalFileOrNone, Place, ResultOrNone
from sat_xception.storage import is_remote

__all__ = ["LOCAL_TRAINING", "RUN_FLAGS", "BulkRunConfig", "RunConfig", "flag_of", "weights_flag"]


_TRAINED = {name: get_backbone(name) for name in TRAINED_BACKBONES}
_SIZES = ", ".join(f"{backbone.local_scratch_input_size} for {name}" for name, backbone in _TRAINED.items())
_EPOCHS = ", ".join(f"{backbone.local_scratch_epochs} for {name}" for name, backbone in _TRAINED.items())


def _moved(name: str, config: type[StepConfig], pipeline: PipelineSettings, sections: Iterable[str]) -> str:
    """Return where to set a setting of a step that is no flag of a run; "" if there is none of this name."""
    section = next((section for section in sections if name in pipeline.sections[section]), "")
    example = f"put {section}: {{{name}: …}} into a YAML file, and give that as --settings"
    return f"it is now `{section}.{name}`; {example}" if section and name not in config.model_fields else ""


class RunConfig(StepConfig):
    """Run the whole training pipeline on this machine, without a cluster, and without Docker unless --runner docker."""

    runner: Literal["subprocess", "docker"] = Field(
        "subprocess",
        description="Run the steps as processes, or each in a container of its image (after `make images`).",
    )
    settings: LocalFileOrNone = Field(
        None,
        description="YAML file of further settings of the steps, a section per step, as `sat_xception settings` prints "
        "them.",
    )
    data: str = Field(
        SAMPLE,
        description="Folder of class folders, local or in a bucket; 'sample' draws the synthetic sample. Or give "
        "--labels.",
    )
    labels: FileOrNone = setting_of(AssembleConfig, "labels")
    imagery: str = setting_of(AssembleConfig, "imagery")
    zoom: int = setting_of(AssembleConfig, "zoom")
    positive_label: str = Field("", description="The positive class. Default: see `assemble --help`.")
    weights: tuple[str, ...] = Field(
        (),
        description="Weights file of a backbone, which is recognised by the file. Or BACKBONE=imagenet.",
    )
    out: Path = Field(Path("runs"), description="Parent folder of the folder of this run.")
    model_root: Place = Field(Path("models/serving"), description="Model root of the endpoint.")
    name: str = setting_of(PackageConfig, "name")
    alpha: float = Field(
        0.35, gt=0, description=f"{TrainConfig.model_fields['alpha'].description} A weights file overrides it."
    )
    input_size: int = Field(
        0,
        ge=0,
        description=f"Input size of each model, in pixels. Default: {_SIZES} from random weights, otherwise the "
        "backbone's own.",
    )
    seed: int = setting_of(TrainConfig, "seed")
    head_epochs: int = setting_of(TrainConfig, "head_epochs")
    fine_tune_epochs: int = setting_of(TrainConfig, "fine_tune_epochs")
    scratch_epochs: int = Field(0, ge=0, description=f"Number of epochs from random weights. Default: {_EPOCHS}.")
    min_accuracy: Fraction = Field(0.80, description="Minimum validation accuracy, for the gate.")
    min_recall: Fraction = setting_of(GateConfig, "min_recall")
    min_precision: Fraction = setting_of(GateConfig, "min_precision")
    max_loss: Fraction = setting_of(GateConfig, "max_loss")
    baseline: ResultOrNone = Field(
        None,
        description="Folder, local or in a bucket, that keeps the schema, statistics and last-run.json of the last run "
        "for the next one.",
    )
    store: ResultOrNone = Field(
        None,
        description="Folder or bucket address that stores datasets by their digest: steps that an earlier run in --out "
        "computed from the same data, settings and code are reused.",
    )

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON types, with keys and passwords in addresses masked."""
        return super().resolved() | {"imagery": shown(self.imagery)}

    @classmethod
    def moved(cls, name: str) -> str:
        """Return where to set a setting of a step that is no flag."""
        return _moved(name, cls, TRAINING, (name for name in TRAINING.sections if name not in TRAINED_BACKBONES))

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> RunConfig:
        if self.labels and self.data not in ("", SAMPLE):
            raise ValueError("give either --data or --labels")
        if self.runner == "docker" and is_remote(self.model_root):
            raise ValueError("with --runner docker, --model-root is a folder here: the server has no key to a bucket")
        return self


def flag_of(setting: str) -> str:
    """Return the flag of a setting of a run."""
    return f"--{setting.replace('_', '-')}"


def weights_flag(backbone: str) -> str:
    """Return the flag that gives the weights of a backbone."""
    return f"--weights {backbone}="


def _addresses(setting: str) -> tuple[str, ...]:
    """Return the settings of steps that a setting of the run sets: those of its name."""
    sections = [section for section in TRAINING.sections if section not in TRAINED_BACKBONES]
    if setting == "alpha":
        sections = [name for name in TRAINED_BACKBONES if get_backbone(name).has_alpha]
    return tuple(f"{section}.{setting}" for section in sections if setting in TRAINING.sections[section])


# By flag: the setting of the run that sets settings of steps.
RUN_FLAGS = {
    flag_of(setting): setting
    for setting in RunConfig.model_fields
    if setting not in ("runner", "weights") and _addresses(setting)
}


def _use_local_defaults(resolved: Resolved) -> None:
    """Set the input size and the number of epochs that aren't given, by the weights that a training starts from."""
    TRAINING.adjust(resolved)
    for name in TRAINED_BACKBONES:
        backbone, train = get_backbone(name), resolved.tasks[name]
        size = backbone.local_scratch_input_size if train.get("weights") == "none" else backbone.input_size
        for setting, default in (("input_size", size), ("scratch_epochs", backbone.local_scratch_epochs)):
            if train.names[setting] == flag_of(setting) and not train.values[setting]:
                train.values[setting] = default


# Settings of the training pipeline on this machine: flags instead of parameters, with defaults of their own.
LOCAL_TRAINING = dataclasses.replace(
    TRAINING,
    headlines={
        flag: Headline(_addresses(setting), plain(RunConfig.model_fields[setting].default))
        for flag, setting in RUN_FLAGS.items()
    }
    | {weights_flag(name): Headline((f"{name}.weights",), "none") for name in TRAINED_BACKBONES},
    adjust=_use_local_defaults,
    find_problems=lambda resolved: [],
)


class BulkRunConfig(StepConfig):
    """Run the whole bulk pipeline on this machine: plan, score in parts, close the ledger, publish."""

    settings: LocalFileOrNone = Field(
        None,
        description="YAML file of further settings of the steps, a section per step, as `sat_xception settings bulk` "
        "prints them.",
    )
    imagery: str = setting_of(ImagerySettings, "imagery")
    area: FileOrNone = Field(
        None, description="Area as polygons, or as points and lines with plan.buffer_m, in any vector format."
    )
    bbox: str = setting_of(BulkPlanConfig, "bbox")
    tiles: FileOrNone = setting_of(BulkPlanConfig, "tiles")
    zoom: int = setting_of(BulkPlanConfig, "zoom")
    model_root: Place = setting_of(ServeConfig, "model_root")
    name: str = setting_of(BulkPlanConfig, "name")
    scores: Place = Field(
        Path("scores"), description="Folder of the scores of all runs; tiles in it are not scored again."
    )
    out: Path = Field(Path("bulk-runs"), description="Parent folder of the folder of this run.")
    parts: int = Field(1, gt=0, le=64, description="Number of scoring tasks; on this machine one or two run at a time.")
    endpoint: str = setting_of(BulkPredictConfig, "endpoint")
    threshold: float = Field(0.0, ge=0, le=1, description="Decision threshold of candidates. Default: the model's own.")
    known: FileOrNone = setting_of(PublishConfig, "known")
    areas: FileOrNone = setting_of(PublishConfig, "areas")

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON types, with keys and passwords in addresses masked."""
        return super().resolved() | {"imagery": shown(self.imagery)}

    @classmethod
    def moved(cls, name: str) -> str:
        """Return where to set a setting of a step that is no flag."""
        return _moved(name, cls, BULK, BULK.sections)
