"""Places, slices and weights of a dataset in its examples, and how tiles are dealt out to files."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.manifest import ManifestRow, TileWriter
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.examples.convert import convert
from sat_xception.examples.index import shard_files
from sat_xception.examples.settings import ConvertConfig
from sat_xception.examples.shard_plan import plan_shards
from sat_xception.geo.tiles import grid_to_lonlat
from tests.conftest import draw_tile, encode
from tests.datasets import read_tiles

ZOOM, X, Y, SIDE = 16, 37_200, 23_600, 12
REVIEWED = (X + 3, Y + 5)
WEIGHT = 2.5


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    """A dataset of 144 labelled places with the slices `setting` and `settings`, one with a weight."""
    folder = tmp_path_factory.mktemp("places")
    features = []
    for x in range(X, X + SIDE):
        (folder / "imagery" / str(ZOOM) / str(x)).mkdir(parents=True)
        for y in range(Y, Y + SIDE):
            label = "school" if (x + y) % 4 == 0 else "farm"
            data = encode(draw_tile("school" if label == "school" else "not-school", x * SIDE + y, size=24), quality=90)
            (folder / "imagery" / str(ZOOM) / str(x) / f"{y}.jpg").write_bytes(data)
            # Some places don't say their setting.
            said = {} if y == Y else {"setting": "urban" if x % 2 else "rural", "settings": "ville, é"}
            features.append(_point(x, y, label=label, **said))
    _layer(folder / "labels.geojson", features)
    _layer(folder / "review.geojson", [_point(*REVIEWED, verdict="no")])
    settings = {
        "labels": folder / "labels.geojson",
        "imagery": str(folder / "imagery"),
        "zoom": ZOOM,
        "block_zoom": 15,
        "label_column": "label",
        "positive_label": "school",
        "slice_columns": ("setting", "settings"),
        "negatives_review": folder / "review.geojson",
        "negative_label": "farm",
        "negatives_review_weight": WEIGHT,
        "fractions": (0.5, 0.25, 0.25),
    }
    return assemble(AssembleConfig(out=folder / "dataset", **settings)).folder


def _point(x: int, y: int, **properties: str) -> dict[str, object]:
    lon, lat = grid_to_lonlat(np.array([x + 0.5]), np.array([y + 0.5]), ZOOM)
    geometry = {"type": "Point", "coordinates": (float(lon[0]), float(lat[0]))}
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def _layer(path: Path, features: list[dict[str, object]]) -> None:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


@pytest.fixture(scope="module")
def examples(places) -> Path:
    return convert(ConvertConfig(dataset=places, out=places.parent / "examples")).folder


def test_places_slices_and_weights_are_read_back_by_tensorflow(places, examples):
    contract = {
        "tile/id": tf.io.FixedLenFeature([], tf.string),
        **{f"tile/{name}": tf.io.FixedLenFeature([], tf.int64) for name in "xyz"},
        **{f"tile/{name}": tf.io.FixedLenFeature([], tf.float32) for name in ("lon", "lat", "weight")},
        **{f"slice/{name}": tf.io.FixedLenFeature([], tf.string) for name in ("setting", "settings")},
    }
    found = {}
    for split in ("train", "valid", "test"):
        records = tf.data.TFRecordDataset([str(file) for file in shard_files(examples, split)])
        for example in records.map(lambda record: tf.io.parse_single_example(record, contract)).as_numpy_iterator():
            found[example["tile/x"], example["tile/y"]] = example
    assert len(found) == SIDE**2
    for tile in read_tiles(places):
        example = found[tile["tile/x"], tile["tile/y"]]
        x, y = int(example["tile/x"]), int(example["tile/y"])
        lon, lat = grid_to_lonlat(np.array([x + 0.5]), np.array([y + 0.5]), ZOOM)
        assert example["tile/id"].decode() == tile["id"]
        assert example["tile/z"] == ZOOM
        assert (example["tile/lon"], example["tile/lat"]) == (np.float32(lon[0]), np.float32(lat[0]))
        assert example["tile/weight"] == (WEIGHT if (x, y) == REVIEWED else 1)
        setting, settings = ("", "") if y == Y else ("urban" if x % 2 else "rural", "ville, é")
        assert (example["slice/setting"].decode(), example["slice/settings"].decode()) == (setting, settings)


def test_the_description_names_the_slices(examples):
    assert json.loads((examples / "examples.json").read_text())["slices"] == ["setting", "settings"]


def test_examples_have_the_bytes_that_tensorflow_gives_them(examples):
    records = list(tf.data.TFRecordDataset([str(file) for file in shard_files(examples, "train")]).as_numpy_iterator())
    assert records
    for record in records:
        assert tf.train.Example.FromString(record).SerializeToString(deterministic=True) == record


# Which tiles go to which file


def planned(folder: Path, sizes: list[int], shard_bytes: int, split: str = "train") -> list[tuple[int, int, int]]:
    """Return number of tiles, first row and last row of each file, for tiles of some sizes in two shards."""
    with TileWriter(folder, shard_bytes=max(1, sum(sizes) // 2)) as writer:
        for number, size in enumerate(sizes):
            row = ManifestRow(str(number), "a", split, "ok", format="jpeg", width=1, height=1)
            writer.add(row, np.random.default_rng(number).bytes(size))
    files = sorted(folder.glob("tiles-*.parquet"))
    assert sum(pq.read_metadata(file).num_rows for file in files) == len(sizes)
    plan = plan_shards(files, ("test", "train"), ("a", "b"), shard_bytes)
    assert all(shard.split == split and shard.total == len(plan) for shard in plan)
    assert [shard.index for shard in plan] == list(range(len(plan)))
    return [(shard.count, shard.first, shard.last) for shard in plan]


@pytest.mark.parametrize(
    ("sizes", "files"),
    [
        ([], []),
        ([1], [(1, 0, 1)]),
        # Exactly full, one tile more, one byte less than full.
        ([100] * 10, [(10, 0, 10)]),
        ([100] * 11, [(10, 0, 10), (1, 10, 11)]),
        ([100] * 9 + [99, 1], [(11, 0, 11)]),
        # A tile that is larger than a file has one, with what came before it.
        ([5000], [(1, 0, 1)]),
        ([1, 5000, 5000, 1], [(2, 0, 2), (1, 2, 3), (1, 3, 4)]),
    ],
)
def test_a_file_is_full_when_its_images_have_so_many_bytes(tmp_path, sizes, files):
    assert planned(tmp_path, sizes, 1000) == files


def test_files_go_on_across_the_shards_and_batches_of_the_dataset(tmp_path):
    assert planned(tmp_path, [10] * 1000, 3000) == [(300, 0, 300), (300, 300, 600), (300, 600, 900), (100, 900, 1000)]
