"""Read a schedule file: YAML with one schedule per document."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from sat_xception.errors import ConfigError, did_you_mean, faults_of
from sat_xception.kubeflow.cron import check_cron, cron_in_utc

__all__ = ["Schedule", "read_schedules"]


def _has_zone(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"add a time zone, as in {moment.isoformat()}Z")
    return moment.astimezone(UTC).replace(microsecond=0)


Moment = Annotated[datetime, Field(strict=False), AfterValidator(_has_zone)]


class Schedule(BaseModel):
    """A recurring run of a pipeline.

    Attributes:
        name: Name of the schedule, unique in its namespace.
        description: Shown in the UI.
        pipeline: Name of the pipeline on the server.
        pipeline_version: Name of a version; or "latest", so that each run uses the newest version at that time.
        experiment: Experiment of the runs; a missing one is created.
        cron: Cron expression with six fields, seconds first. Either this or `interval_s`.
        interval_s: Seconds between two runs.
        timezone: Time zone of `cron`. Kubeflow's scheduler uses UTC; other zones are converted if that is exact.
        start: Time of the earliest run.
        end: Time of the latest run.
        max_concurrency: Maximum number of concurrent runs, 1 to 10; further ones wait.
        catchup: Whether all missed runs are made up for; otherwise only the newest one is.
        enabled: Whether the schedule is enabled.
        caching: Whether results of identical tasks are reused. It can only be disabled with a named version, since the
            schedule then holds a copy of the pipeline: the server has no such setting for a version.
        service_account: Kubernetes service account of the runs' pods; "" is KFP's own.
        parameters: Parameters of the pipeline; others keep their defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=100)
    description: str = ""
    pipeline: str = Field(min_length=1)
    pipeline_version: str = Field("latest", min_length=1)
    experiment: str = Field("school-classifier", min_length=1)
    cron: str | None = None
    interval_s: int | None = Field(None, ge=1)
    timezone: str = "UTC"
    start: Moment | None = None
    end: Moment | None = None
    max_concurrency: int = Field(1, ge=1, le=10)
    catchup: bool = False
    enabled: bool = True
    caching: bool = True
    service_account: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_possible(self) -> Schedule:
        if (self.cron is None) == (self.interval_s is None):
            raise ValueError("give either cron or interval_s")
        if self.cron is not None:
            cron_in_utc(check_cron(self.cron), self.timezone)
        if self.start and self.end and self.start >= self.end:
            raise ValueError(f"end {self.end} isn't after start {self.start}")
        if not self.caching and self.pipeline_version == "latest":
            raise ValueError(
                "caching: false needs the name of a version: the server can't switch it off for the newest"
            )
        return self

    @property
    def utc_cron(self) -> str:
        """Cron expression for the scheduler, in UTC."""
        return cron_in_utc(check_cron(self.cron or ""), self.timezone)


def read_schedules(path: Path) -> list[Schedule]:
    """Read a schedule file.

    Raises:
        ConfigError: The file can't be read, a key is unknown, a value is wrong, or a name is duplicate.
    """
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read the schedule {path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    schedules = []
    for document in documents:
        try:
            schedules.append(Schedule.model_validate(document))
        except ValidationError as error:
            raise ConfigError(f"{path}: {'; '.join(_explained(error))}") from None
    names = [schedule.name for schedule in schedules]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"{path} must hold schedules, each with a name of its own; found {names}")
    return schedules


def _explained(error: ValidationError) -> list[str]:
    lines = []
    for fault in faults_of(error):
        name = fault.field
        if fault.kind == "extra_forbidden":
            lines.append(f"unknown key {name!r}; {did_you_mean(name, Schedule.model_fields, 'see Schedule')}")
        else:
            lines.append(f"{name}: {fault.why}, got {fault.value!r}" if name else fault.why)
    return lines
