"""Stores of every kind, each with a place of its own for a test."""

from collections.abc import Iterator

import pytest

from sat_xception.storage import probe
from sat_xception.storage import store as stores
from tests.storage_backends import BACKENDS, BUCKETS, Backend, Servers, opened_backend


@pytest.fixture(scope="session")
def servers(tmp_path_factory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("servers"))
    with servers.running:
        yield servers


def _opened(name, servers, tmp_path, monkeypatch) -> Iterator[Backend]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stores, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(probe, "_known", {})
    with opened_backend(name, servers, tmp_path, monkeypatch) as backend:
        yield backend


@pytest.fixture(params=BACKENDS)
def backend(request, servers, tmp_path, monkeypatch) -> Iterator[Backend]:
    """A folder, and a bucket of each kind."""
    yield from _opened(request.param, servers, tmp_path, monkeypatch)


@pytest.fixture(params=BUCKETS)
def bucket_of_any_kind(request, servers, tmp_path, monkeypatch) -> Iterator[Backend]:
    """A bucket of each kind."""
    yield from _opened(request.param, servers, tmp_path, monkeypatch)


@pytest.fixture
def s3(servers, tmp_path, monkeypatch) -> Iterator[Backend]:
    yield from _opened("s3", servers, tmp_path, monkeypatch)
