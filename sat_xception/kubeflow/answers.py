"""Responses of Kubeflow Pipelines as objects; a response of another form comes from another server.

Only the fields that are used have a type; newer servers send more. The API server leaves out fields that are empty,
false or 0 (backend/src/apiserver/common/utils.go, CustomMarshaler), so hardly any is required.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from sat_xception.errors import faults_of

__all__ = [
    "Answer",
    "ArgoWorkflow",
    "Experiment",
    "Health",
    "Listed",
    "Node",
    "Pipeline",
    "PipelineVersion",
    "RecurringRun",
    "RecurringRunSettings",
    "Run",
    "RunV1",
    "Trigger",
    "UnexpectedAnswerError",
    "parse",
    "parse_page",
]


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


class Answer(BaseModel):
    """A JSON object. Fields without a type are kept, for `model_dump(exclude_unset=True)`."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    kind: ClassVar[str] = ""


class Listed(Answer):
    """A resource that the server lists; `list_key` is the key of the list in a page."""

    list_key: ClassVar[str]

    name: str | None = None
    display_name: str | None = None

    def is_called(self, name: str) -> bool:
        """Return whether this is its name; older servers have only the display name."""
        return name in (self.name, self.display_name)


class _Error(Answer):
    message: str | None = None


class _Failable(Answer):
    state: str | None = None
    error: _Error | None = None

    @property
    def reason(self) -> str:
        """Message of its error; "" if the server sends none."""
        return (self.error and self.error.message) or ""


class Pipeline(Listed):
    """A pipeline."""

    kind: ClassVar[str] = "pipeline"
    list_key: ClassVar[str] = "pipelines"

    pipeline_id: _Id


class PipelineVersion(Listed):
    """A version of a pipeline; a spec with a platform spec is nested in `pipeline_spec`."""

    kind: ClassVar[str] = "pipeline version"
    list_key: ClassVar[str] = "pipeline_versions"

    pipeline_id: _Id
    pipeline_version_id: _Id
    pipeline_spec: dict[str, Any] | None = None

    @property
    def reference(self) -> dict[str, str]:
        """Reference to this version, for a request."""
        return {"pipeline_id": self.pipeline_id, "pipeline_version_id": self.pipeline_version_id}


class Experiment(Listed):
    """An experiment."""

    kind: ClassVar[str] = "experiment"
    list_key: ClassVar[str] = "experiments"

    experiment_id: _Id


class _Task(_Failable):
    task_id: str | None = None
    display_name: str | None = None


class _RunDetails(Answer):
    task_details: list[_Task] | None = None


class _State(Answer):
    state: str | None = None


class Run(_Failable, Listed):
    """A run; its tasks are the nodes of its workflow, which have neither reasons nor pods."""

    kind: ClassVar[str] = "run"
    list_key: ClassVar[str] = "runs"

    run_id: _Id
    description: str | None = None
    recurring_run_id: str | None = None
    created_at: _Moment | None = None
    state_history: list[_State] | None = None
    run_details: _RunDetails | None = None

    @property
    def tasks(self) -> list[_Task]:
        """The nodes of its workflow."""
        return (self.run_details and self.run_details.task_details) or []

    @property
    def was_canceled(self) -> bool:
        """Whether somebody cancelled it: it then ends as failed, like the tasks that were running."""
        history = [status.state for status in self.state_history or []]
        return self.state == "CANCELED" or "CANCELING" in history


class Trigger(Answer):
    """When a recurring run fires: the first and the last moment."""

    start_time: _Moment | None = None
    end_time: _Moment | None = None


class _Cron(Trigger):
    cron: str | None = None


class _Periodic(Trigger):
    interval_second: _Int64 | None = None


class _Triggers(Answer):
    cron_schedule: _Cron | None = None
    periodic_schedule: _Periodic | None = None


class _Reference(Answer):
    pipeline_id: _Id
    pipeline_version_id: _Id | None = None


class _RuntimeConfig(Answer):
    parameters: dict[str, Any] | None = None


