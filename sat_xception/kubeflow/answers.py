"""Validate responses of Kubeflow Pipelines; a response of another form comes from another server.

Only the fields that are used have a type; others are ignored, since newer servers send more. The API server leaves out
fields that are empty, false or 0 (backend/src/apiserver/common/utils.go, CustomMarshaler), so hardly any is required.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

__all__ = ["LISTS", "UnexpectedAnswerError", "check", "check_page", "is_health"]


class UnexpectedAnswerError(Exception):
    """A response doesn't have the form of Kubeflow Pipelines' API; the message names the field."""


def _moment(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _int64(value: str | int) -> str | int:
    """Check a 64-bit integer, which protobuf writes as a string."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,19}", value):
        raise ValueError("should be a whole number")
    return value


# Ids become parts of URLs.
_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]+$")]
_Int64 = Annotated[str | int, AfterValidator(_int64)]
_Moment = Annotated[str, AfterValidator(_moment)]


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Error(_Answer):
    message: str | None = None


class _Pipeline(_Answer):
    pipeline_id: _Id
    name: str | None = None
    display_name: str | None = None


class _Version(_Answer):
    pipeline_id: _Id
    pipeline_version_id: _Id
    name: str | None = None
    display_name: str | None = None
    pipeline_spec: dict[str, Any] | None = None


class _Experiment(_Answer):
    experiment_id: _Id
    display_name: str | None = None


class _Task(_Answer):
    task_id: str | None = None
    display_name: str | None = None
    state: str | None = None
    error: _Error | None = None


class _RunDetails(_Answer):
    task_details: list[_Task] | None = None


class _State(_Answer):
    state: str | None = None


class _Run(_Answer):
    run_id: _Id
    display_name: str | None = None
    description: str | None = None
    recurring_run_id: str | None = None
    created_at: _Moment | None = None
    state: str | None = None
    state_history: list[_State] | None = None
    error: _Error | None = None
    run_details: _RunDetails | None = None


class _Cron(_Answer):
    cron: str | None = None
    start_time: _Moment | None = None
    end_time: _Moment | None = None


class _Periodic(_Answer):
    interval_second: _Int64 | None = None
    start_time: _Moment | None = None
    end_time: _Moment | None = None


class _Trigger(_Answer):
    cron_schedule: _Cron | None = None
    periodic_schedule: _Periodic | None = None


class _Reference(_Answer):
    pipeline_id: _Id
    pipeline_version_id: _Id | None = None


class _RuntimeConfig(_Answer):
    parameters: dict[str, Any] | None = None


class _RecurringRun(_Answer):
    recurring_run_id: _Id
    experiment_id: _Id
    display_name: str | None = None
    description: str | None = None
    mode: str | None = None
    max_concurrency: _Int64 | None = None
    no_catchup: bool | None = None
    service_account: str | None = None
    trigger: _Trigger | None = None
    pipeline_version_reference: _Reference | None = None
    runtime_config: _RuntimeConfig | None = None


class _Runtime(_Answer):
    workflow_manifest: str | None = None


class _RunDetail(_Answer):
    pipeline_runtime: _Runtime | None = None


class _Node(_Answer):
    id: str
    name: str
    type: str | None = None
    templateName: str | None = None
    phase: str | None = None
    message: str | None = None
    finishedAt: str | None = None


class _Metadata(_Answer):
    name: str
    namespace: str
    annotations: dict[str, str] | None = None


class _Status(_Answer):
    message: str | None = None
    nodes: dict[str, _Node] | None = None


class _Workflow(_Answer):
    metadata: _Metadata
    status: _Status


_KINDS: dict[str, type[_Answer]] = {
    "pipeline": _Pipeline,
    "pipeline version": _Version,
    "experiment": _Experiment,
    "run": _Run,
    "recurring run": _RecurringRun,
    "run in v1beta1": _RunDetail,
    "workflow": _Workflow,
}
# Kind of the items of each list, by its key. One key isn't in snake case in the API itself.
LISTS = {
    "pipelines": "pipeline",
    "pipeline_versions": "pipeline version",
    "experiments": "experiment",
    "runs": "run",
    "recurringRuns": "recurring run",
}


def check(kind: str, content: object, where: str = "") -> None:
    """Check that a response has the form of its kind; "" accepts any JSON object.

    Raises:
        UnexpectedAnswerError: The response has another form.
    """
    if not isinstance(content, dict):
        raise UnexpectedAnswerError(f"{where or 'the answer'} is {_shown(content)}, not an object")
    if not kind:
        return
    try:
        _KINDS[kind].model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in (where, *first["loc"]) if part != "")
        if first["type"] == "missing":
            raise UnexpectedAnswerError(f"{place} of the {kind} is missing") from None
        raise UnexpectedAnswerError(f"{place} of the {kind} is {_shown(first['input'])}") from None


def check_page(key: str, content: dict[str, Any]) -> None:
    """Check that the items of a page have the form of their kind.

    Raises:
        UnexpectedAnswerError: The page or an item has another form.
    """
    items, token = content.get(key), content.get("next_page_token")
    if items is not None and not isinstance(items, list):
        raise UnexpectedAnswerError(f"{key} is {_shown(items)}, not a list")
    if token is not None and not isinstance(token, str):
        raise UnexpectedAnswerError(f"next_page_token is {_shown(token)}, not text")
    for index, item in enumerate(items or []):
        check(LISTS[key], item, f"{key}[{index}]")


def is_health(content: dict[str, Any]) -> bool:
    """Return whether a response to /healthz comes from Kubeflow Pipelines.

    The API server sends commit_sha, tag_name and multi_user. The UI's server answers itself: it sends apiServerReady
    and, if it reaches the API server, multi_user (2.5 to 2.17: backend/src/apiserver/main.go,
    frontend/server/handlers/healthz.ts).
    """
    server = isinstance(content.get("multi_user"), bool) and isinstance(content.get("commit_sha"), str)
    return server or isinstance(content.get("apiServerReady"), bool)


def _shown(value: object) -> str:
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    return kinds.get(type(value)) or repr(value)[:60]
