"""Addresses in buckets as paths, of any kind of bucket; and the functions that take a local path as well."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError

from sat_xception.errors import ConfigError
from sat_xception.storage import (
    GcsPath,
    Stored,
    has_result,
    is_remote,
    local_file,
    local_folder,
    remove_empty_folder,
    stored_path,
)
from sat_xception.storage import address as addresses
from sat_xception.storage.address import AzurePath, MinioPath, RemotePath, S3Path, is_address


class OtherPath(RemotePath):
    """An address in another kind of bucket."""

    __slots__ = ()
    scheme = "other://"


@pytest.fixture
def two_kinds(monkeypatch):
    monkeypatch.setattr(addresses, "_REMOTE", (*addresses._REMOTE, OtherPath))


KINDS = [("gs", GcsPath), ("s3", S3Path), ("az", AzurePath), ("minio", MinioPath), ("other", OtherPath)]


@pytest.mark.parametrize(("scheme", "kind"), KINDS)
@pytest.mark.parametrize("slashes", ["://", ":/"])
def test_an_address_is_a_path_of_its_kind(two_kinds, scheme, kind, slashes):
    for value in (f"{scheme}{slashes}bucket/a/b", Path(f"{scheme}{slashes}bucket/a/b")):
        path = stored_path(value)
        assert type(path) is kind and is_remote(path) and is_address(value)
        assert str(path) == f"{scheme}://bucket/a/b"
        assert (path.bucket, path.object) == ("bucket", "a/b")
        assert str(path / "c") == f"{scheme}://bucket/a/b/c" and type(path / "c") is kind
        assert str(path.parent) == f"{scheme}://bucket/a" and type(path.parent) is kind
        with pytest.raises(TypeError, match="is in a bucket; fetch or publish it"):
            open(path)


@pytest.mark.parametrize("value", ["a/b", "/gs://bucket", "gs", "s3", "s3-like/a", "a/gs://bucket/b", "C://a", ""])
def test_everything_else_is_a_path_on_this_machine(value):
    assert stored_path(value) == Path(value) and type(stored_path(value)) is type(Path())
    assert not is_address(value) and not is_remote(stored_path(value))


@pytest.mark.parametrize("value", ["gsx://bucket/a", "http://bucket/a", "other://bucket/a", "oci://bucket/a"])
def test_an_address_of_an_unknown_scheme_is_refused_with_those_that_are_known(value):
    scheme = value.partition("://")[0]
    told = (
        f"^{scheme}:// isn't known; expected a path on this machine, or an address at gs://, s3://, az:// or minio://$"
    )
    with pytest.raises(ConfigError, match=told):
        stored_path(value)
    for given in (value, Path(value)):
        with pytest.raises(ValidationError, match=rf"{scheme}:// isn't known; expected a path on this machine"):
            TypeAdapter(Annotated[Path, Stored("folder")]).validate_python(given)


def test_a_setting_takes_addresses_of_all_kinds_and_only_whole_ones(two_kinds):
    setting = TypeAdapter(Annotated[Path, Stored("folder")])
    assert type(setting.validate_python("other://bucket/a")) is OtherPath
    assert type(setting.validate_python("gs://bucket/a")) is GcsPath
    for wrong in ("gs://bucket", "other://bucket", "other://B/a", "s3://bucket/../a"):
        with pytest.raises(ValidationError, match=f"expected {wrong.partition('//')[0]}//bucket/path"):
            setting.validate_python(wrong)


def test_what_is_on_this_machine_is_taken_as_it_is(tmp_path):
    assert local_folder(tmp_path / "none", "record.json") == tmp_path / "none"
    assert local_file(tmp_path / "none") == tmp_path / "none"
    assert not has_result(tmp_path, "record.json")
    (tmp_path / "record.json").write_text("{}")
    assert has_result(tmp_path, "record.json")


def test_only_an_empty_folder_is_removed(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("full", "empty", "none"):
        remove_empty_folder(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    remove_empty_folder(stored_path("gs://bucket/folder"))  # asks nothing of the bucket