class RecurringRunSettings(Listed):
    """What a schedule sets of a recurring run."""

    experiment_id: str
    description: str | None = None
    mode: str | None = None
    max_concurrency: _Int64 | None = None
    no_catchup: bool | None = None
    service_account: str | None = None
    trigger: _Triggers | None = None
    pipeline_version_reference: _Reference | None = None
    runtime_config: _RuntimeConfig | None = None

    @property
    def cron(self) -> _Cron | None:
        """Its cron expression, if it has one."""
        return self.trigger.cron_schedule if self.trigger else None

    @property
    def periodic(self) -> _Periodic | None:
        """Its interval, if it has one."""
        return self.trigger.periodic_schedule if self.trigger else None


class RecurringRun(RecurringRunSettings):
    """A recurring run."""

    kind: ClassVar[str] = "recurring run"
    list_key: ClassVar[str] = "recurringRuns"  # not in snake case in the API itself

    recurring_run_id: _Id
    experiment_id: _Id

    @property
    def is_enabled(self) -> bool:
        """Whether it is enabled, by its mode; its status follows the mode with some delay."""
        return self.mode == "ENABLE"


class _Runtime(Answer):
    workflow_manifest: str | None = None


class RunV1(Answer):
    """A run as version v1beta1 of the API sends it: with the Argo workflow, as JSON."""

    kind: ClassVar[str] = "run in v1beta1"

    pipeline_runtime: _Runtime | None = None

    @property
    def workflow_manifest(self) -> str:
        """The workflow, as JSON; "" if the server sends none."""
        return (self.pipeline_runtime and self.pipeline_runtime.workflow_manifest) or ""


class _Argo(Answer):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Node(_Argo):
    """A node of an Argo workflow."""

    id: str
    name: str
    type: str | None = None
    template_name: str | None = None
    phase: str | None = None
    message: str | None = None
    finished_at: str | None = None


class _Metadata(_Argo):
    name: str
    namespace: str
    annotations: dict[str, str] | None = None


class _Status(_Argo):
    message: str | None = None
    nodes: dict[str, Node] | None = None


class ArgoWorkflow(_Argo):
    """An Argo workflow."""

    kind: ClassVar[str] = "workflow"

    metadata: _Metadata
    status: _Status


class Health(Answer):
    """Response to /healthz.

    The API server sends commit_sha, tag_name and multi_user. The UI's server answers itself: it sends apiServerReady
    and, if it reaches the API server, multi_user (2.5 to 2.17: backend/src/apiserver/main.go,
    frontend/server/handlers/healthz.ts).
    """

    commit_sha: object = None
    multi_user: object = None
    api_server_ready: object = Field(None, alias="apiServerReady")

    @property
    def is_of_kubeflow(self) -> bool:
        """Whether it comes from Kubeflow Pipelines."""
        server = isinstance(self.multi_user, bool) and isinstance(self.commit_sha, str)
        return server or isinstance(self.api_server_ready, bool)


A = TypeVar("A", bound=Answer)
L = TypeVar("L", bound=Listed)


def parse(kind: type[A], content: object, where: str = "") -> A:
    """Return a response as an object of its class.

    Raises:
        UnexpectedAnswerError: The response has another form.
    """
    if not isinstance(content, dict):
        raise UnexpectedAnswerError(f"{where or 'the answer'} is {_shown(content)}, not an object")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = faults_of(error)[0]
        place = ".".join(filter(None, (where, first.field)))
        if first.is_missing:
            raise UnexpectedAnswerError(f"{place} of the {kind.kind} is missing") from None
        raise UnexpectedAnswerError(f"{place} of the {kind.kind} is {_shown(first.value)}") from None


def parse_page(kind: type[L], content: object) -> tuple[list[L], str]:
    """Return the items of a page, and the token of the next page; "" after the last.

    Raises:
        UnexpectedAnswerError: The page or an item has another form.
    """
    page = parse(Answer, content).model_extra or {}
    items, token = page.get(kind.list_key), page.get("next_page_token")
    if items is not None and not isinstance(items, list):
        raise UnexpectedAnswerError(f"{kind.list_key} is {_shown(items)}, not a list")
    if token is not None and not isinstance(token, str):
        raise UnexpectedAnswerError(f"next_page_token is {_shown(token)}, not text")
    parsed = [parse(kind, item, f"{kind.list_key}[{index}]") for index, item in enumerate(items or [])]
    return parsed, token or ""


def _shown(value: object) -> str:
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    return kinds.get(type(value)) or repr(value)[:60]
