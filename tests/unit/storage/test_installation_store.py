"""minio://, the S3 store of a Kubeflow installation, beside another S3 store that the environment names."""

import pytest

from sat_xception.errors import ConfigError
from sat_xception.imagery.open import open_imagery
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.storage.address import stored_path
from sat_xception.storage.object_store import MinioStore, S3Store
from sat_xception.storage.store import open_store
from tests.storage_backends import running_bucket

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """The address of a server, and a bucket of it."""
    with running_bucket("s3", tmp_path_factory.mktemp("servers")) as found:
        yield found


@pytest.fixture
def another_store(monkeypatch):
    """Variables of another S3 store, as those of the Secret sat-xception-storage."""
    given = {"AWS_ENDPOINT_URL": NOWHERE, "AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "other"}
    for name, value in {**given, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)


def use_keys(monkeypatch, endpoint=""):
    monkeypatch.setenv("MINIO_ACCESS_KEY", "minio")
    monkeypatch.setenv("MINIO_SECRET_KEY", "minio123")
    if endpoint:
        monkeypatch.setenv("MINIO_ENDPOINT_URL", endpoint)


def test_the_two_stores_dont_get_in_each_others_way(installation, another_store, monkeypatch):
    server, bucket = installation
    use_keys(monkeypatch, server)
    with open_store(stored_path(f"minio://{bucket}/models")) as store:
        store.put("models/a.txt", b"a")
        assert store.read("models/a.txt") == b"a"
        assert [found.name for found in store.list("models")] == ["models/a.txt"]
    with pytest.raises(Exception, match=r"127\.0\.0\.1:9"):
        with open_store(stored_path(f"s3://{bucket}/models"), retries=False) as store:
            store.read("models/a.txt")


def test_its_endpoint_is_that_of_kubeflow_pipelines(monkeypatch, another_store):
    use_keys(monkeypatch)
    store = MinioStore(stored_path("minio://mlpipeline/models"))
    assert store._unproven() == "http://seaweedfs.kubeflow:9000"
    assert S3Store(stored_path("s3://mlpipeline/models"))._unproven() == NOWHERE


def test_without_keys_of_its_own_it_is_the_s3_of_the_environment(installation, monkeypatch):
    server, bucket = installation
    for name, value in {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(name, value)
    with open_store(stored_path(f"minio://{bucket}/models")) as store:
        store.put("models/b.txt", b"b")
    with open_store(stored_path(f"s3://{bucket}/models")) as store:
        assert store.read("models/b.txt") == b"b"


def test_an_error_names_the_secret_that_has_its_keys():
    store = MinioStore(stored_path("minio://mlpipeline/models"))
    assert "mlpipeline-minio-artifact" in store.advice.login
    assert store.advice.reading == S3Store.advice.reading


def test_a_geotiff_there_is_refused_with_what_gdal_reads():
    with pytest.raises(ConfigError, match=r"GDAL can't read minio://mlpipeline/a\.tif; give a GeoTIFF at http"):
        open_imagery("minio://mlpipeline/a.tif", ImageryConfig())
