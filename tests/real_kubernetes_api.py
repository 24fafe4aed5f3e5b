"""A real Kubernetes API server behind what `kserve_cluster.py` asks of the one of the tests.

What KServe, the kubelet and the cluster's controllers would write, it writes as the administrator; a rollout comes with
the rights that our manifests give its account.
"""

import copy
import time

import httpx

from tests.kubernetes_api import KINDS

VERSIONS = {"inferenceservices": "v1beta1", "servingruntimes": "v1alpha1"}
# What a real server wants of an object and its own one doesn't.
CONTAINER = {"name": "kserve-container", "image": "tensorflow/serving:2.19.1"}
SELECTOR = {"matchLabels": {"app": "predictor"}}
POD = {"containers": [CONTAINER], "initContainers": [{**CONTAINER, "name": "storage-initializer"}]}


class RealKubernetesApi:
    """The server at `url`, as its administrator."""

    def __init__(self, url, context, token, kubeconfig):
        self.kinds, self.logs, self._kubeconfig = dict(KINDS), {}, kubeconfig
        headers = {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(base_url=url, headers=headers, verify=context, trust_env=False, timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for group, plural in self.kinds:
            # A claim is only removed by a controller, which this server is without.
            if plural not in ("customresourcedefinitions", "events", "persistentvolumeclaims", "serviceaccounts"):
                for name in self.names(plural, group):
                    self.remove(plural, name, group)
        self.remove("configmaps", "inferenceservice-config", namespace="kserve")
        self.reads_kserve = False
        self._client.close()

    @property
    def reads_kserve(self):
        """Whether the rollout's account may read KServe's settings."""
        return self._client.get(_READERS).status_code == 200

    @reads_kserve.setter
    def reads_kserve(self, may):
        if not may:
            self._client.delete(_READERS)
            return
        everyone = {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:authenticated"}
        role = {"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": "view"}
        body = {"metadata": {"name": "readers"}, "subjects": [everyone], "roleRef": role}
        _check(self._client.post(_READERS.rpartition("/")[0], json=body))

    def write_kubeconfig(self, path):
        path.write_text(self._kubeconfig.read_text())
        return path

    def put(self, plural, body, group="", namespace="sat-xception", manager="kubectl"):
        if plural == "customresourcedefinitions":
            return None  # it has the real ones
        body = _complete(plural, copy.deepcopy(body))
        body |= {"apiVersion": _version(group, plural), "kind": self.kinds[group, plural]}
        name, status = body["metadata"]["name"], body.pop("status", None)
        body["metadata"] = {**body["metadata"], "namespace": namespace}
        for _ in _tries():
            found = self.read(plural, name, group, namespace)
            if found is None:
                body["metadata"].pop("resourceVersion", None)
                answer = self._client.post(_path(group, plural, namespace), json=body, params={"fieldManager": manager})
            elif plural == "pods":  # what a pod is made of can't be changed
                answer = None
            else:
                body["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
                if plural == "services":
                    body["spec"] = found["spec"] | body["spec"]
                answer = self._replace(plural, body, group, namespace, manager)
            if answer is None or answer.status_code != 409:
                break
        if answer is not None:
            _check(answer)
        if status is not None:
            self.edit(plural, name, lambda body: body.update(status=status), group, namespace, manager)
        return self.read(plural, name, group, namespace)

    def edit(self, plural, name, change, group="", namespace="sat-xception", manager="kubectl-edit"):
        for _ in _tries():
            before = self.read(plural, name, group, namespace)
            if before is None:
                raise KeyError(name)
            body = copy.deepcopy(before)
            change(body)
            answers = []
            if {**body, "status": None} != {**before, "status": None}:
                answers.append(self._replace(plural, body, group, namespace, manager))
                if answers[0].is_success:
                    body["metadata"] = answers[0].json()["metadata"]
            if body.get("status") != before.get("status"):
                answers.append(self._replace(plural, body, group, namespace, manager, "status"))
            if not any(answer.status_code == 409 for answer in answers):
                break
        for answer in answers:
            if answer.status_code == 404:
                raise KeyError(name)
            _check(answer)

    def read(self, plural, name, group="", namespace="sat-xception"):
        answer = self._client.get(_path(group, plural, namespace, name))
        return None if answer.status_code == 404 else _check(answer)

    def names(self, plural, group=""):
        items = _check(self._client.get(_path(group, plural, "sat-xception")))["items"]
        return sorted(item["metadata"]["name"] for item in items if item["metadata"]["name"] not in _OF_KUBERNETES)

    def remove(self, plural, name, group="", namespace="sat-xception"):
        answer = self._client.request("DELETE", _path(group, plural, namespace, name), json={"gracePeriodSeconds": 0})
        assert answer.status_code in (200, 202, 404), answer.text

    def _replace(self, plural, body, group, namespace, manager, sub=""):
        path = _path(group, plural, namespace, body["metadata"]["name"], sub)
        return self._client.put(path, json=body, params={"fieldManager": manager})


_READERS = "/apis/rbac.authorization.k8s.io/v1/namespaces/kserve/rolebindings/readers"
_OF_KUBERNETES = ("kube-root-ca.crt", "kubernetes")


def _complete(plural, body):
    """Add what the real definitions require."""
    spec = body.setdefault("spec", {}) if plural in ("deployments", "pods") else {}
    if plural == "deployments":
        spec["selector"] = SELECTOR
        template = spec["template"]
        template["metadata"] = {**template.get("metadata", {}), "labels": SELECTOR["matchLabels"]}
        template["spec"] = {"containers": [CONTAINER]}
    elif plural == "pods":
        spec |= copy.deepcopy(POD)
    return body


def _version(group, plural):
    version = VERSIONS.get(plural, "v1")
    return f"{group}/{version}" if group else version


def _path(group, plural, namespace, *rest):
    root = f"/apis/{_version(group, plural)}" if group else "/api/v1"
    return "/".join((root, "namespaces", namespace, plural, *(part for part in rest if part)))


def _check(answer):
    assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.text}"
    return answer.json()


def _tries():
    """Yield some times, with pauses: somebody else changed the object in between."""
    for _ in range(20):
        yield
        time.sleep(0.02)
