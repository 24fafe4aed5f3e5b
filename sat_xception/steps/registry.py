"""The table of steps: the settings of each, the function that does the work, and the image that has its libraries."""

from __future__ import annotations

import json
from typing import Any

from sat_xception.bulk.settings import (
    BulkPlanConfig,
    BulkPredictConfig,
    BulkRetryConfig,
    BulkStatusConfig,
)
from sat_xception.dataset.settings import AssembleConfig, DiffConfig, ExportFoldersConfig
from sat_xception.deploy.settings import DeployConfig, DeploymentsConfig, RollbackConfig
from sat_xception.errors import ConfigError
from sat_xception.evaluate.settings import EvaluateConfig, GateConfig
from sat_xception.examples.settings import ConvertConfig
from sat_xception.kubeflow.run_settings import BulkRunConfig, RunConfig
from sat_xception.kubeflow.settings import ApplyConfig, DeleteConfig, ListConfig, SettingsConfig, SubmitConfig
from sat_xception.model.settings import TrainConfig
from sat_xception.notify.settings import NotifyConfig
from sat_xception.package.settings import PackageConfig
from sat_xception.publish.settings import PublishConfig
from sat_xception.review.settings import ReviewConfig
from sat_xception.sample.settings import SampleAreaConfig
from sat_xception.search.settings import SearchConfig
from sat_xception.serve.settings import PredictConfig, ServeConfig, VerifyModelConfig
from sat_xception.served_model.settings import ListModelsConfig, RemoveModelsConfig, ShowModelConfig
from sat_xception.settings.step import TERMINATION_LOG_ENV, Step, StepResult, reporting_errors
from sat_xception.validation.settings import ValidateConfig
from sat_xception.workflows.settings import BuildConfig, TrainFoldersConfig

__all__ = [
    "BULK_PIPELINE_VERBS",
    "BULK_VERBS",
    "DATASET_VERBS",
    "MODELS_VERBS",
    "PIPELINE_VERBS",
    "SCHEDULE_VERBS",
    "STEPS",
    "TERMINATION_LOG_ENV",
    "Step",
    "StepResult",
    "reporting_errors",
    "run_step",
    "step_named",
]

STEPS: dict[str, Step] = {
    "assemble": Step(AssembleConfig, "sat_xception.dataset.assemble:assemble", "data"),
    "convert": Step(ConvertConfig, "sat_xception.examples.convert:convert", "data"),
    "validate": Step(ValidateConfig, "sat_xception.validation.validate:validate", "validate"),
    "search": Step(SearchConfig, "sat_xception.search.search:search", "train"),
    "train": Step(TrainConfig, "sat_xception.train.train:train", "train"),
    "evaluate": Step(EvaluateConfig, "sat_xception.evaluate.evaluate:evaluate", "score"),
    "gate": Step(GateConfig, "sat_xception.evaluate.gate:gate", "light"),
    "package": Step(PackageConfig, "sat_xception.package.package:package", "score"),
    "deploy": Step(DeployConfig, "sat_xception.deploy.deploy:deploy", "light"),
    "rollback": Step(RollbackConfig, "sat_xception.deploy.kserve:rollback", "light"),
    "deployments": Step(DeploymentsConfig, "sat_xception.deploy.kserve:list_deployments", "light"),
    "serve": Step(ServeConfig, "sat_xception.serve.server:serve", "score"),
    "predict": Step(PredictConfig, "sat_xception.serve.predict:predict", "score"),
    "notify": Step(NotifyConfig, "sat_xception.notify.notify:notify", "light"),
    "review": Step(ReviewConfig, "sat_xception.review.server:review"),
    "train-folders": Step(TrainFoldersConfig, "sat_xception.workflows.train_folders:train_folders"),
}

# Verbs for datasets that aren't pipeline steps: `sat_xception dataset <verb>`.
DATASET_VERBS: dict[str, Step] = {
    "build": Step(BuildConfig, "sat_xception.workflows.build:build_dataset"),
    "diff": Step(DiffConfig, "sat_xception.dataset.diff:diff_datasets", "data"),
    "export-folders": Step(ExportFoldersConfig, "sat_xception.dataset.export_folders:export_folders", "data"),
    "sample-area": Step(SampleAreaConfig, "sat_xception.sample.area:write_sample_area", "data"),
}

# Scoring of all tiles of an area: `sat_xception bulk <verb>`.
BULK_VERBS: dict[str, Step] = {
    "plan": Step(BulkPlanConfig, "sat_xception.bulk.plan:plan_tiles", "score"),
    "predict": Step(BulkPredictConfig, "sat_xception.bulk.predict:predict_tiles", "score"),
    "status": Step(BulkStatusConfig, "sat_xception.bulk.ledger:report_status", "score"),
    "retry-failed": Step(BulkRetryConfig, "sat_xception.bulk.predict:retry_failed", "score"),
    "publish": Step(PublishConfig, "sat_xception.publish.publish:publish", "data"),
}

# Verbs for model roots: `sat_xception models <verb>`.
MODELS_VERBS: dict[str, Step] = {
    "list": Step(ListModelsConfig, "sat_xception.served_model.versions:list_models", "score"),
    "show": Step(ShowModelConfig, "sat_xception.served_model.versions:show_model", "score"),
    "verify": Step(VerifyModelConfig, "sat_xception.serve.verify:verify_model", "score"),
    "gc": Step(RemoveModelsConfig, "sat_xception.served_model.versions:remove_models", "score"),
}


# Whole pipelines, on this machine or on Kubeflow: `sat_xception <verb>`.
PIPELINE_VERBS: dict[str, Step] = {
    "run": Step(RunConfig, "sat_xception.kubeflow.run_training:run"),
    "submit": Step(SubmitConfig, "sat_xception.kubeflow.submit:submit"),
    "settings": Step(SettingsConfig, "sat_xception.kubeflow.settings_reference:print_settings"),
}

# The bulk pipeline on this machine: `sat_xception bulk run`.
BULK_PIPELINE_VERBS: dict[str, Step] = {"run": Step(BulkRunConfig, "sat_xception.kubeflow.run_bulk:run_bulk")}

# Recurring runs on Kubeflow: `sat_xception schedule <verb>`.
SCHEDULE_VERBS: dict[str, Step] = {
    "apply": Step(ApplyConfig, "sat_xception.kubeflow.schedule:apply"),
    "list": Step(ListConfig, "sat_xception.kubeflow.schedule:list_schedules"),
    "delete": Step(DeleteConfig, "sat_xception.kubeflow.schedule:delete"),
}


def step_named(name: str) -> Step:
    """Return the step of a component by its name: `bulk_plan` is `sat_xception bulk plan`.

    Raises:
        KeyError: No step has this name.
    """
    group, _, verb = name.rpartition("_")
    return BULK_VERBS[verb] if group == "bulk" else STEPS[name]


def run_step(step: str, settings: str = "", /, **others: object) -> Any:  # noqa: ANN401 - each step has its own result
    """Run a step from a component: do the work, print the summary, return the result.

    Errors that a user can act on end the process with their exit code; see `reporting_errors`.

    Args:
        step: Name of the component.
        settings: Settings as JSON, as the first task of the pipeline returns them; "" is none.
        **others: Further settings, which override those.
    """
    with reporting_errors(step):
        result = step_named(step).run({**_read_settings(settings), **others})
    print(result.summary(), flush=True)
    return result


def _read_settings(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text or "{}")
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise ConfigError(
            f"the task's settings must be a JSON object, as the first task of the pipeline returns it; got {text!r}"
        )
    return settings
