"""Stores that the same tests run on: a folder, and servers of each provider's kind behind a proxy with faults."""

import base64
import contextlib
import hmac
import random
import shutil
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

import pytest

from sat_xception.storage.address import stored_path
from tests.storage_proxy import StorageProxy, bucket_of, free_port, passing_on, running_emulator, running_server

# The account of Azure's emulator and its key, which are public:
# https://learn.microsoft.com/azure/storage/common/storage-use-azurite#well-known-storage-account-and-key
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
BACKENDS = ("local", "gs", "s3", "az", "weed")
BUCKETS = BACKENDS[1:]


@dataclass
class Backend:
    """An empty place in a store.

    Attributes:
        name: Which one.
        root: Its address.
        proxy: What requests go through; None for a folder.
    """

    name: str
    root: Path
    proxy: StorageProxy | None = None
    env: dict[str, str] = field(default_factory=dict)

    def writes(self, name: str) -> str:
        """Return a pattern of the requests that write objects whose names match."""
        return f"POST /upload/.* [^ ]*{name}" if self.name == "gs" else f"PUT /[^?]*{name}(\\?(?!comp=)| |$)"

    def reads(self, name: str) -> str:
        """Return a pattern of the requests that read contents of objects whose names match."""
        return f"GET /download/.*{name}" if self.name == "gs" else f"GET /[^?]*{name}"


class Servers:
    """The servers, each started when a test first asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: dict[str, str] = {}
        self.running = contextlib.ExitStack()

    def address(self, name: str) -> str:
        if name not in self.started:
            self.started[name] = self.running.enter_context(START[name](self.folder))
        return self.started[name]


def gcs(folder: Path) -> contextlib.AbstractContextManager[str]:
    return running_emulator("results")


def moto(folder: Path) -> contextlib.AbstractContextManager[str]:
    pytest.importorskip("moto", reason="moto isn't installed")
    port = free_port()
    return running_server([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port)


def azurite(folder: Path) -> contextlib.AbstractContextManager[str]:
    command = shutil.which("azurite-blob")
    if command is None:
        pytest.skip("azurite-blob isn't on the path; npm install -g azurite")
    port = free_port()
    flags = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck"]
    return running_server([command, "--silent", *flags], port)


@contextlib.contextmanager
def weed(folder: Path) -> Iterator[str]:
    command = shutil.which("weed")
    if command is None:
        pytest.skip("SeaweedFS's weed isn't on the path")
    ports = [weed_port() for _ in range(4)]
    flags = [f"-{name}.port={port}" for name, port in zip(("master", "volume", "filer", "s3"), ports, strict=True)]
    # Each bucket takes some volumes.
    flags += ["-ip=127.0.0.1", "-master.volumeSizeLimitMB=16", "-volume.max=2000"]
    with running_server([command, "server", "-s3", f"-dir={folder}", *flags], ports[3]) as server:
        # It answers before it can write.
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                for name in ("ready", "ready/object"):
                    request = urllib.request.Request(f"{server}/{name}", b"" if name == "ready" else b"x", method="PUT")
                    urllib.request.urlopen(request, timeout=10).close()
                break
            assert time.monotonic() < deadline, "weed can't write"
            time.sleep(0.2)
        yield server


def weed_port() -> int:
    """Return a free port; weed also listens on the one 10,000 above it."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            return port


START: dict[str, Callable[[Path], contextlib.AbstractContextManager[str]]] = {
    "gs": gcs,
    "s3": moto,
    "az": azurite,
    "weed": weed,
}


@contextlib.contextmanager
def opened_backend(name: str, servers: Servers, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """Yield an empty place that the environment says how to reach."""
    if name == "local":
        yield Backend(name, folder / "results")
        return
    server = servers.address(name)
    with passing_on(server) as proxy:
        here = f"http://127.0.0.1:{proxy.server_port}"
        # SeaweedFS is no server for tests: it compares and swaps by itself.
        proxy.one_by_one = name != "weed"
        scheme = "s3" if name == "weed" else name
        if name == "gs":
            env = {"STORAGE_EMULATOR_HOST": here}
            assert proxy.ask("GET", "/wipe?keep-buckets=1", b"", {})[0] == 200
        elif name == "az":
            env = {
                "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
                "AZURE_STORAGE_ENDPOINT": f"{here}/{AZURE_ACCOUNT}",
            }
        else:
            env = {"AWS_ENDPOINT_URL": here, "AWS_REGION": "us-east-1"}
            env |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        for key, value in env.items():
            patch.setenv(key, value)
        bucket = make_bucket(name, server)
        yield Backend(name, stored_path(f"{scheme}://{bucket}/runs"), proxy, env)


@contextlib.contextmanager
def running_backend(name: str, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """Start a server of a kind, and yield an empty place of it that the environment says how to reach."""
    servers = Servers(folder)
    with servers.running, opened_backend(name, servers, folder, patch) as backend:
        yield backend


@contextlib.contextmanager
def running_bucket(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Start a server of a kind, and yield its address and the name of an empty bucket."""
    servers = Servers(folder)
    with servers.running:
        address = servers.address(name)
        yield address, make_bucket(name, address)


def make_bucket(name: str, server: str) -> str:
    """Return the name of an empty bucket; where buckets can't be emptied at once, of a new one."""
    if name == "gs":
        return bucket_of("results").name
    bucket = f"results-{free_port()}"
    url, headers = f"{server}/{bucket}", {"Content-Length": "0"}
    if name == "az":
        url = f"{server}/{AZURE_ACCOUNT}/{bucket}?restype=container"
        headers |= {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
        headers["Authorization"] = signed_by_azure(bucket, headers)
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers), timeout=30).close()
    return bucket


def signed_by_azure(container: str, headers: dict[str, str]) -> str:
    """Return the header that signs the creation of a container.

    https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
    """
    lines = ["PUT", *[""] * 11, f"x-ms-date:{headers['x-ms-date']}", f"x-ms-version:{headers['x-ms-version']}"]
    # The emulator's path begins with the account, to which the rule adds the account.
    lines += [f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{container}", "restype:container"]
    digest = hmac.digest(base64.b64decode(AZURE_KEY), "\n".join(lines).encode(), "sha256")
    return f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"
