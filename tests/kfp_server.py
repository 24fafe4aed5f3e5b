"""Kubeflow Pipelines' API server, as far as submit, schedule and kfp's command line use it: v2beta1 over real HTTP.

Requests are held against kfp-server-api's models, and parameters against the uploaded pipeline, as strictly as the
server itself does (kubeflow/pipelines, backend/src/apiserver: server/*.go, template/v2_template.go, model/*.go). Every
request is recorded. Runs follow a timeline that the test sets; faults can be put in. `tests/pipelines/conftest.py` has
the fixture.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml
from aiohttp import web

from tests.kfp_strict import InvalidInputError, read, snake
from tests.kfp_workflow import Look, Node, task_details, workflow, workflow_nodes

__all__ = ["Fault", "KfpServer", "Request"]

API = "/apis/v2beta1"
# Fields that each list can be filtered by: the maps of backend/src/apiserver/model.
FILTERS = {
    "pipelines": {"pipeline_id", "display_name", "name", "created_at", "description", "namespace"},
    "pipeline_versions": {"pipeline_version_id", "display_name", "name", "created_at", "description", "pipeline_id"},
    "experiments": {"experiment_id", "display_name", "name", "created_at", "description", "namespace"},
    "runs": {"run_id", "display_name", "created_at", "state", "namespace", "storage_state"},
    "recurring_runs": {"recurring_run_id", "display_name", "created_at", "updated_at", "description"},
}
KINDS = {
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "STRING": str,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


class NotFoundError(Exception):
    """What the server answers with HTTP 404."""


class ConflictError(Exception):
    """What the server answers with HTTP 409."""


STATUS = {InvalidInputError: (400, 3), NotFoundError: (404, 5), ConflictError: (409, 6)}


@dataclass(frozen=True)
class Request:
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str = ""


@dataclass
class Fault:
    """What goes wrong, for requests whose method ("" is any) and path match, so many times.

    Attributes:
        status: HTTP status of the answer; 0 closes the connection without one.
        body: What is answered, as it is; "" is an error as the server or its gateway writes one.
        done: Whether the server does what was asked before it fails.
    """

    method: str
    path: str
    status: int
    times: int = 1
    done: bool = False
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


DEFAULT_TIMELINE = (
    Look("PENDING"),
    Look("RUNNING", {"step": "RUNNING"}),
    Look("RUNNING", {"step": "SUCCEEDED", "step-2": "RUNNING"}),
    Look("SUCCEEDED", {"step": "SUCCEEDED", "step-2": "SUCCEEDED", "notify": "SUCCEEDED"}),
)


class KfpServer:
    """The server; `start` it, read `url`, `stop` it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.timeline: tuple[Look, ...] = DEFAULT_TIMELINE
        self.token = ""
        self.multi_user = False
        self.killed: list[str] = []
        # Logs by the end of their node's name, as "train.executor"; others hold a line. Where there is no pod any more,
        # they come from the archive, if there is one.
        self.logs: dict[str, str] = {}
        self.pods_there = True
        self.archived = True
        # Whether the UI's server is in front: it hands on two versions of the API, and serves logs itself.
        self.through_ui = True
        self.hands_out_workflows = True
        self.stored: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in FILTERS}
        self._looks: dict[str, int] = {}
        self._clock = datetime(2026, 1, 1, tzinfo=UTC)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    # What tests ask and tell

    def start(self) -> KfpServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result()
        return self

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def all(self, kind: str) -> list[dict[str, Any]]:
        return list(self.stored[kind].values())

    def changing(self) -> list[Request]:
        """Return the requests that change something."""
        return [request for request in self.requests if request.method != "GET"]

    def trigger(self, recurring_run: dict[str, Any], state: str = "RUNNING") -> dict[str, Any]:
        """Let a schedule start a run, as the controller does."""
        body = {
            "display_name": recurring_run["display_name"],
            "experiment_id": recurring_run["experiment_id"],
            "recurring_run_id": recurring_run["recurring_run_id"],
            "state": state,
        }
        return self._store("runs", "run_id", body)

    # The server

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    async def _answer(self, http: web.Request) -> web.StreamResponse:
        body: Any = None
        if not http.path.startswith(API):
            return self._beside(http)
        if http.content_type == "multipart/form-data":
            body = (await http.post())["uploadfile"].file.read()
        elif http.can_read_body:
            body = json.loads(await http.text())
        authorization = http.headers.get("Authorization", "")
        request = Request(http.method, http.path.removeprefix(API), dict(http.query), body, authorization)
        self.requests.append(request)
        if self.token and authorization != f"Bearer {self.token}":
            return _error(401, 16, f"request not authenticated: {authorization!r}")
        fault = next(
            (f for f in self.faults if f.times and f.method in ("", http.method) and re.search(f.path, http.path)), None
        )
        if fault:
            fault.times -= 1
            if fault.done:
                self._handle(request)
            if not fault.status:
                http.transport.abort()
                return web.Response()
            if fault.body:
                return web.Response(status=fault.status, text=fault.body, content_type="application/json")
            return _error(fault.status, 14, "upstream connect error", fault.headers)
        return self._handle(request)

    def _handle(self, request: Request) -> web.Response:
        for method, pattern, handler in self._routes():
            match = re.fullmatch(pattern, request.path)
            if match and method == request.method:
                try:
                    kind, content = handler(request, *match.groups())
                    content = content if kind == "object" else _without_empty(read(content, kind, "answer"))
                    return web.json_response(content)
                except tuple(STATUS) as error:
                    return _error(*STATUS[type(error)], str(error))
        return _error(404, 5, "Not Found")

    def _routes(self) -> list[tuple[str, str, Callable[..., tuple[str, Any]]]]:
        runs, schedules, pipelines = "/runs", "/recurringruns", "/pipelines"
        return [
            ("GET", "/healthz", lambda _: ("object", self._health())),
            ("GET", pipelines, lambda r: self._list(r, "pipelines", "V2beta1ListPipelinesResponse")),
            ("POST", pipelines, lambda r: ("V2beta1Pipeline", self._create_pipeline(read(r.body, "V2beta1Pipeline")))),
            ("POST", f"{pipelines}/upload", self._upload),
            ("POST", f"{pipelines}/upload_version", self._upload_version),
            ("GET", f"{pipelines}/([^/]+)", lambda _, i: ("V2beta1Pipeline", self._get("pipelines", i))),
            ("GET", f"{pipelines}/([^/]+)/versions", self._list_versions),
            ("GET", f"{pipelines}/[^/]+/versions/([^/]+)", self._version),
            ("GET", "/experiments", lambda r: self._list(r, "experiments", "V2beta1ListExperimentsResponse")),
            ("POST", "/experiments", self._create_experiment),
            ("GET", runs, lambda r: self._list(r, "runs", "V2beta1ListRunsResponse")),
            ("POST", runs, self._create_run),
            ("GET", f"{runs}/([^/:]+)", self._look_at_run),
            ("GET", schedules, lambda r: self._list(r, "recurring_runs", "V2beta1ListRecurringRunsResponse")),
            ("POST", schedules, self._create_recurring_run),
            ("GET", f"{schedules}/([^/:]+)", lambda _, i: ("V2beta1RecurringRun", self._get("recurring_runs", i))),
            ("DELETE", f"{schedules}/([^/:]+)", self._delete_recurring_run),
            ("POST", f"{schedules}/([^/:]+):(enable|disable)", self._switch_recurring_run),
        ]

    def _health(self) -> dict[str, Any]:
        """Return what the API server answers, with every field (backend/src/apiserver/main.go, healthzResponse)."""
        return {
            "commit_sha": "7b70c7b95f",
            "tag_name": "2.17.0",
            "multi_user": self.multi_user,
            "pipeline_store": "database",
        }

    # Lists

    def _list(self, request: Request, kind: str, response: str, only: dict[str, str] | None = None) -> tuple[str, Any]:
        query = {**request.query, **(only or {})}
        known = {"page_token", "page_size", "sort_by", "filter", "namespace", "experiment_id", "pipeline_id"}
        if set(query) - known:
            raise InvalidInputError(f"unknown query parameters {set(query) - known}")
        if query.get("namespace") and not self.multi_user and kind != "pipelines":
            raise InvalidInputError("In single-user mode, the list cannot filter by namespace")
        scope = {key: query[key] for key in ("namespace", "experiment_id", "pipeline_id") if query.get(key)}
        found = [item for item in self.all(kind) if all(item.get(key) == value for key, value in scope.items())]
        for key, operation, value in _predicates(query.get("filter", ""), FILTERS[kind]):
            found = [item for item in found if operation(str(item.get(key, "")).lower(), value.lower())]
        column, _, direction = (query.get("sort_by") or "created_at").partition(" ")
        if column not in FILTERS[kind] or direction not in ("", "asc", "desc"):
            raise InvalidInputError(f"invalid sort_by {query['sort_by']!r}")
        found.sort(key=lambda item: str(item.get(column)), reverse=direction == "desc")
        size = int(query.get("page_size") or 20)
        if not 0 < size <= 200:
            raise InvalidInputError(f"page_size {size} is not within 1-200")
        token = query.get("page_token")
        start = int(base64.b64decode(token)) if token else 0
        more = len(found) > start + size
        # The one field of the API that isn't in snake case.
        key = "recurringRuns" if kind == "recurring_runs" else kind
        page = {key: found[start : start + size], "total_size": len(found)}
        next_token = base64.b64encode(str(start + size).encode()).decode() if more else ""
        return response, {**page, "next_page_token": next_token}

    # Pipelines

    def _create_pipeline(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body.get("display_name") or body.get("name")
        if not name:
            raise InvalidInputError("pipeline's name cannot be empty")
        taken = [item for item in self.all("pipelines") if item["display_name"] == name]
        if any(item.get("namespace", "") == body.get("namespace", "") for item in taken):
            raise ConflictError(f"The name {name} already exist. Please specify a new name")
        return self._store("pipelines", "pipeline_id", {**body, "display_name": name, "name": name})

    def _upload(self, request: Request) -> tuple[str, Any]:
        spec = _pipeline(request.body)
        name = request.query.get("name") or spec["pipelineInfo"]["name"]
        about = {key: request.query[key] for key in ("description", "namespace") if key in request.query}
        pipeline = self._create_pipeline({"display_name": name, **about})
        self._create_version(pipeline["pipeline_id"], name, request)
        return "V2beta1Pipeline", pipeline

    def _upload_version(self, request: Request) -> tuple[str, Any]:
        if "pipelineid" not in request.query:
            raise InvalidInputError("Please specify a pipeline id when creating versions")
        return "V2beta1PipelineVersion", self._create_version(
            self._get("pipelines", request.query["pipelineid"])["pipeline_id"], request.query["name"], request
        )

    def _create_version(self, pipeline_id: str, name: str, request: Request) -> dict[str, Any]:
        spec = _pipeline(request.body)
        if any(v["display_name"] == name and v["pipeline_id"] == pipeline_id for v in self.all("pipeline_versions")):
            raise ConflictError(f"The name {name} already exist. Please specify a new name")
        platforms = [document for document in yaml.safe_load_all(request.body) if document and "platforms" in document]
        body = {
            "pipeline_id": pipeline_id,
            "display_name": name,
            "name": name,
            "description": request.query.get("description", ""),
            "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platforms[0]} if platforms else spec,
        }
        return self._store("pipeline_versions", "pipeline_version_id", body)

    def _list_versions(self, request: Request, pipeline_id: str) -> tuple[str, Any]:
        self._get("pipelines", pipeline_id)
        only = {"pipeline_id": pipeline_id}
        return self._list(request, "pipeline_versions", "V2beta1ListPipelineVersionsResponse", only)

    def _version(self, _: Request, identifier: str) -> tuple[str, Any]:
        return "V2beta1PipelineVersion", self._get("pipeline_versions", identifier)

    # Experiments and runs

    def _create_experiment(self, request: Request) -> tuple[str, Any]:
        body = read(request.body, "V2beta1Experiment")
        if self.multi_user != bool(body.get("namespace")):
            raise InvalidInputError(f"multi-user is {self.multi_user}, namespace is {body.get('namespace')!r}")
        if any(item["display_name"] == body["display_name"] for item in self.all("experiments")):
            raise ConflictError("Failed to create a new experiment as one with the same name already exists")
        return "V2beta1Experiment", self._store("experiments", "experiment_id", {**body, "storage_state": "AVAILABLE"})

    def _create_run(self, request: Request) -> tuple[str, Any]:
        body = read(request.body, "V2beta1Run")
        self._check_job(body)
        return "V2beta1Run", self._store("runs", "run_id", {**body, "state": "PENDING", "storage_state": "AVAILABLE"})

    def _look_at_run(self, _: Request, run_id: str) -> tuple[str, Any]:
        run = self._get("runs", run_id)
        if "recurring_run_id" in run:
            return "V2beta1Run", run
        index = self._looks.get(run_id, 0)
        self._looks[run_id] = index + 1
        look = self._look(run_id)
        run["state"] = look.state
        run["state_history"] = [{"state": state} for state in (*look.history, look.state)]
        run["run_details"] = {"task_details": task_details(run_id, self._nodes(run_id))}
        return "V2beta1Run", run

    def _look(self, run_id: str) -> Look:
        return self.timeline[min(max(self._looks.get(run_id, 0) - 1, 0), len(self.timeline) - 1)]

    def _nodes(self, run_id: str) -> list[Node]:
        run = self._get("runs", run_id)
        version = run.get("pipeline_version_reference", {}).get("pipeline_version_id")
        spec = self._get("pipeline_versions", version)["pipeline_spec"] if version else run["pipeline_spec"]
        return workflow_nodes(f"small-{run_id[:5]}", spec.get("pipeline_spec", spec), self._look(run_id))

    # Workflows and logs

    def _beside(self, http: web.Request) -> web.Response:
        """Answer what isn't v2beta1: the workflow of a run and the logs, as 2.16 and 2.17 do (apiserver/main.go)."""
        run = re.fullmatch("/apis/v1beta1/runs/([^/]+)", http.path)
        log = re.fullmatch("/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", http.path)
        known = {"podname", "runid", "podnamespace", "createdat"}
        self.requests.append(Request(http.method, http.path, dict(http.query), None))
        if run and self.hands_out_workflows and run[1] in self.stored["runs"]:
            nodes = self._nodes(run[1])
            manifest = json.dumps(workflow(f"small-{run[1][:5]}", run[1], nodes, self._look(run[1])))
            return web.json_response({"run": {"id": run[1]}, "pipeline_runtime": {"workflow_manifest": manifest}})
        if log and not self.through_ui:
            return self._log_by_api(log[1], log[2])
        if http.path == "/k8s/pod/logs" and self.through_ui and set(http.query) == known:
            return self._log_by_ui(http.query["runid"], http.query["podname"])
        if http.path.startswith(("/apis/", "/k8s/")):
            return web.Response(status=404, text=f"Cannot {http.method} {http.path}", content_type="text/html")
        return web.Response(text="<html>Welcome</html>", content_type="text/html")

    def _log(self, run_id: str, pod: str) -> str | None:
        if run_id not in self.stored["runs"]:
            return None
        node = next((node for node in self._nodes(run_id) if node.pod == pod and node.type == "Pod"), None)
        if node is None or not (self.pods_there or self.archived):
            return None
        return next((text for end, text in self.logs.items() if node.name.endswith(f".{end}")), "a line\n")

    def _log_by_api(self, run_id: str, pod: str) -> web.Response:
        """Answer as backend/src/apiserver/server/run_log_server.go: with 200 in any case."""
        text = self._log(run_id, pod)
        if text is None:
            why = f"Failed to read logs from archive {pod} due to error fetching the log file: key does not exist"
            error = {
                "error_message": f"BadRequestError: Failed to read logs for run {run_id}: {why}",
                "error_details": "",
            }
            text = json.dumps({key: value for key, value in error.items() if value}, separators=(",", ":"))
        return web.Response(text=text, content_type="text/plain")

    def _log_by_ui(self, run_id: str, pod: str) -> web.Response:
        """Answer as frontend/server/handlers/pod-logs.ts."""
        text = self._log(run_id, pod)
        if text is None:
            why = "Could not get main container logs: S3Error: The specified key does not exist."
            return web.Response(status=500, text=why, content_type="text/html")
        return web.Response(text=text, content_type="application/octet-stream")

    def _check_job(self, body: dict[str, Any]) -> None:
        """Check what a run and a recurring run have in common: experiment, pipeline, parameters."""
        self._get("experiments", body.get("experiment_id", ""))
        if not body.get("display_name"):
            raise InvalidInputError("The name is empty")
        reference = body.get("pipeline_version_reference") or {}
        if bool(reference) == bool(body.get("pipeline_spec")):
            raise InvalidInputError("Give either a pipeline spec or a pipeline version")
        if reference.get("pipeline_version_id"):
            version = self._get("pipeline_versions", reference["pipeline_version_id"])
        elif reference:
            versions = [v for v in self.all("pipeline_versions") if v["pipeline_id"] == reference["pipeline_id"]]
            if not versions:
                raise NotFoundError(f"pipeline {reference['pipeline_id']} has no version")
            version = versions[-1]
        else:
            version = {"pipeline_spec": body["pipeline_spec"]}
        spec = version["pipeline_spec"].get("pipeline_spec", version["pipeline_spec"])
        _check_parameters(spec, (body.get("runtime_config") or {}).get("parameters") or {})

    # Recurring runs

    def _create_recurring_run(self, request: Request) -> tuple[str, Any]:
        body = read(request.body, "V2beta1RecurringRun")
        self._check_job(body)
        if self.multi_user != bool(body.get("namespace")):
            raise InvalidInputError("Recurring run has no namespace")
        if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
            raise InvalidInputError("The max concurrency of the recurring run is out of range. Support 1-10")
        trigger = body.get("trigger") or {}
        if len(trigger) != 1:
            raise InvalidInputError("either a cron or a periodic schedule is needed")
        if "cron_schedule" in trigger and len(trigger["cron_schedule"]["cron"].split()) not in (5, 6):
            raise InvalidInputError("Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron)")
        status = "ENABLED" if body.get("mode") == "ENABLE" else "DISABLED"
        body = {"service_account": "pipeline-runner", **body, "mode": body.get("mode", "DISABLE"), "status": status}
        return "V2beta1RecurringRun", self._store("recurring_runs", "recurring_run_id", body)

    def _switch_recurring_run(self, _: Request, identifier: str, how: str) -> tuple[str, Any]:
        found = self._get("recurring_runs", identifier)
        found.update(mode=how.upper(), status=f"{how.upper()}D")
        return "object", {}

    def _delete_recurring_run(self, request: Request, identifier: str) -> tuple[str, Any]:
        self._get("recurring_runs", identifier)
        if request.query.get("propagation_policy") != "ORPHAN":
            # Kubernetes' garbage collector.
            running = [run for run in self.all("runs") if run.get("recurring_run_id") == identifier]
            self.killed += [run["run_id"] for run in running if run["state"] in ("PENDING", "RUNNING")]
        del self.stored["recurring_runs"][identifier]
        return "object", {}

    # The store

    def _get(self, kind: str, identifier: str) -> dict[str, Any]:
        try:
            return self.stored[kind][identifier]
        except KeyError:
            raise NotFoundError(f"{kind} {identifier!r} not found") from None

    def _store(self, kind: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        self._clock += timedelta(seconds=1)
        item = {**body, key: str(uuid.uuid4()), "created_at": self._clock.isoformat().replace("+00:00", "Z")}
        self.stored[kind][item[key]] = item
        return item


def _error(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(
        {"error": message, "code": code, "message": message, "details": []}, status=status, headers=headers
    )


def _without_empty(content: Any) -> Any:
    """Leave out what protobuf's JSON leaves out of a message: what is empty, false or 0."""
    return {key: value for key, value in content.items() if value not in ("", False, 0, None, [])}


def _predicates(text: str, keys: set[str]) -> list[tuple[str, Callable[[str, str], bool], str]]:
    operations = {
        "EQUALS": str.__eq__,
        "NOT_EQUALS": str.__ne__,
        "IN": lambda item, values: item in values.split(","),
        "IS_SUBSTRING": lambda item, value: value in item,
    }
    found = []
    for raw in json.loads(text)["predicates"] if text else []:
        named = {snake(key): value for key, value in raw.items()}
        # protobuf takes an enum's number as well, and kfp's client sends it.
        named["operation"] = {1: "EQUALS", 2: "NOT_EQUALS", 9: "IS_SUBSTRING"}.get(
            named["operation"], named["operation"]
        )
        predicate = read(named, "V2beta1Predicate", "filter")
        if predicate["key"] not in keys or predicate["operation"] not in operations:
            raise InvalidInputError(f"cannot filter by {predicate}")
        values = predicate.get("string_values", {}).get("values", [])
        value = ",".join(values) if predicate["operation"] == "IN" else predicate["string_value"]
        found.append((predicate["key"], operations[predicate["operation"]], value))
    return found


def _pipeline(content: bytes) -> dict[str, Any]:
    specs = [document for document in yaml.safe_load_all(content) if document and "pipelineInfo" in document]
    if len(specs) != 1 or specs[0].get("schemaVersion") != "2.1.0":
        raise InvalidInputError("no pipeline spec is provided")
    return specs[0]


def _check_parameters(spec: dict[str, Any], given: dict[str, Any]) -> None:
    definitions = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, definition in definitions.items():
        if name not in given:
            if "defaultValue" not in definition and not definition.get("isOptional"):
                raise InvalidInputError(f"parameter {name} is not optional, yet has neither default nor value")
            continue
        kind, value = definition["parameterType"], given[name]
        if not isinstance(value, KINDS[kind]) or (kind != "BOOLEAN" and isinstance(value, bool)):
            raise InvalidInputError(
                f"input parameter {name} requires type {kind}, but the parameter value is {value!r}"
            )
    if set(given) - set(definitions):
        raise InvalidInputError(f"parameter(s) provided are not required by pipeline: {set(given) - set(definitions)}")
