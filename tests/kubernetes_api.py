"""A Kubernetes API server on loopback with what a rollout asks of one, and with faults on demand.

It keeps objects with generations, resource versions and owners of fields (lists are owned whole), answers server-side
apply with conflicts, dry runs, watches that expire, access reviews and logs, and allows what a Role allows. Its answers
are worded as those of the real one. What KServe and a gateway do is in `kserve_cluster.py`.
"""

import asyncio
import contextlib
import copy
import json
import threading
import uuid
from dataclasses import dataclass, field

from aiohttp import web

KINDS = {
    ("serving.kserve.io", "inferenceservices"): "InferenceService",
    ("serving.kserve.io", "servingruntimes"): "ServingRuntime",
    ("gateway.networking.k8s.io", "httproutes"): "HTTPRoute",
    ("gateway.networking.k8s.io", "gateways"): "Gateway",
    ("apps", "deployments"): "Deployment",
    ("", "pods"): "Pod",
    ("", "services"): "Service",
    ("", "events"): "Event",
    ("", "configmaps"): "ConfigMap",
    ("", "serviceaccounts"): "ServiceAccount",
    ("", "persistentvolumeclaims"): "PersistentVolumeClaim",
    ("coordination.k8s.io", "leases"): "Lease",
    ("apiextensions.k8s.io", "customresourcedefinitions"): "CustomResourceDefinition",
}
ACCOUNT = "system:serviceaccount:sat-xception:sat-xception-deployer"
_LONGEST_WATCH_S = 0.2
DEFAULT_RULES = [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]


@dataclass
class Fault:
    """An answer that isn't the usual one: to so many calls of a verb on a resource."""

    verb: str
    resource: str
    status: int
    message: str = ""
    times: int = 1
    headers: dict = field(default_factory=dict)
    reason: str = ""
    name: str = ""


class Refusal(Exception):
    def __init__(self, status, reason, message, details=None, headers=None):
        super().__init__(message)
        self.status, self.headers = status, headers or {}
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details or {},
            "code": status,
        }


