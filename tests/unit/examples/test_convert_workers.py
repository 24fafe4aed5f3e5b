"""What Beam's workers report, and what becomes of them when convert is killed."""

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
from sat_xception.errors import ConfigError
from sat_xception.examples.convert import convert
from sat_xception.examples.settings import ConvertConfig
from sat_xception.examples.shard_plan import PlannedShard
from sat_xception.examples.shard_writer import FAILED, NOTE, RUN, ShardJob, write_shard
from sat_xception.steps import STEPS
from sat_xception.storage import folder_digests
from tests.datasets import write_dataset


def write_tiles(folder: Path, count: int) -> Path:
    """Write a dataset of so many tiles of 50 kB."""
    rng = random.Random(0)
    splits = ("train", "train", "valid", "test")
    rows = (
        ManifestRow(f"{number}", "ab"[number % 2], splits[number % 4], "ok", format="jpeg", width=1, height=1)
        for number in range(count)
    )
    tiles = ((row, rng.randbytes(50_000)) for row in rows)
    return write_dataset(folder, tiles, "ab", shard_bytes=8 * 10**6)


def command(dataset: Path, out: Path) -> list[str]:
    arguments = ["--dataset", str(dataset), "--out", str(out), "--shard-mb", "1", "--processes", "2"]
    return [sys.executable, "-m", "sat_xception", "convert", *arguments]


def notes(folder: Path) -> int:
    return sum(1 for _ in folder.glob(f".examples-convert-*/*/*{NOTE}"))


@pytest.mark.slow
def test_workers_whose_parent_is_killed_end_and_do_not_disturb_the_next_run(tmp_path_factory, tmp_path):
    dataset = write_tiles(tmp_path_factory.mktemp("workers") / "dataset", 1200)  # 60 MB
    undisturbed = convert(ConvertConfig(dataset=dataset, out=tmp_path / "undisturbed", shard_mb=1)).folder
    out = tmp_path / "examples"
    running = subprocess.Popen(
        command(dataset, out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while running.poll() is None and not notes(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.001)
    workers = processes_of_session(running.pid) - {running.pid}
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert len(workers) >= 2
    made = convert(ConvertConfig(dataset=dataset, out=out, shard_mb=1)).folder
    for split in ("train", "valid", "test"):
        assert folder_digests(made / split) == folder_digests(undisturbed / split)
    deadline = time.monotonic() + 30
    while (left := processes_of_session(running.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left


def processes_of_session(session: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which ends with the last bracket: state, parent, group, session.
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.add(int(stat.parent.name))
    return found


@pytest.mark.parametrize("its_own", [True, False])
def test_a_worker_tells_of_its_failure_only_while_the_folder_is_its_runs(tmp_path, its_own):
    (tmp_path / RUN).write_text("this" if its_own else "the next")
    (tmp_path / "train").mkdir()
    # A file that was taken away meanwhile.
    job = ShardJob(((tmp_path / "tiles-00000-of-00001.parquet", 1),), ("a",), tmp_path, "this")
    write_shard(PlannedShard("train", 0, 1, 0, 1, {"a": 1}), job)
    assert (tmp_path / FAILED).exists() is its_own
    assert not list((tmp_path / "train").iterdir())


def test_that_beam_is_not_installed_is_told_as_for_every_step(tmp_path, monkeypatch):
    dataset = write_tiles(tmp_path / "dataset", 4)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ConfigError, match=r"this step needs apache_beam, which isn't installed: pip install"):
        STEPS["convert"].run({"dataset": dataset, "out": tmp_path / "out", "runner": "FnApiRunner"})
    assert list(tmp_path.iterdir()) == [dataset]
    STEPS["convert"].run({"dataset": dataset, "out": tmp_path / "out"})  # one process here needs no Beam
    assert (tmp_path / "out" / "examples.json").is_file()
