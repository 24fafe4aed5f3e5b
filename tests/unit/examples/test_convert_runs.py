"""Convert by one process, by several, and killed: the same bytes."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sat_xception.dataset.manifest import ManifestRow
from sat_xception.errors import ConfigError, ServiceError
from sat_xception.examples.beam import pipeline_options
from sat_xception.examples.convert import convert
from sat_xception.examples.settings import ConvertConfig
from sat_xception.examples.shard_plan import PlannedShard
from sat_xception.examples.shard_writer import NOTE, ShardJob, write_shard
from sat_xception.steps import STEPS
from sat_xception.storage import folder_digests
from tests.datasets import write_dataset

TILES = 600


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A dataset of 600 tiles of 50 kB in several shards: 30 MB."""
    rng = random.Random(0)
    splits = ("train", "train", "train", "valid", "test")
    rows = (
        ManifestRow(f"{number}", "ab"[number % 2], splits[number % 5], "ok", format="jpeg", width=1, height=1)
        for number in range(TILES)
    )
    tiles = ((row, rng.randbytes(50_000)) for row in rows)
    folder = write_dataset(tmp_path_factory.mktemp("runs") / "dataset", tiles, "ab", shard_bytes=8 * 10**6)
    assert len(list(folder.glob("tiles-*.parquet"))) > 2
    return folder


@pytest.fixture(scope="module")
def undisturbed(dataset, tmp_path_factory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "examples"
    digests = folder_digests(convert(ConvertConfig(dataset=dataset, out=out, shard_mb=1)).folder)
    assert len(digests) > 20
    assert [path.name for path in out.parent.iterdir()] == ["examples"]
    return {name: digest for name, digest in digests.items() if name != "examples.json"}


def shards(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in folder_digests(folder).items() if name != "examples.json"}


def command(dataset: Path, out: Path, *more: str) -> list[str]:
    arguments = ["convert", "--dataset", str(dataset), "--out", str(out), "--shard-mb", "1", *more]
    return [sys.executable, "-m", "sat_xception", *arguments]


def test_two_processes_write_the_bytes_of_one(dataset, undisturbed, tmp_path):
    out = tmp_path / "examples"
    convert(ConvertConfig(dataset=dataset, out=out, shard_mb=1))
    one = folder_digests(out)
    done = subprocess.run(
        command(dataset, out, "--processes", "2"), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert folder_digests(out) == one
    assert shards(out) == undisturbed
    # Nothing of Beam's or its workers' is shown.
    assert [line for line in done.stderr.splitlines() if not line.startswith("convert ")] == []


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "attempts"), [("1", 1), ("2", 2)])
def test_a_run_that_is_killed_ends_with_the_same_bytes(dataset, undisturbed, tmp_path, processes, attempts):
    out, killed, told = tmp_path / "examples", 0, ""
    for attempt in range(attempts):
        running = subprocess.Popen(
            command(dataset, out, "--processes", processes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        goal, deadline = notes(tmp_path) + attempt, time.monotonic() + 30
        while running.poll() is None and notes(tmp_path) <= goal and time.monotonic() < deadline:
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        told = running.communicate(timeout=60)[1]
        if running.returncode == 0:
            break
        assert running.returncode == -signal.SIGKILL, told
        assert not out.exists()
        killed += 1
    else:
        told = subprocess.run(command(dataset, out), check=True, timeout=120, capture_output=True, text=True).stderr
    assert killed >= 1
    assert "files were there" in told
    assert shards(out) == undisturbed
    assert not list(tmp_path.glob(".examples-convert-*"))


def notes(folder: Path) -> int:
    try:
        return sum(1 for _ in folder.glob(f".examples-convert-*/*/*{NOTE}"))
    except FileNotFoundError:  # the run ends, and its folder is given its name
        return 0


def test_files_that_are_left_over_are_taken_only_if_they_are_whole(dataset, undisturbed, tmp_path):
    out = tmp_path / "examples"
    running = subprocess.Popen(command(dataset, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while notes(tmp_path) < 4 and running.poll() is None:
        time.sleep(0.001)
    running.kill()
    running.wait()
    left = sorted(tmp_path.glob(f".examples-convert-*/*/*{NOTE}"))
    damages = (lambda data: data[:-1], lambda data: b"x" + data[1:], lambda data: b"")
    assert len(left) > len(damages)
    for note, damage in zip(left, damages, strict=False):
        file = note.with_name(note.name.removesuffix(NOTE))
        file.write_bytes(damage(file.read_bytes()))
    assert shards(convert(ConvertConfig(dataset=dataset, out=out, shard_mb=1)).folder) == undisturbed


# Options of Beam


def test_options_reach_beam_as_they_are():
    from apache_beam.options.pipeline_options import FlinkRunnerOptions, GoogleCloudOptions, StandardOptions

    flags = ["--flink_master=host:8081", "--parallelism=8", "--project=a-project", "--temp_location=gs://bucket/tmp"]
    options = pipeline_options("FlinkRunner", flags)
    assert options.view_as(StandardOptions).runner == "FlinkRunner"
    flink, cloud = options.view_as(FlinkRunnerOptions), options.view_as(GoogleCloudOptions)
    assert (flink.flink_master, flink.parallelism) == ("host:8081", 8)
    assert (cloud.project, cloud.temp_location) == ("a-project", "gs://bucket/tmp")
    assert options._flags[1:] == flags


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--flink_mastr=host:1"], "no option of Beam .* is called '--flink_mastr'"),
        (["--parallelism=many"], "doesn't take --parallelism=many: .*invalid int value"),
    ],
)
def test_options_that_beam_does_not_have_are_refused(options, told, dataset, tmp_path):
    with pytest.raises(ConfigError, match=told):
        convert(ConvertConfig(dataset=dataset, out=tmp_path / "out", runner="FlinkRunner", beam_options=options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"runner": "FlinkRunner", "beam_options": ["--runner=SparkRunner"]}, "name the runner as --runner"),
        ({"runner": "FlinkRunner", "beam_options": ["flink_master=x"]}, "begins with two dashes; got 'flink_master=x'"),
        ({"beam_options": ["--flink_master=x"]}, "got '--flink_master=x' and no --runner"),
        ({"runner": "FlinkRunner", "processes": 2}, "--processes is for this machine"),
        ({"runner": "FlinkRunner", "out": "gs://bucket/out"}, "take --out from a folder that all of them mount"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, told, dataset, tmp_path):
    with pytest.raises(ConfigError, match=told):
        STEPS["convert"].run({"dataset": dataset, "out": tmp_path / "out", **settings})


def test_a_runner_is_used_by_its_name_and_options(dataset, undisturbed, tmp_path):
    options = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
    made = convert(
        ConvertConfig(dataset=dataset, out=tmp_path / "out", shard_mb=1, runner="FnApiRunner", beam_options=options)
    )
    assert shards(made.folder) == undisturbed


def test_a_worker_that_does_not_see_the_folder_says_what_it_needs(tmp_path):
    job = ShardJob((), ("a",), tmp_path / "elsewhere", "run")
    with pytest.raises(ServiceError, match=r"doesn't see .*elsewhere: a runner on other machines needs"):
        write_shard(PlannedShard("train", 0, 1, 0, 1, {"a": 1}), job)
