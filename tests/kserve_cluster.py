"""A cluster with KServe and a gateway for rollouts: objects in `kubernetes_api.py`, pods, a real proxy.

The controller says of an InferenceService what KServe says: also what isn't true. The gateway splits requests by the
weights of an HTTPRoute among what serves in the pods: see `predictors.py`.
"""

import asyncio
import itertools
import threading
import time
from collections import Counter
from pathlib import Path

from aiohttp import web

from tests.gateways import RandomChoice
from tests.kserve_pods import GATEWAY, KSERVE, STORAGE, Pods, backend_of, refused_canary, replicas_of
from tests.predictors import SmallPredictor

# Rounds of the controller until a route follows: with KServe and a gateway it was 2 s.
_ROUTE_LAG_TICKS = 10


class Clock:
    """A clock in the place of the module `time`, so that tests needn't wait.

    Attributes:
        ahead_s: How far it has been turned ahead.
        rate: How many times as fast as the machine's it runs.
    """

    def __init__(self, rate=1):
        self.ahead_s, self.rate = 0.0, rate

    def monotonic(self):
        return time.monotonic() * self.rate + self.ahead_s

    def sleep(self, seconds):
        time.sleep(seconds / self.rate)


class KServeCluster:
    """The whole of it. `pods` maps a version to what becomes of its pods; see `Pods`.

    Attributes:
        api: The API server: that of `kubernetes_api.py`, or a real one.
        endpoint: Address that users use.
        predictor_url: Template of the addresses of predictors.
        root: Folder that the cluster's pods know as `STORAGE`.
        weights: Of each route the share of each backend, in %, as the controller has told the proxies.
        gateway: How a request's backend is chosen; see `gateways.py`.
        clock: The clock by which a rollout measures what the traffic does.
        delays_s: Of each backend how long it takes by that clock to answer a request that is for it alone.
    """

    def __init__(self, folder, name, api, canary=False, lies=True, predictor=SmallPredictor):
        self.folder, self.name, self.root, self.lies = Path(folder), name, Path(folder) / "root", lies
        self.predictor = predictor  # what serves in a pod
        self.api = api
        self.api.reads_kserve = bool(canary)
        self.api.busy = lambda verb, plural: self.hold == "making" and (verb, plural) == ("patch", "inferenceservices")
        self.fates = {}
        self.fetch = lambda uri: self.root / uri.removeprefix(f"{STORAGE}/")  # what a pod's storage-initializer does
        self.servers = {}
        self.ticks = Counter()
        self.weights = {}
        self.answered = Counter()
        self.route_faults = {}
        self.clock = Clock()
        self.delays_s = {}
        self.hold = ""  # a stage of a rollout that isn't left: "making", "waiting", "golden"
        self.stalled_gateway = False
        self.gateway = RandomChoice()
        self.refuses_route = ""
        self.said_of_routes = None  # status.parents, where it isn't what a gateway says that is well
        self.token = ""  # that the gateway asks users for
        self.canary = canary
        self.fewest = {}  # of each backend the fewest replicas that it had while it had traffic
        self.restarts = Counter()  # of each backend how often its pods were replaced
        self._coming_routes = {}
        if canary:
            self.api.admission = refused_canary
        self._stopped = threading.Event()

    def __enter__(self):
        self.api.__enter__()
        self._write_objects()
        self._loop = asyncio.new_event_loop()
        self._looping = threading.Thread(target=self._loop.run_forever, name="gateway", daemon=True)
        self._looping.start()
        asyncio.run_coroutine_threadsafe(self._start_gateway(), self._loop).result(10)
        self._thread = threading.Thread(target=self._control, name="controller", daemon=True)
        self._thread.start()
        self.kubeconfig = self.api.write_kubeconfig(self.folder / "kubeconfig")
        self.await_gateway()
        return self

    def __exit__(self, *error):
        self._stopped.set()
        self._thread.join()
        asyncio.run_coroutine_threadsafe(self._stop_gateway(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._looping.join()
        self._loop.close()
        self.api.__exit__()
        for server, _ in self.servers.values():
            server.stop()

    def _write_objects(self):
        name, put = self.name, self.api.put
        spec = {"canary": {}, "tracing": {}} if self.canary else {}
        for plural, group, version in (
            ("inferenceservices", KSERVE, "v1beta1"),
            ("httproutes", GATEWAY, "v1"),
        ):
            schema = {"openAPIV3Schema": {"properties": {"spec": {"properties": spec}}}}
            put(
                "customresourcedefinitions",
                {
                    "metadata": {"name": f"{plural}.{group}"},
                    "spec": {"versions": [{"name": version, "served": True, "schema": schema}]},
                },
                "apiextensions.k8s.io",
                "",
            )
        put(
            "inferenceservices",
            {
                "apiVersion": f"{KSERVE}/v1beta1",
                "metadata": {
                    "name": f"{name}-template",
                    "labels": {
                        "app.kubernetes.io/part-of": "sat-xception",
                        "app.kubernetes.io/managed-by": "kustomize",
                    },
                    "annotations": {
                        "serving.kserve.io/deploymentMode": "Standard",
                        "serving.kserve.io/stop": "true",
                        "kubectl.kubernetes.io/last-applied-configuration": "{}",
                    },
                },
                "spec": {
                    "predictor": {
                        "minReplicas": 1,
                        "maxReplicas": 3,
                        "model": {"modelFormat": {"name": "tensorflow", "version": "2"}, "runtime": "tfserving"},
                    }
                },
            },
            KSERVE,
        )
        # Who the template's pods are, and the claim of `STORAGE`.
        put("serviceaccounts", {"metadata": {"name": "default"}, "secrets": [{"name": "sat-xception-storage"}]})
        modes = {"accessModes": ["ReadWriteMany"]}
        size = {"resources": {"requests": {"storage": "1Gi"}}}
        put("persistentvolumeclaims", {"metadata": {"name": "models"}, "spec": {**modes, **size}, "status": modes})
        arguments = [f"--model_name={name}", "--rest_api_port=8080", "--model_base_path=/mnt/models"]
        put(
            "servingruntimes",
            {
                "metadata": {"name": "tfserving"},
                "spec": {
                    "containers": [
                        {"name": "kserve-container", "image": "tensorflow/serving:2.19.1", "args": arguments}
                    ]
                },
            },
            KSERVE,
        )
        put(
            "httproutes",
            {
                "apiVersion": f"{GATEWAY}/v1",
                "metadata": {"name": f"{name}-route"},
                "spec": {"hostnames": ["tiles.example.org"], "parentRefs": [{"name": "gateway"}]},
            },
            GATEWAY,
        )
        put(
            "configmaps",
            {"metadata": {"name": "inferenceservice-config"}, "data": {"ingress": '{"enableGatewayApi": true}'}},
            namespace="kserve",
        )

    # KServe and the cluster's own controllers

    def _control(self):
        while not self._stopped.wait(0.02):
            # KServe removes Deployments and Services of predictors that aren't named any more before it does the rest.
            self._collect()
            for name in self.api.names("inferenceservices", KSERVE):
                found = self.api.read("inferenceservices", name, KSERVE)
                if found and found["metadata"].get("annotations", {}).get("serving.kserve.io/stop") != "true":
                    self._reconcile(found)
            for name in self.api.names("httproutes", GATEWAY):
                self._take_route(name)

    def _reconcile(self, service):
        """Take one step towards what an InferenceService asks for."""
        if self.hold == "waiting":
            return
        name, spec = service["metadata"]["name"], service["spec"]
        backends = [(backend_of(name, spec["predictor"]), spec["predictor"])]
        backends += [(backend_of(name, canary["predictor"]), canary["predictor"]) for canary in spec.get("canary", ())]
        replicas = replicas_of(service)
        for backend, predictor in backends:
            self._pods_of(service, backend, predictor, replicas[backend]).step()
            if self.weights.get(name, {}).get(backend) and self.api.read("deployments", backend, "apps"):
                self.fewest[backend] = min(self.fewest.get(backend, replicas[backend]), replicas[backend])
        if self.canary:
            self._forget_canaries(service)
            if service["metadata"].get("labels", {}).get("networking.kserve.io/visibility") != "cluster-local":
                self._route_of(service, backends)

    def _pods_of(self, service, backend, predictor, replicas):
        uri = predictor["model"]["storageUri"]
        version = int(uri.rsplit("/", 1)[1])
        tick = self.ticks[backend, service["metadata"]["uid"], uri]
        self.ticks[backend, service["metadata"]["uid"], uri] += 1
        return Pods(self, service, backend, predictor, replicas, self.fates.get(version, "well"), tick)

    def _forget_canaries(self, service):
        """Say nothing any more of canaries that are gone."""
        names = {one["predictor"]["name"] for one in service["spec"].get("canary", ())}
        if {one["name"] for one in service.get("status", {}).get("canaryStatuses", ())} <= names:
            return

        def forget(body):
            said = body["status"]
            said["canaryStatuses"] = [one for one in said["canaryStatuses"] if one["name"] in names]
            if not names:
                said["conditions"] = [one for one in said["conditions"] if one["type"] != "CanaryPredictorReady"]

        try:
            self.api.edit("inferenceservices", service["metadata"]["name"], forget, KSERVE, manager="kserve")
        except KeyError:
            pass  # deleted meanwhile

    def _route_of(self, service, backends):
        """KServe's own route: a rule for gRPC and one for the rest, each with the weights of the canaries.

        As of August 2026 (`applyCanaryWeights`): a canary that isn't ready is left out, one with 0 % has the weight 0,
        and where there is no canary, no weight is written. The API server makes 1 of that.
        """
        canaries = service["spec"].get("canary", ())
        ready = {one["name"] for one in service.get("status", {}).get("canaryStatuses", ()) if one["ready"]}
        weights = {}
        if canaries and self.canary != "ignored":
            given = {
                backend_of(service["metadata"]["name"], one["predictor"]): one["trafficPercent"]
                for one in canaries
                if one["predictor"]["name"] in ready
            }
            weights = {backends[0][0]: 100 - sum(given.values()), **given}
        rules = []
        for match, port in (("^/tensorflow.serving.PredictionService/.*$", 9000), ("^/.*$", 80)):
            refs = [
                {"kind": "Service", "name": backend, "port": port, **({"weight": weights[backend]} if weights else {})}
                for backend, _ in backends
                if backend in (weights or {backends[0][0]: 1})
            ]
            path = {"type": "RegularExpression", "value": match}
            rules.append({"matches": [{"path": path}], "backendRefs": refs})
        name = service["metadata"]["name"]
        coming, since = self._coming_routes.get(name, ([], 0))
        self._coming_routes[name] = (rules, since + 1 if coming == rules else 0)
        if since < _ROUTE_LAG_TICKS or coming != rules:
            return
        for route in (f"{name}-predictor", name):  # of two hosts
            body = {"metadata": {"name": route}, "spec": {"parentRefs": [{"name": "gateway"}], "rules": rules}}
            found = self.api.read("httproutes", route, GATEWAY)
            if found is None or _weights(found["spec"]["rules"]) != _weights(rules):
                self.api.put("httproutes", body, GATEWAY, manager="kserve")

    def _collect(self):
        """Remove what belongs to predictors that nobody asks for any more."""
        wanted = set()
        for name in self.api.names("inferenceservices", KSERVE):
            found = self.api.read("inferenceservices", name, KSERVE)
            if found:
                predictors = [
                    found["spec"]["predictor"],
                    *(one["predictor"] for one in found["spec"].get("canary", ())),
                ]
                wanted |= {backend_of(name, predictor) for predictor in predictors}
        for backend in self.api.names("deployments", "apps"):
            if backend not in wanted:
                for plural, group in (("deployments", "apps"), ("services", ""), ("pods", "")):
                    self.api.remove(plural, backend, group)
                server, _ = self.servers.pop(backend, (None, None))
                if server:
                    server.stop()

    def _take_route(self, name):
        """What a gateway controller says of a route, and what its proxies do."""
        if self.stalled_gateway:
            return
        route = self.api.read("httproutes", name, GATEWAY)
        refs = [ref for rule in route["spec"]["rules"] for ref in rule.get("backendRefs", ())]
        missing = [ref["name"] for ref in refs if self.api.read("services", ref["name"]) is None]
        problem = self.refuses_route or (f"Service {missing[0]} not found" if missing else "")
        generation = route["metadata"]["generation"]
        always = {"observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"}
        conditions = [
            {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", **always},
            {
                "type": "ResolvedRefs",
                "status": "False" if problem else "True",
                "reason": "BackendNotFound" if problem else "ResolvedRefs",
                "message": problem,
                **always,
            },
        ]
        parent = {"group": GATEWAY, "kind": "Gateway", "name": "gateway"}
        status = {
            "parents": [{"parentRef": parent, "controllerName": "tests.invalid/gateway", "conditions": conditions}]
        }
        if self.said_of_routes is not None:
            status = {"parents": self.said_of_routes}
        if route.get("status") != status:
            self.api.edit("httproutes", name, lambda body: body.update(status=status), GATEWAY, manager="gateway")
        # What users ask comes by the rule for everything.
        rules = [rule for rule in route["spec"]["rules"] if rule["matches"][0]["path"]["value"] in ("/", "^/.*$")]
        weights = next(iter(_weights(rules)), {})
        total = sum(weights.values())
        self.weights[name] = {backend: 100 * weight / total for backend, weight in weights.items() if weight}
        if name == self._served_route:
            self._loop.call_soon_threadsafe(self.gateway.take, self.weights[name])

    def use_gateway(self, gateway):
        """Let another kind of gateway choose backends from now on."""
        gateway.take(self.weights.get(self._served_route, {}))
        self.gateway = gateway

    def await_gateway(self):
        """Wait until the gateway's controller has said something of the manifests' route."""
        until(lambda: self.api.read("httproutes", f"{self.name}-route", GATEWAY).get("status"))

    # The data plane

    async def _start_gateway(self):
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/direct/{service}/{path:.*}", self._direct)
        app.router.add_route("*", "/{path:.*}", self._split)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.endpoint = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.predictor_url = self.endpoint + "/direct/{service}"

    async def _stop_gateway(self):
        await self._runner.cleanup()

    async def _direct(self, request):
        assert "Authorization" not in request.headers  # which is for the gateway
        if self.hold == "golden" and request.match_info["service"] not in self.weights[f"{self.name}-route"]:
            return web.Response(status=503, text="no healthy upstream")
        self.clock.ahead_s += self.delays_s.get(request.match_info["service"], 0)
        return await self._forward(request, request.match_info["service"], request.match_info["path"])

    async def _split(self, request):
        if request.host.split(":")[0] not in ("tiles.example.org", "127.0.0.1"):
            return web.Response(status=404, text="no route for this host")
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": "Jwt is missing"}, status=401)
        if not self.gateway.weights:
            return web.Response(status=500, text="no backend")
        chosen, cookies = self.gateway.choose(request)
        self.answered[chosen] += 1
        fault = self.route_faults.get(chosen)
        answer = fault(request) if fault else None
        if answer is None:
            answer = await self._forward(request, chosen, request.match_info["path"])
        for cookie, value in cookies.items():
            answer.set_cookie(cookie, value)
        return answer

    @property
    def _served_route(self):
        return self.name if self.canary else f"{self.name}-route"

    async def _forward(self, request, service, path):
        server = self.servers.get(service)
        if server is None:
            return web.Response(status=503, text="no healthy upstream")
        return await server[0].answer(request, path)


def _weights(rules):
    """Return the weights of each rule's backends."""
    return [{ref["name"]: ref.get("weight", 1) for ref in rule.get("backendRefs", ())} for rule in rules]


def until(condition, seconds=20.0):
    """Wait for something that other threads do."""
    for _ in itertools.count():
        if found := condition():
            return found
        seconds -= 0.02
        assert seconds > 0, "it didn't happen"
        time.sleep(0.02)
