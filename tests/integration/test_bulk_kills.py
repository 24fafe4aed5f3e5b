"""A bulk run that is killed at several moments, with SIGKILL, and started again ends as if nobody had touched it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from sat_xception.bulk.engines import prepare_engine
from sat_xception.bulk.plan import plan_tiles
from sat_xception.bulk.scorer import ScoringModel
from sat_xception.bulk.settings import BulkPlanConfig
from tests.bulk_tiles import export_version, images
from tests.serving_fixtures import NAME
from tests.tile_server import TileServer

pytest.importorskip("openvino")
# tests/unit/bulk/test_bulk_predict.py loses shards and damages records without a process of its own.
pytestmark = pytest.mark.slow

COUNT, SHARD = 18 * 18, 20
SHARDS = -(-COUNT // SHARD)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model root, the network that OpenVINO takes of it, and a list of tiles."""
    folder = tmp_path_factory.mktemp("bulk")
    root = export_version(folder / "models")
    model = ScoringModel.read(root / NAME / "1")
    prepare_engine(model, "openvino", "fp32", None, folder / "engine")
    (folder / "tiles.txt").write_text("\n".join(f"10/{x}/{y}" for x in range(18) for y in range(18)))
    return folder


@pytest.fixture
def run(made, tmp_path):
    """Return a function that starts `bulk predict` into a folder."""

    def start(out, *flags):
        if not (tmp_path / out).exists():
            shutil.copytree(made / "engine", tmp_path / out / "engine")
        command = [sys.executable, "-m", "sat_xception", "bulk", "predict", "--engine", "openvino", "--name", NAME]
        command += ["--plan", tmp_path / "plan", "--model", made / "models", "--out", tmp_path / out, *flags]
        return subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    return start


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("scores*"))}


def scored(folder):
    return [name for path in folder.glob("scores-*.parquet") for name in pq.read_table(path)["tile_id"].to_pylist()]


def finished(folder):
    return len(list(folder.glob("scores-*.parquet")))


@pytest.mark.parametrize(
    ("flags", "moments"),
    [((), (1, SHARDS - 4)), (("--processes", "2"), (SHARDS // 2,))],
    ids=["one process", "two processes"],
)
def test_a_run_that_is_killed_and_started_again_ends_with_the_bytes_of_one_that_was_not(
    made, run, tmp_path, flags, moments
):
    with TileServer([*images(20), b"no image"], delay_s=0.01) as tiles:
        settings = {"imagery": tiles.template, "probe": 0, "shard_tiles": SHARD}
        plan_tiles(BulkPlanConfig(tiles=made / "tiles.txt", out=tmp_path / "plan", **settings))
        whole = run("whole", *flags, "--workers", 16)
        out, err = whole.communicate(timeout=120)
        assert whole.returncode == 0, err
        assert f"{COUNT} planned" in out
        tiles.asked.clear()
        asked_when_finished = {}
        for moment in moments:
            process = run("killed", *flags, "--workers", 4)
            while process.poll() is None and not (
                (tmp_path / "killed" / "run.json").exists() and finished(tmp_path / "killed") >= moment
            ):
                time.sleep(0.005)
            assert process.poll() is None, process.communicate()[1]
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            assert finished(tmp_path / "killed") < SHARDS
            assert not (tmp_path / "killed" / "scores.json").exists()
            for name in scored(tmp_path / "killed"):
                tile = tuple(map(int, name.split("/")[1:]))
                asked_when_finished.setdefault(tile, tiles.asked[tile])
        last = run("killed", *flags, "--workers", 16)
        out, err = last.communicate(timeout=120)
        assert last.returncode == 0, err
        assert f"of {SHARDS} shards were there" in err
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    facts = json.loads((tmp_path / "killed" / "scores.json").read_text())
    assert facts["planned"] == COUNT == facts["scored"] + facts["failed"]
    assert facts["failed"] == sum((x + y) % 21 == 20 for x in range(18) for y in range(18))
    ids = scored(tmp_path / "killed")
    assert len(ids) == len(set(ids)) == COUNT
    # What was finished wasn't fetched again; a tile that was under way at a kill may be, once.
    assert len(asked_when_finished) >= SHARD
    assert {tile: tiles.asked[tile] for tile in asked_when_finished} == asked_when_finished
    assert max(tiles.asked.values()) <= 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_stops_a_run_in_the_middle_of_a_shard(made, run, tmp_path, number, code):
    with TileServer(images(20), delay_s=0.05) as tiles:
        settings = {"imagery": tiles.template, "probe": 0, "shard_tiles": 1000}
        plan_tiles(BulkPlanConfig(tiles=made / "tiles.txt", out=tmp_path / "plan", **settings))
        process = run("stopped", "--workers", 1)
        while process.poll() is None and len(tiles.asked) < 40:
            time.sleep(0.005)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert "run the same command again" in err and "Traceback" not in err
        assert len(tiles.asked) < COUNT
        again = run("stopped", "--workers", 32)
        out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert f"{COUNT} planned = {COUNT} scored" in out
