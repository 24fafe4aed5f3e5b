"""Settings that are addresses in a bucket: which are taken, and steps that read from one and write to one."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import ConfigError
from sat_xception.evaluate.settings import GateConfig
from sat_xception.examples.settings import ConvertConfig
from sat_xception.settings.config import load_config
from sat_xception.steps import DATASET_VERBS, STEPS
from sat_xception.storage import GcsPath, fetch_folder, folder_digests, read_json
from sat_xception.workflows.settings import TrainFoldersConfig
from tests.storage_proxy import StorageProxy, bucket_of, running_emulator, running_proxy


def test_tiles_of_a_dataset_in_a_bucket_are_kept_in_a_folder_that_is_named():
    with pytest.raises(ConfigError, match="--tile-cache"):
        load_config(
            AssembleConfig, overrides={"labels": "schools.geojson", "imagery": "tiles", "out": "gs://bucket/dataset"}
        )


def test_an_address_is_taken_apart_and_put_together():
    path = GcsPath("gs://bucket/a/b")
    assert (path.bucket, path.object, path.name) == ("bucket", "a/b", "b")
    assert f"{path / 'c.json'}" == "gs://bucket/a/b/c.json"
    assert str(GcsPath(Path("gs://bucket/a"))) == "gs://bucket/a", "a plain Path loses a slash"


def test_nothing_here_can_be_read_or_made_under_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = GcsPath("gs://bucket/a")
    for use in (path.exists, path.mkdir, path.read_text, lambda: open(path)):
        with pytest.raises(TypeError, match="gs://bucket/a is in a bucket"):
            use()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["gs://bucket/a/b", "gs://bucket/a/b/", Path("gs://bucket/a/b")])
def test_settings_may_be_addresses_and_are_recorded_as_such(given):
    config = load_config(ConvertConfig, None, {"dataset": given, "out": given})
    assert (type(config.dataset), type(config.out)) == (GcsPath, GcsPath)
    assert config.resolved()["dataset"] == "gs://bucket/a/b"
    config = load_config(GateConfig, None, {"evaluations": ("here", given), "out": "o"})
    assert config.resolved()["evaluations"] == ["here", "gs://bucket/a/b"]


@pytest.mark.parametrize(
    "given", ["gs://", "gs:///a", "gs://bucket", "gs://bucket/", "gs://Bucket!/a", "gs://b/../c/d"]
)
@pytest.mark.parametrize("setting", ["data", "out"])
def test_an_address_of_another_form_is_refused_with_the_settings(setting, given):
    with pytest.raises(ConfigError, match=rf"--{setting}: expected gs://bucket/path/to/folder; got '{given}'"):
        load_config(AssembleConfig, None, {"data": "d", "out": "o", setting: given})


@pytest.mark.parametrize("address", ["gs://bucket/models", "s3://bucket/models", "az://bucket/models"])
def test_a_setting_that_must_be_local_refuses_an_address(address):
    told = f"--models: this must be a path on this machine; it can't be in a bucket; got '{address}'"
    with pytest.raises(ConfigError, match=re.escape(told)):
        load_config(TrainFoldersConfig, None, {"train": "t", "valid": "v", "models": Path(address)})
    with pytest.raises(ConfigError, match=f"the file of settings must be on this machine; got {address}"):
        load_config(TrainFoldersConfig, Path(address))


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    with running_emulator("tiles") as address:
        yield address


@pytest.fixture
def proxy(emulator, monkeypatch, tmp_path) -> Iterator[StorageProxy]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with running_proxy(emulator, monkeypatch) as proxy:
        assert proxy.ask("GET", "/wipe?keep-buckets=1", b"", {})[0] == 200
        yield proxy


def upload_folder(folder: Path, prefix: str) -> None:
    bucket = bucket_of("tiles")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        bucket.blob(f"{prefix}/{path.relative_to(folder).as_posix()}").upload_from_filename(str(path))


def test_steps_from_bucket_to_bucket_make_what_they_make_here(proxy, class_folders, examples):
    upload_folder(class_folders, "data/colombia")
    settings = {"data": "gs://tiles/data/colombia", "out": "gs://tiles/runs/dataset"}
    assembled = STEPS["assemble"].run(settings)
    assert "gs://tiles/runs/dataset/manifest.parquet" in assembled.summary()
    converted = STEPS["convert"].run({"dataset": "gs://tiles/runs/dataset", "out": Path("gs://tiles/runs/examples")})
    assert converted.summary().endswith("wrote     gs://tiles/runs/examples")

    dataset = fetch_folder(GcsPath("gs://tiles/runs/dataset"), "dataset.json")
    record, here = (read_json(folder / "dataset.json", "assemble") for folder in (dataset, examples.parent / "dataset"))
    assert record["digest"] == here["digest"]
    assert record["name"] == "colombia"
    assert {key: record["config"][key] for key in settings} == settings
    found = fetch_folder(GcsPath("gs://tiles/runs/examples"), "examples.json")
    shards, same = (
        {name: digest for name, digest in folder_digests(folder).items() if name.endswith(".tfrecord")}
        for folder in (found, examples)
    )
    assert shards == same
    assert len(shards) == 3


@pytest.mark.slow
def test_a_build_into_a_bucket_keeps_what_is_done_and_a_diff_reads_two_files_of_each(proxy, class_folders, tmp_path):
    settings = {"data": str(class_folders), "out": "gs://tiles/built"}
    built = DATASET_VERBS["build"].run(settings)
    assert built.counts.by_status["ok"] == 80
    again = DATASET_VERBS["build"].run(settings)
    assert again.kept == ("convert", "validate"), "class folders may change unseen"
    cache = tmp_path / "cache"
    shutil.rmtree(cache)
    same = DATASET_VERBS["diff"].run({"old": "gs://tiles/built/dataset", "new": "gs://tiles/built/dataset"})
    assert same.summary().endswith("no change")
    assert sorted(path.name for path in cache.rglob("*") if path.is_file()) == ["dataset.json", "manifest.parquet"]


def test_a_step_whose_input_is_not_there_says_so_before_it_writes(proxy):
    with pytest.raises(ConfigError, match="nothing at gs://tiles/nowhere"):
        STEPS["convert"].run({"dataset": "gs://tiles/nowhere", "out": "gs://tiles/runs/examples"})
    assert proxy.count("POST /upload/") == 0
