"""The table of steps: the settings of each, and the function that does the work."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sat_xception.config import StepConfig, load_config
from sat_xception.ending import ending_well
from sat_xception.errors import ConfigError, SatXceptionError
from sat_xception.log import get_logger, quiet_imports, set_up_logging
from sat_xception.steps.assemble import AssembleConfig
from sat_xception.steps.bulk import (
    BulkPlanConfig,
    BulkPredictConfig,
    BulkRetryConfig,
    BulkSimulateConfig,
    BulkStatusConfig,
)
from sat_xception.steps.data import (
    BuildConfig,
    ConvertConfig,
    DiffConfig,
    ExportFoldersConfig,
    SampleAreaConfig,
    ValidateConfig,
)
from sat_xception.steps.model import EvaluateConfig, GateConfig, PackageConfig, TrainConfig, TrainFoldersConfig
from sat_xception.steps.publish import PublishConfig, ReviewConfig
from sat_xception.steps.rollout import DeployConfig, DeploymentsConfig, RollbackConfig
from sat_xception.steps.search import SearchConfig
from sat_xception.steps.serving import (
    ListModelsConfig,
    NotifyConfig,
    PredictConfig,
    RemoveModelsConfig,
    ServeConfig,
    ShowModelConfig,
    VerifyModelConfig,
)
from sat_xception.storage import write_json

__all__ = [
    "BULK_VERBS",
    "DATASET_VERBS",
    "MODELS_VERBS",
    "STEPS",
    "TERMINATION_LOG_ENV",
    "Step",
    "StepResult",
    "run_step",
    "step_named",
    "telling_why",
]

_log = get_logger(__name__)

# Names the file that gets the reason when a component's step fails; otherwise Kubernetes's own place, if there is one.
TERMINATION_LOG_ENV = "SAT_XCEPTION_TERMINATION_LOG"


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
        # Some libraries are imported only where there is work for them.
        with _telling_what_is_missing():
            return function(config.at_hand())

    def load(self) -> Callable[[Any], StepResult]:
        """Import the module and return the function.

        Raises:
            ConfigError: Something it needs isn't installed.
        """
        module, name = self.function.split(":")
        with _telling_what_is_missing(), quiet_imports():
            function: Callable[[Any], StepResult] = getattr(importlib.import_module(module), name)
        return function


@contextlib.contextmanager
def _telling_what_is_missing() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sat_xception."):
            raise ConfigError("this step isn't in this image, which holds one step's code; run its own") from None
        raise ConfigError(
            f"this step needs {error.name}, which isn't installed: pip install 'sat-xception[all]'"
        ) from error


STEPS: dict[str, Step] = {
    "assemble": Step(AssembleConfig, "sat_xception.data.assemble:assemble"),
    "convert": Step(ConvertConfig, "sat_xception.data.tfrecord:convert"),
    "validate": Step(ValidateConfig, "sat_xception.data.validate:validate"),
    "search": Step(SearchConfig, "sat_xception.model.search:search"),
    "train": Step(TrainConfig, "sat_xception.model.train:train"),
    "evaluate": Step(EvaluateConfig, "sat_xception.evaluate.evaluate:evaluate"),
    "gate": Step(GateConfig, "sat_xception.evaluate.gate:gate"),
    "package": Step(PackageConfig, "sat_xception.model.package:package"),
    "deploy": Step(DeployConfig, "sat_xception.deploy.deploy:deploy"),
    "rollback": Step(RollbackConfig, "sat_xception.deploy.endpoint:rollback"),
    "deployments": Step(DeploymentsConfig, "sat_xception.deploy.endpoint:list_deployments"),
    "serve": Step(ServeConfig, "sat_xception.serve.server:serve"),
    "predict": Step(PredictConfig, "sat_xception.serve.predict:predict"),
    "notify": Step(NotifyConfig, "sat_xception.notify:notify"),
    "review": Step(ReviewConfig, "sat_xception.review.server:review"),
    "train-folders": Step(TrainFoldersConfig, "sat_xception.model.train_folders:train_folders"),
}

# What people do with datasets beside the pipeline: `sat_xception dataset <verb>`.
DATASET_VERBS: dict[str, Step] = {
    "build": Step(BuildConfig, "sat_xception.data.build:build_dataset"),
    "diff": Step(DiffConfig, "sat_xception.data.diff:diff_datasets"),
    "export-folders": Step(ExportFoldersConfig, "sat_xception.data.export_folders:export_folders"),
    "sample-area": Step(SampleAreaConfig, "sat_xception.sample.area:write_sample_area"),
}

# All tiles of an area: `sat_xception bulk <verb>`.
BULK_VERBS: dict[str, Step] = {
    "plan": Step(BulkPlanConfig, "sat_xception.bulk.planning:plan_tiles"),
    "predict": Step(BulkPredictConfig, "sat_xception.bulk.predict:predict_tiles"),
    "status": Step(BulkStatusConfig, "sat_xception.bulk.ledger:tell_status"),
    "simulate": Step(BulkSimulateConfig, "sat_xception.bulk.simulate:simulate"),
    "retry-failed": Step(BulkRetryConfig, "sat_xception.bulk.predict:retry_failed"),
    "publish": Step(PublishConfig, "sat_xception.bulk.publish:publish"),
}

# What people do with a model root: `sat_xception models <verb>`.
MODELS_VERBS: dict[str, Step] = {
    "list": Step(ListModelsConfig, "sat_xception.deploy.versions:list_models"),
    "show": Step(ShowModelConfig, "sat_xception.deploy.versions:show_model"),
    "verify": Step(VerifyModelConfig, "sat_xception.deploy.versions:verify_model"),
    "gc": Step(RemoveModelsConfig, "sat_xception.deploy.versions:remove_models"),
}


def step_named(name: str) -> Step:
    """Return the step that a component is called after: `bulk_plan` is `sat_xception bulk plan`.

    Raises:
        KeyError: There is none.
    """
    group, _, verb = name.rpartition("_")
    return BULK_VERBS[verb] if group == "bulk" else STEPS[name]


def run_step(step: str, /, **settings: object) -> Any:  # noqa: ANN401 - each step has its own result
    """Run a step from a component: do the work, print the summary, return the result.

    An error that a user can act on ends the process, as `telling_why` says.
    """
    with telling_why(step):
        result = step_named(step).run(settings)
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
        with ending_well():
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
