"""From labelled places and a tile server to a dataset: the command itself, in a process that may be killed."""

import contextlib
import functools
import io
import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sat_xception.cli import main
from tests.conftest import SHARED, draw_tile, encode
from tests.tile_server import TileServer


class Ground(TileServer):
    """Serves another image for each tile: a piece of a real one where there are some, else a drawn one."""

    def tile(self, x, y):
        rng = np.random.default_rng([x, y])
        if not self.tiles:
            return encode(draw_tile("school", int(rng.integers(2**31))))
        image = self.tiles[rng.integers(len(self.tiles))]
        left, top = rng.integers(0, 256 - 96, 2).tolist()
        return encode(image.crop((left, top, left + 96, top + 96)), quality=90)


@pytest.fixture(scope="module")
def images():
    found = sorted((SHARED / "data" / "tiles-ucmerced").rglob("*.jpg"))[::20]
    images = [Image.open(io.BytesIO(path.read_bytes())).convert("RGB") for path in found]
    return [image for image in images if min(image.size) >= 250]


@pytest.fixture
def schools():
    path = SHARED / "data" / "schools_romania.geojson"
    if not path.is_file():
        pytest.skip(f"no real labels at {path}")
    return path


def command(labels, server, out, *more):
    settings = ["--label", "school", "--zoom", "17", "--negatives-ratio", "1", "--imagery", server.template]
    return [sys.executable, "-m", "sat_xception", "assemble", "--labels", labels, *settings, "--out", out, *more]


def in_this_process(given):
    """Run a command, for results that don't depend on the process that it runs in; return its status and output."""
    shown = io.StringIO()
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(shown):
        main([str(word) for word in given[3:]])
    return subprocess.CompletedProcess(given, int(ended.value.code or 0), shown.getvalue())


def described(out):
    return json.loads((out / "dataset.json").read_text())


@pytest.mark.slow
def test_real_schools_become_a_dataset_in_one_command(schools, images, tmp_path):
    layer = json.loads(schools.read_text())
    layer["features"] = layer["features"][::5]  # of the whole country
    (tmp_path / "labels.geojson").write_text(json.dumps(layer))
    with Ground(images) as server:
        given = command(tmp_path / "labels.geojson", server, tmp_path / "out", "--workers", "8")
        given += ["--imagery-attribution", "(c) Somebody <&>"]
        ended = subprocess.run(given, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    description = described(tmp_path / "out")
    assert description["classes"] == ["not-school", "school"]
    assert description["attribution"] == "(c) Somebody <&>"
    counts = description["counts"]
    rows = pq.read_table(tmp_path / "out" / "manifest.parquet")
    assert rows.num_rows == counts["considered"] == sum(counts["by_status"].values()) == len(server.asked)
    assert set(counts["by_split"]) == {"train", "valid", "test"}
    labels = rows.column("label").to_pylist()
    assert labels.count("school") == labels.count("not-school") > 480
    assert "(c) Somebody &lt;&amp;&gt;" in (tmp_path / "out" / "report.html").read_text()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["labels.geojson", "out"], "the store of fetched tiles isn't removed"


@pytest.mark.parametrize(("count", "times"), [(30, 1), pytest.param(80, 5, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_ends_with_the_dataset_of_an_undisturbed_run(images, tmp_path, count, times):
    places = random.Random(5)
    points = [[24 + places.random() / 4, 44 + places.random() / 4] for _ in range(count)]
    features = [{"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": p}} for p in points]
    labels = tmp_path / "labels.geojson"
    labels.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with Ground(images, delay_s=0.03) as server:
        more = ("--workers", "1")
        assert in_this_process(command(labels, server, tmp_path / "undisturbed", *more)).returncode == 0
        asked_once = dict(server.asked)
        kills = random.Random(7)
        for _ in range(times):
            process = subprocess.Popen(command(labels, server, tmp_path / "killed", *more), stderr=subprocess.DEVNULL)
            before = sum(server.asked.values())
            deadline = time.monotonic() + 10
            # From its first request on, which a slow machine takes long to come to.
            while sum(server.asked.values()) == before and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(kills.uniform(0.05, 0.006 * count))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, "it ended before it was killed; the tiles are too few"
        assert in_this_process(command(labels, server, tmp_path / "killed", *more)).returncode == 0
        assert described(tmp_path / "killed")["digest"] == described(tmp_path / "undisturbed")["digest"]
        # Each kill may lose the tile in flight, and no other.
        assert sum(server.asked.values()) <= 2 * sum(asked_once.values()) + times


@pytest.fixture(scope="module")
def built(images, tmp_path_factory):
    """100 real schools with as many negatives, built in one command against the server; and how to run it again."""
    path = SHARED / "data" / "schools_romania.geojson"
    if not path.is_file():
        pytest.skip(f"no real labels at {path}")
    folder = tmp_path_factory.mktemp("built")
    layer = json.loads(path.read_text())
    layer["features"] = layer["features"][:100]
    (folder / "schools.geojson").write_text(json.dumps(layer))
    with Ground(images) as server:

        def build(*more, run=in_this_process):
            given = command(folder / "schools.geojson", server, folder / "data", *more)
            given[3:4] = ["dataset", "build"]
            asked = sum(server.asked.values())
            ended = run(given)
            return ended, sum(server.asked.values()) - asked

        process = functools.partial(subprocess.run, capture_output=True, text=True)
        yield build, folder, *build("--accept", "*:*:*", run=process)


@pytest.mark.slow
def test_real_schools_become_validated_tfrecords_in_one_command(built):
    _, folder, ended, asked = built
    assert ended.returncode == 0, ended.stderr
    counts = described(folder / "data" / "dataset")["counts"]
    examples = json.loads((folder / "data" / "examples" / "examples.json").read_text())
    assert counts["considered"] == sum(counts["by_status"].values()) == asked > 180
    by_split = {split: sum(classes.values()) for split, classes in counts["by_split"].items()}
    assert {split: facts["count"] for split, facts in examples["splits"].items()} == by_split
    assert sum(by_split.values()) == counts["by_status"]["ok"]
    records = {path.parent.name for path in (folder / "data" / "examples").glob("*/examples-*.tfrecord")}
    assert records == set(by_split) == {"train", "valid", "test"}
    assert (folder / "data" / "validation" / "anomalies.json").is_file()
    for page in ("dataset", "validation"):
        assert (folder / "data" / page / "report.html").read_text().startswith("<!doctype html>")
        assert str(folder / "data" / page / "report.html") in ended.stdout
    assert ended.stdout.startswith(f"build     {counts['considered']:,} tiles: ")
    assert "kept" not in ended.stdout


@pytest.mark.slow
def test_built_again_only_what_is_made_of_something_else_is_done_again(built):
    build, folder, _, _ = built
    page = folder / "data" / "dataset" / "report.html"
    before = page.stat().st_mtime_ns
    again, asked = build("--accept", "*:*:*")
    assert again.returncode == 0, again.stdout
    assert (asked, page.stat().st_mtime_ns) == (0, before)
    assert "kept      assemble, convert, validate: settings and inputs are unchanged" in again.stdout
    other, asked = build("--accept", "*:*:*", "--max-skew", "0.5")
    assert asked == 0
    assert "kept      assemble, convert: " in other.stdout
    layer = json.loads((folder / "schools.geojson").read_text())
    layer["features"] = layer["features"][:-10]
    (folder / "schools.geojson").write_text(json.dumps(layer))
    fewer, asked = build("--accept", "*:*:*")
    assert fewer.returncode == 0, fewer.stdout
    assert asked > 0
    assert "kept" not in fewer.stdout
