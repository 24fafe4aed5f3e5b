"""A dataset is planned and scored like an area: with or without places, minus what is scored, never another one."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sat_xception.bulk.plan import plan_tiles
from sat_xception.bulk.predict import predict_tiles
from sat_xception.bulk.settings import BulkPlanConfig, BulkPredictConfig
from sat_xception.dataset.manifest import ManifestRow
from sat_xception.errors import ConfigError, DataError
from tests.bulk_tiles import images
from tests.datasets import write_dataset
from tests.serving_fixtures import NAME


def dataset_of(folder, count, located):
    """Write a dataset of several files and row groups."""
    rows = []
    for index in range(count):
        place = {"x": index, "y": 7, "z": 12, "lon": 0.0, "lat": 0.0} if located else {}
        name = f"12/{index}/7" if located else f"school/é {index}.png"
        row = ManifestRow(name, "school", "train", "ok", format="png", **place)
        rows.append((row, images(10)[index % 10]))
    return write_dataset(folder, rows, ["school", "not-school"], 300 * len(images(10)[0]), located)


@pytest.mark.parametrize("located", [True, False])
def test_every_tile_is_scored_once_and_the_rest_of_it_later(tmp_path, packaged_root, located):
    dataset = dataset_of(tmp_path / "dataset", 700, located)
    assert len(list(dataset.glob("tiles-*"))) == 3

    def run(name, /, **settings):
        plan_tiles(BulkPlanConfig(dataset=dataset, probe=3, shard_tiles=300, out=tmp_path / f"plan-{name}", **settings))
        config = {"model": packaged_root, "name": NAME, "engine": "tensorflow", "out": tmp_path / name}
        return predict_tiles(BulkPredictConfig(plan=tmp_path / f"plan-{name}", **config))

    result = run("first")
    assert (result.scores.planned, result.scores.scored) == (700, 700)
    table = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "first").glob("scores-*"))])
    names = [f"12/{index}/7" if located else f"school/é {index}.png" for index in range(700)]
    assert table["tile_id"].to_pylist() == names
    assert table["x"].to_pylist() == (list(range(700)) if located else [None] * 700)
    assert (table["geometry"].null_count, table["bbox"].null_count) == ((0, 0) if located else (700, 700))
    some = table["probability_school"].to_pylist()
    assert some[:10] == pytest.approx(some[690:], abs=1e-6)
    (tmp_path / "first" / "scores-00001-of-00003.parquet").unlink()
    model = {"model": packaged_root, "name": NAME, "engine": "tensorflow"}
    rest = run("rest", scored=(tmp_path / "first",), **model)
    table = pq.read_table(next((tmp_path / "rest").glob("scores-*")))
    assert (rest.scores.planned, table["tile_id"].to_pylist()) == (300, names[300:600])


def test_another_dataset_in_its_place_is_refused(tmp_path, packaged_root):
    dataset_of(tmp_path / "dataset", 20, True)
    plan_tiles(BulkPlanConfig(dataset=tmp_path / "dataset", probe=0, out=tmp_path / "plan"))
    described = json.loads((tmp_path / "dataset" / "dataset.json").read_text())
    (tmp_path / "dataset" / "dataset.json").write_text(json.dumps(described | {"digest": "0"}))
    config = {"plan": tmp_path / "plan", "model": packaged_root, "name": NAME, "out": tmp_path / "scores"}
    with pytest.raises(DataError, match="has changed since it was planned"):
        predict_tiles(BulkPredictConfig(**config))
    with pytest.raises(ConfigError, match="isn't asked"):
        predict_tiles(BulkPredictConfig(imagery="http://x/{z}/{x}/{y}", **config))
