"""Settings of the verbs for Kubeflow Pipelines: submit, schedule and settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from sat_xception.settings.config import POSITIONAL, StepConfig, second_name
from sat_xception.settings.types import LocalFileOrNone

__all__ = ["ApplyConfig", "DeleteConfig", "KfpConfig", "ListConfig", "SettingsConfig", "SubmitConfig"]


class KfpConfig(StepConfig):
    """How to reach Kubeflow Pipelines."""

    endpoint: str = Field(
        "", description="Address of Kubeflow Pipelines' UI or API, http(s)://host:port. Default: $KFP_ENDPOINT."
    )
    namespace: str = Field("", description="Namespace, on a multi-user Kubeflow only. Default: $KFP_NAMESPACE.")
    token_env: str = Field(
        "KFP_EXISTING_TOKEN", description="Environment variable that holds the bearer token, if one is needed."
    )
    token_file: LocalFileOrNone = Field(
        None, description="File that holds the bearer token; read before each request, since tokens expire."
    )
    request_timeout_s: float = Field(30.0, gt=0, description="Timeout of one request including retries, in seconds.")


class SubmitConfig(KfpConfig):
    """Upload the training pipeline to Kubeflow, run it and wait for the result."""

    file: LocalFileOrNone = Field(None, description="Compiled pipeline. Default: compile pipelines/training.py now.")
    data_volume: str = Field(
        "",
        description="PersistentVolumeClaim that the tasks mount at /data, as CLAIM or CLAIM/FOLDER. Default: "
        "$DATA_VOLUME; none if it isn't set. Not with --file.",
    )
    results_volume: str = Field(
        "",
        description="PersistentVolumeClaim that the tasks mount at /results and write to, as CLAIM or CLAIM/FOLDER. "
        "Default: $RESULTS_VOLUME; none if it isn't set. Not with --file.",
    )
    experiment: str = Field("school-classifier", min_length=1, description="Experiment of the run.")
    run_name: str = Field("", description="Name of the run. Default: the pipeline's name and the UTC time.")
    params: LocalFileOrNone = Field(None, description="YAML file of pipeline parameters.")
    param: tuple[str, ...] = Field(
        (), description="A pipeline parameter as NAME=VALUE; overrides --params; repeat for more."
    )
    service_account: str = Field("", description="Kubernetes service account of the run's pods. Default: KFP's own.")
    cache: bool = Field(
        True,
        description="Reuse results of identical tasks from earlier runs. If disabled, the run uses its own copy of "
        "the pipeline.",
    )
    run: bool = Field(True, description="Start a run; if disabled, only upload the pipeline.")
    wait: bool = Field(True, description="Wait for the run, and exit with its result.")
    timeout_s: float = Field(
        0.0, ge=0, description="Maximum wait, in seconds; 0 is unlimited. The run continues after it."
    )
    poll_s: float = Field(5.0, gt=0, description="Poll interval of the run's state, in seconds.")
    dry_run: bool = Field(False, description="Show what would be uploaded and sent, without doing it.")

    @model_validator(mode="after")
    def _compiles_with_volumes(self) -> SubmitConfig:
        for name in ("data_volume", "results_volume"):
            if self.file and getattr(self, name):
                raise ValueError(
                    f"--{name.replace('_', '-')} is part of a compiled pipeline, and --file is compiled already: set "
                    f"{name.upper()} when you compile it"
                )
        return self


class SettingsConfig(StepConfig):
    """Print every setting of a pipeline with its default and description, as YAML for its parameter `settings`."""

    pipeline: str = Field("training", description="Name of the pipeline.", json_schema_extra=POSITIONAL)


class ApplyConfig(KfpConfig):
    """Create or update the schedules of a file; schedules that already match it are left unchanged."""

    file: Path = Field(description="Schedule file, YAML.", json_schema_extra=second_name("-f"))
    dry_run: bool = Field(False, description="Show what would change, without changing it.")


class ListConfig(KfpConfig):
    """List the schedules on the server."""

    file: LocalFileOrNone = Field(
        None, description="List only the schedules of this file.", json_schema_extra=second_name("-f")
    )
    as_json: bool = Field(False, description="Print the server's JSON.", json_schema_extra=second_name("--json"))


class DeleteConfig(KfpConfig):
    """Delete schedules by name; runs that they started continue."""

    names: tuple[str, ...] = Field((), description="Names of schedules.", json_schema_extra=POSITIONAL)
    file: LocalFileOrNone = Field(
        None, description="Delete all schedules of this file instead.", json_schema_extra=second_name("-f")
    )

    @model_validator(mode="after")
    def _says_which(self) -> DeleteConfig:
        if bool(self.names) == bool(self.file):
            raise ValueError("give either names or --file")
        return self
