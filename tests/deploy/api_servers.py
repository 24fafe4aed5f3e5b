"""API servers for the same tests: the one of the tests, a real one out of $KUBEBUILDER_ASSETS, and that of a cluster.

$KUBEBUILDER_ASSETS names a folder with `etcd` and `kube-apiserver`, as controller-runtime's envtest has it
(`setup-envtest use -p path`). A cluster is that of $KUBECONFIG, with `pytest -m cluster`: it needs the definitions of
KServe and the Gateway API, and a namespace `sat-xception` that the tests may write to.
"""

import os
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from sat_xception.deploy.preflight import PERMISSIONS, PREFLIGHT_PERMISSIONS
from tests.kubernetes_api import ACCOUNT, KubernetesApi

NAMESPACE = "sat-xception"
CRDS = Path(__file__).parents[3] / "shared" / "crds"
ADMINISTRATOR, DEPLOYER = "token-of-the-administrator", "token-of-the-deployer"
# What a rollout's pod has: the account that our manifests bind the Role to.
TOKENS = f"{ADMINISTRATOR},tester,1,system:masters\n{DEPLOYER},{ACCOUNT},2\n"


@contextmanager
def api_server(kind, folder):
    """Yield the kubeconfig of an API server that has what a rollout needs, or skip."""
    if kind == "fake":
        with KubernetesApi(PERMISSIONS, PREFLIGHT_PERMISSIONS) as api:
            yield api.write_kubeconfig(folder / "kubeconfig")
    elif kind == "cluster":
        if not os.environ.get("KUBECONFIG"):
            pytest.skip("no $KUBECONFIG: no cluster to test on")
        yield Path(os.environ["KUBECONFIG"])
    else:
        with real_api_server(folder) as url:
            yield write_kubeconfig(folder, url, ADMINISTRATOR)


@contextmanager
def real_api_server(folder):
    """Yield the address of a real one with the definitions and the namespaces, or skip."""
    assets = Path(os.environ.get("KUBEBUILDER_ASSETS", ""))
    if not (assets / "kube-apiserver").is_file() or not (assets / "etcd").is_file():
        pytest.skip("$KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver")
    if not CRDS.is_dir():
        pytest.skip(f"no CustomResourceDefinitions at {CRDS}")
    with _processes(assets, folder) as url:
        _install(write_kubeconfig(folder, url, ADMINISTRATOR))
        yield url


def write_kubeconfig(folder, url, token):
    """Write a kubeconfig into the folder of a real one's files, for whom the token stands."""
    cluster = {"server": url, "certificate-authority": str(certificate(folder))}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "t",
        "clusters": [{"name": "t", "cluster": cluster}],
        "users": [{"name": "t", "user": {"token": token}}],
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
    }
    path = folder / f"kubeconfig-{token}"
    path.write_text(yaml.safe_dump(config))
    return path


def certificate(folder):
    """Return the file of the certificate that a real one makes itself."""
    return folder / "certs" / "apiserver.crt"


@contextmanager
def _processes(assets, folder):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (folder / "sa.key").write_bytes(pem)
    (folder / "tokens.csv").write_text(TOKENS)
    clients, peers, secure = _free_port(), _free_port(), _free_port()
    etcd = [
        assets / "etcd",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{clients}",
        f"--advertise-client-urls=http://127.0.0.1:{clients}",
        f"--listen-peer-urls=http://127.0.0.1:{peers}",
        "--unsafe-no-fsync",
    ]
    server = [
        assets / "kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{clients}",
        f"--secure-port={secure}",
        "--bind-address=127.0.0.1",
        f"--cert-dir={folder / 'certs'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        f"--service-account-key-file={folder / 'sa.key'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        "--service-account-issuer=https://tests.invalid",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--disable-admission-plugins=ServiceAccount",
        "--authorization-mode=RBAC",
    ]
    running = []
    try:
        for command in (etcd, server):
            with (folder / f"{command[0].name}.log").open("wb") as log:
                running.append(subprocess.Popen([str(part) for part in command], stdout=log, stderr=log))
        deadline = time.monotonic() + 60
        while not certificate(folder).is_file():
            assert running[1].poll() is None, (folder / "kube-apiserver.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "no certificate after a minute"
            time.sleep(0.1)
        yield f"https://127.0.0.1:{secure}"
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(30)


def _install(kubeconfig):
    """Wait for the server; create the definitions and the namespace."""
    from kubernetes import client, config, utils
    from kubernetes.client.rest import ApiException
    from urllib3.exceptions import HTTPError

    with config.new_client_from_config(str(kubeconfig)) as api:
        deadline = time.monotonic() + 60
        while True:
            try:
                client.CoreV1Api(api).create_namespace({"metadata": {"name": NAMESPACE}})
                client.CoreV1Api(api).create_namespace({"metadata": {"name": "kserve"}})
                break
            except (HTTPError, ApiException):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        for file in sorted(CRDS.glob("*.yaml")):
            utils.create_from_yaml(api, str(file))
        while not _served(client.CustomObjectsApi(api)):
            assert time.monotonic() < deadline
            time.sleep(0.5)


def _served(api):
    from kubernetes.client.rest import ApiException

    try:
        for group, version, plural in (
            ("serving.kserve.io", "v1beta1", "inferenceservices"),
            ("gateway.networking.k8s.io", "v1", "httproutes"),
        ):
            api.list_namespaced_custom_object(group, version, NAMESPACE, plural)
    except ApiException:
        return False
    return True


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