class KubernetesApi:
    """The server. `allowed` maps (group, resource) to verbs; None allows all. Others change objects with `edit`."""

    def __init__(self, allowed=None, crd_names=None):
        self.allowed, self.crd_names = allowed, crd_names
        self.kinds = dict(KINDS)
        self.objects = {}
        self.owners = {}
        self.logs = {}
        self.faults = []
        self.asked = set()
        self.calls = []
        self.admission = lambda kind, body: ""
        self.reads_kserve = False
        self.reads_gateways = True  # by the ClusterRole
        self.busy = lambda verb, plural: False
        self.lock = threading.RLock()
        self._version = 0
        self._events = []
        self._expired = self.expired = 0
        self._closing = False

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kubernetes-api", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *error):
        self._closing = True
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        asyncio.run_coroutine_threadsafe(self._finish_tasks(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _finish_tasks(self):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _start(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def write_kubeconfig(self, path):
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [{"name": "test", "cluster": {"server": self.url}}],
                    "users": [{"name": "deployer", "user": {"token": "t"}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "deployer"}}],
                }
            )
        )
        return path

    # What tests and controllers do

    def put(self, plural, body, group="", namespace="sat-xception", manager="kubectl"):
        """Create or replace an object, status and all."""
        with self.lock:
            key = (group, plural, namespace, body["metadata"]["name"])
            return self._store(key, copy.deepcopy(body), manager)

    def edit(self, plural, name, change, group="", namespace="sat-xception", manager="kubectl-edit"):
        """Change an object with a function; whoever does it owns the fields it changed."""
        with self.lock:
            key = (group, plural, namespace, name)
            body = copy.deepcopy(self.objects[key])
            change(body)
            return self._store(key, body, manager)

    def read(self, plural, name, group="", namespace="sat-xception"):
        with self.lock:
            found = self.objects.get((group, plural, namespace, name))
            return copy.deepcopy(found)

    def names(self, plural, group=""):
        with self.lock:
            return sorted(key[3] for key in self.objects if key[:2] == (group, plural))

    def remove(self, plural, name, group="", namespace="sat-xception"):
        with self.lock:
            found = self.objects.pop((group, plural, namespace, name), None)
            if found is not None:
                self._log_progress("DELETED", (group, plural), found)

    def expire_watches(self):
        """Forget all events, as a compaction of etcd does: watches from before are answered with 410."""
        with self.lock:
            self._version += 1
            self._expired = self._version

    # Storage

    def _store(self, key, body, manager, replaced_leaves=None):
        before = self.objects.get(key)
        body.setdefault("apiVersion", f"{key[0]}/v1" if key[0] else "v1")
        body.setdefault("kind", self.kinds.get(key[:2], KINDS[key[:2]]))
        _default(key[1], body)
        metadata = body["metadata"]
        if before is None:
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
            self.owners[key] = {}
        elif body.get("spec") != before.get("spec"):
            metadata["generation"] = before["metadata"]["generation"] + 1
        owners = self.owners[key]
        if replaced_leaves is None:  # not an apply: who changed a field owns it
            old, new = _leaves(before or {}), _leaves(body)
            for path in new.keys() | old.keys():
                if path not in new:
                    owners.pop(path, None)
                elif old.get(path) != new[path] and path[0] != "status":
                    owners[path] = {manager}
        metadata["managedFields"] = [
            {"manager": name, "operation": "Apply" if name.startswith("sat-xception") else "Update"}
            for name in sorted(set().union(*owners.values()) if owners else ())
        ]
        if before is not None and _same(before, body):
            return copy.deepcopy(before)
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("namespace", key[2])
        self.objects[key] = body
        self._log_progress("ADDED" if before is None else "MODIFIED", key[:2], body)
        return copy.deepcopy(body)

    def _log_progress(self, what, kind, body):
        self._events.append((self._version, what, kind, copy.deepcopy(body)))

    # Requests

    async def _answer(self, request):
        try:
            return await self._routed(request)
        except Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status, headers=refusal.headers)

    async def _routed(self, request):
        parts = request.path.strip("/").split("/")
        if parts == ["version"]:
            self._maybe_fail("get", "version", "")
            return web.json_response({"major": "1", "minor": "33", "gitVersion": "v1.33.1"})
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        namespace = ""
        if rest[:1] == ["namespaces"]:
            namespace, rest = rest[1], rest[2:]
        plural, name, sub = (*rest, "", "")[:3]
        resource = f"{plural}/{sub}" if sub else plural
        body = json.loads(await request.read() or b"{}")
        if plural == "selfsubjectaccessreviews":
            return web.json_response(self._review(body), status=201)
        if (group, plural) not in self.kinds:
            return web.Response(text="404 page not found\n", status=404)
        watching = request.query.get("watch", "").lower() in ("1", "true")
        verb = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}.get(
            request.method, "get" if name else "watch" if watching else "list"
        )
        self._authorize(verb, group, resource, namespace, name)
        self._maybe_fail(verb, resource, name)
        if verb == "watch":
            with contextlib.suppress(ConnectionError):  # whoever watched has seen enough
                return await self._watch(request, (group, plural), namespace)
            return web.Response()
        with self.lock:
            self.calls.append((verb, resource, name or body.get("metadata", {}).get("name", ""), dict(request.query)))
            if sub == "log":
                self._found((group, "pods", namespace, name))
                text = self.logs.get((name, request.query.get("container")), "")
                return web.Response(text="\n".join(text.splitlines()[-int(request.query["tailLines"]) :]))
            if verb == "list":
                return web.json_response(self._list(request, group, plural, namespace))
            key = (group, plural, namespace, name or body.get("metadata", {}).get("name", ""))
            answer = getattr(self, f"_{verb}")(request, key, body)
            return web.json_response(answer, status=201 if verb == "create" else 200)

    def _authorize(self, verb, group, resource, namespace, name):
        self.asked.add((verb, group, resource))
        if self._may(verb, group, resource, namespace, name):
            return
        where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
        shown = f"{resource}.{group}" if group else resource
        raise Refusal(
            403,
            "Forbidden",
            f'{shown} "{name}" is forbidden: User "{ACCOUNT}" cannot {verb} resource "{resource}" in API group '
            f'"{group}"{where}',
            {"name": name, "group": group, "kind": resource},
        )

    def _may(self, verb, group, resource, namespace, name):
        if self.allowed is None:
            return True
        if resource == "customresourcedefinitions":
            return verb == "get" and name in (self.crd_names or ())
        if resource == "gateways":
            return verb == "get" and self.reads_gateways
        if namespace == "kserve":
            return self.reads_kserve and (verb, resource) == ("get", "configmaps")
        return namespace == "sat-xception" and verb in self.allowed.get((group, resource), ())

    def _review(self, body):
        attributes = body["spec"]["resourceAttributes"]
        sub = attributes.get("subresource")
        resource = f"{attributes['resource']}/{sub}" if sub else attributes["resource"]
        allowed = self._may(
            attributes["verb"],
            attributes.get("group", ""),
            resource,
            attributes.get("namespace", ""),
            attributes.get("name", ""),
        )
        return {**body, "status": {"allowed": allowed}}

    def _maybe_fail(self, verb, resource, name):
        with self.lock:
            for fault in self.faults:
                if (fault.verb, fault.resource) == (verb, resource) and fault.times and fault.name in ("", name):
                    fault.times -= 1
                    raise Refusal(fault.status, fault.reason, fault.message, {"name": name}, fault.headers)

    def _found(self, key):
        if key not in self.objects:
            shown = f"{key[1]}.{key[0]}" if key[0] else key[1]
            raise Refusal(404, "NotFound", f'{shown} "{key[3]}" not found', {"name": key[3], "kind": key[1]})
        return self.objects[key]

    def _get(self, request, key, body):
        return copy.deepcopy(self._found(key))

    def _list(self, request, group, plural, namespace):
        labels = _selector(request.query.get("labelSelector", ""))
        fields = _selector(request.query.get("fieldSelector", ""))
        items = [
            copy.deepcopy(body)
            for key, body in sorted(self.objects.items())
            if key[:2] == (group, plural)
            and key[2] == namespace
            and labels.items() <= body["metadata"].get("labels", {}).items()
            and all(_at(body, path) == value for path, value in fields.items())
        ]
        return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": str(self._version)}, "items": items}

    def _create(self, request, key, body):
        if key in self.objects:
            raise Refusal(409, "AlreadyExists", f'{key[1]} "{key[3]}" already exists', {"name": key[3]})
        self._admit(key, body)
        return self._store(key, body, request.query.get("fieldManager", "python"))

    def _update(self, request, key, body):
        self._compare_version(key, {"metadata": {"resourceVersion": "0"} | body["metadata"]})
        return self._store(key, body, request.query.get("fieldManager", "python"))

    def _compare_version(self, key, body):
        """Refuse what was made of an earlier version of an object, where it names one: also an apply."""
        version = body["metadata"].get("resourceVersion")
        if version and version != self._found(key)["metadata"]["resourceVersion"]:
            raise Refusal(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {key[1]} "{key[3]}": the object has been modified; please apply '
                "your changes to the latest version and try again",
                {"name": key[3]},
            )

    def _delete(self, request, key, body):
        found = self._found(key)
        self.remove(key[1], key[3], key[0], key[2])
        return {"kind": "Status", "status": "Success", "details": {"name": key[3], "uid": found["metadata"]["uid"]}}

    def _patch(self, request, key, body):
        manager = request.query["fieldManager"]
        if request.headers["Content-Type"] == "application/merge-patch+json":
            return self._store(key, _merged(copy.deepcopy(self._found(key)), body), manager)
        assert request.headers["Content-Type"] == "application/apply-patch+yaml"
        if key not in self.objects:  # as the real server, which asks for both
            self._authorize("create", key[0], key[1], key[2], key[3])
        if self.busy("patch", key[1]) and not request.query.get("dryRun"):
            raise Refusal(
                429, "TooManyRequests", "too many requests, please try again later", headers={"Retry-After": "1"}
            )
        self._admit(key, body)
        self._compare_version(key, body)
        live = copy.deepcopy(self.objects.get(key) or {"metadata": {"name": key[3], "namespace": key[2]}})
        owners = copy.deepcopy(self.owners.get(key, {}))
        applied = {path: value for path, value in _leaves(body).items() if path[:2] not in _NAMING and len(path) > 1}
        conflicts = [
            (path, sorted(owners[path] - {manager}))
            for path, value in applied.items()
            if owners.get(path, set()) - {manager} and _leaves(live).get(path) != value
        ]
        if conflicts and request.query.get("force", "").lower() != "true":
            raise _conflict(key, conflicts)
        for path in [path for path, names in owners.items() if manager in names and path not in applied]:
            owners[path].discard(manager)
            if not owners[path]:
                del owners[path]
                _remove(live, path)
        for path, value in applied.items():
            same = _leaves(live).get(path) == value
            _set(live, path, copy.deepcopy(value))
            owners[path] = (owners.get(path, set()) if same else set()) | {manager}
        live |= {"apiVersion": body["apiVersion"], "kind": body["kind"]}
        if request.query.get("dryRun") == "All":
            _default(key[1], live)
            live["metadata"].setdefault("generation", 1)
            return live
        self.owners.setdefault(key, {})
        before = key in self.objects
        if before:
            self.owners[key] = owners
            return self._store(key, live, manager, applied)
        stored = self._store(key, live, manager, applied)
        self.owners[key] = owners
        return stored

    def _admit(self, key, body):
        if refused := self.admission(self.kinds[key[:2]], body):
            message = (
                f'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: {refused}'
            )
            raise Refusal(403, "Forbidden", message)

    async def _watch(self, request, kind, namespace):
        since = int(request.query.get("resourceVersion") or 0)
        fields = _selector(request.query.get("fieldSelector", ""))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        # A server may end a watch before the time that was asked for.
        end = self._loop.time() + min(float(request.query.get("timeoutSeconds", 5)), _LONGEST_WATCH_S)
        while self._loop.time() < end and not self._closing:
            with self.lock:
                expired = since < self._expired
                news = [event for event in self._events if event[0] > since and event[2] == kind]
                since = self._version if not expired else since
            if expired:
                self.expired += 1
                gone = Refusal(410, "Expired", f"too old resource version: {since} ({self._expired})").body
                await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
                break
            for _, what, _, body in news:
                if all(_at(body, path) == value for path, value in fields.items()):
                    await response.write(json.dumps({"type": what, "object": body}).encode() + b"\n")
            await asyncio.sleep(0.02)
        await response.write_eof()
        return response


