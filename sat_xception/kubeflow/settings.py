"""Settings of the verbs that talk to Kubeflow Pipelines: submit, and schedule with its verbs."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from sat_xception.settings.config import POSITIONAL, StepConfig, second_name

__all__ = ["ApplyConfig", "DeleteConfig", "KfpConfig", "ListConfig", "SubmitConfig"]


class KfpConfig(StepConfig):
    """How to reach Kubeflow Pipelines."""

    endpoint: str = Field(
        "", description="Address of Kubeflow Pipelines' UI or API, http(s)://host:port. Default: $KFP_ENDPOINT."
    )
    namespace: str = Field("", description="Namespace, on a multi-user Kubeflow only. Default: $KFP_NAMESPACE.")
    token_env: str = Field(
        "KFP_EXISTING_TOKEN", description="Environment variable that holds the bearer token, where one is needed."
    )
    token_file: Path | None = Field(
        None, description="File that holds the bearer token instead; read anew for each request, as tokens expire."
    )
    request_timeout_s: float = Field(
        30.0, gt=0, description="Deadline of one request with its repetitions, in seconds."
    )


class SubmitConfig(KfpConfig):
    """Upload the training pipeline to Kubeflow, run it and wait for the result."""

    file: Path | None = Field(None, description="Compiled pipeline. Default: pipelines/training.py, compiled now.")
    experiment: str = Field("school-classifier", min_length=1, description="Experiment that the run belongs to.")
    run_name: str = Field("", description="Name of the run. Default: the pipeline's, and the UTC time.")
    params: Path | None = Field(None, description="YAML file of the pipeline's parameters.")
    param: tuple[str, ...] = Field((), description="A parameter as NAME=VALUE; overrides --params. Repeats.")
    service_account: str = Field("", description="Kubernetes service account of the run's pods. Default: KFP's own.")
    cache: bool = Field(
        True, description="Take results of equal tasks from earlier runs. Without, the run carries its own copy."
    )
    run: bool = Field(True, description="Start a run; otherwise the pipeline is only uploaded.")
    wait: bool = Field(True, description="Wait for the run and end with its result.")
    timeout_s: float = Field(0.0, ge=0, description="Longest wait in seconds; 0 is without limit. The run goes on.")
    poll_s: float = Field(5.0, gt=0, description="Seconds between looks at the run.")
    dry_run: bool = Field(False, description="Show what would be uploaded and sent; touch nothing.")


class ApplyConfig(KfpConfig):
    """Create or update the schedules of a file; what is there already as the file says is left alone."""

    file: Path = Field(description="Schedule file, YAML.", json_schema_extra=second_name("-f"))
    dry_run: bool = Field(False, description="Show what would change; change nothing.")


class ListConfig(KfpConfig):
    """List the schedules that are on the server."""

    file: Path | None = Field(None, description="Only the schedules of this file.", json_schema_extra=second_name("-f"))
    as_json: bool = Field(
        False, description="Print JSON, as the server sends it.", json_schema_extra=second_name("--json")
    )


class DeleteConfig(KfpConfig):
    """Delete schedules by name; runs that they started go on."""

    names: tuple[str, ...] = Field((), description="Names of schedules.", json_schema_extra=POSITIONAL)
    file: Path | None = Field(None, description="Or all those of this file.", json_schema_extra=second_name("-f"))

    @model_validator(mode="after")
    def _says_which(self) -> DeleteConfig:
        if bool(self.names) == bool(self.file):
            raise ValueError("give either names or --file")
        return self