def _merged(body, change):
    """Return an object with a JSON merge patch (RFC 7386)."""
    for key, value in change.items():
        if value is None:
            body.pop(key, None)
        else:
            body[key] = _merged(body.get(key, {}), value) if isinstance(value, dict) else value
    return body


_NAMING = {("metadata", "name"), ("metadata", "namespace")}


def _leaves(value, path=()):
    """Return the values of an object by their paths; lists are values."""
    if isinstance(value, dict) and value:
        found = {}
        for key, part in value.items():
            if (*path, key) not in {("metadata", one) for one in _BOOKKEEPING}:
                found |= _leaves(part, (*path, key))
        return found
    return {path: value} if path else {}


_BOOKKEEPING = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation")


def _same(before, after):
    return _leaves(before) == _leaves(after)


def _set(body, path, value):
    for key in path[:-1]:
        body = body.setdefault(key, {})
    body[path[-1]] = value


def _remove(body, path):
    for key in path[:-1]:
        body = body.get(key, {})
    body.pop(path[-1], None)


def _at(body, path):
    for key in path.split("."):
        body = body.get(key, {}) if isinstance(body, dict) else {}
    return body


def _selector(text):
    return dict(part.split("=") for part in text.split(",") if part)


def _default(plural, body):
    """Do what schemas and mutating webhooks do."""
    if plural == "httproutes":
        if not body.setdefault("spec", {}).get("rules"):
            body["spec"]["rules"] = copy.deepcopy(DEFAULT_RULES)
        for rule in body["spec"]["rules"]:
            rule.setdefault("matches", copy.deepcopy(DEFAULT_RULES[0]["matches"]))
            for backend in rule.get("backendRefs", ()):
                # As the definition of HTTPRoute has them.
                for field, value in (("group", ""), ("kind", "Service"), ("weight", 1)):
                    backend.setdefault(field, value)
    if plural == "inferenceservices":
        body["spec"]["predictor"].setdefault("model", {}).setdefault("name", "")


def _conflict(key, conflicts):
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{names[0]}" using {key[0]}/v1',
            "field": "." + ".".join(path),
        }
        for path, names in conflicts
    ]
    text = f"Apply failed with {len(causes)} conflict{'s' if len(causes) > 1 else ''}: " + "; ".join(
        f"{cause['message']}: {cause['field']}" for cause in causes
    )
    return Refusal(409, "Conflict", text, {"causes": causes})
