"""Documents of bulk scoring: files of the first version are read, and runs that began with them go on."""

import io
import json

import pyarrow.parquet as pq
import pytest

from sat_xception.bulk.ledger import has_tiles, report_status
from sat_xception.bulk.plan import plan_tiles
from sat_xception.bulk.plan_document import BulkPlan, identity_digest, with_present_names
from sat_xception.bulk.plan_file import read_plan
from sat_xception.bulk.predict import predict_tiles
from sat_xception.bulk.run_document import BulkRun, BulkScores
from sat_xception.bulk.score_files import read_shard
from sat_xception.bulk.settings import BulkPlanConfig, BulkPredictConfig, BulkStatusConfig
from sat_xception.errors import DataError
from tests.serving_fixtures import NAME

FIRST_NAMES = {
    "tile_ids_digest": "digest of tile ids",
    "dataset_digest": "dataset digest",
    "left_out": "left out",
    "retried_with_file": "retried with file",
}


def as_first_version(content):
    """Return the content of a file under the keys of the first version, without what that one left out."""
    if not isinstance(content, dict):
        return content
    return {
        FIRST_NAMES.get(key, key): value if key == "config" else as_first_version(value)
        for key, value in content.items()
        if key != "schema_version" and (value or key not in ("retried_with_file", "dataset", "dataset_digest", "file"))
    }


def rewrite(path):
    path.write_text(json.dumps(as_first_version(json.loads(path.read_text()))))
    assert "tile_ids_digest" not in path.read_text() and "digest of tile ids" in path.read_text()


def test_a_run_of_the_first_version_goes_on(planned, packaged_root, tmp_path):
    plan = planned(100)
    settings = {"plan": plan, "model": packaged_root, "name": NAME, "engine": "tensorflow", "out": tmp_path / "scores"}
    folder = predict_tiles(BulkPredictConfig(**settings)).folder
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    documents = (BulkPlan.read(plan), BulkRun.read(folder), BulkScores.read(folder))
    for path in (plan / "plan.json", folder / "run.json", folder / "scores.json"):
        rewrite(path)
    assert (BulkPlan.read(plan), BulkRun.read(folder), BulkScores.read(folder)) == documents
    assert report_status(BulkStatusConfig(scores=folder)).closed and has_tiles(str(folder))
    rename_columns(folder / "scores-00000-of-00003.parquet")
    (folder / "scores-00001-of-00003.parquet").unlink()
    assert predict_tiles(BulkPredictConfig(**settings)).tiles == 40
    after = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    assert {name for name in before if before[name] != after[name]} == {"scores-00000-of-00003.parquet"}
    assert read_shard(folder / "scores-00000-of-00003.parquet").equals(
        pq.read_table(io.BytesIO(before["scores-00000-of-00003.parquet"]))
    )


def rename_columns(shard):
    table = pq.read_table(shard)
    names = [name.replace("probability_", "probability/") for name in table.column_names]
    pq.write_table(table.rename_columns(names).replace_schema_metadata(table.schema.metadata), shard)
    assert "probability/school" in pq.read_schema(shard).names


def test_tiles_of_a_run_of_the_first_version_are_left_out(planned, packaged_root, tmp_path):
    model = {"model": packaged_root, "name": NAME, "engine": "tensorflow"}
    predict_tiles(BulkPredictConfig(plan=planned(100), out=tmp_path / "runs" / "a", **model))
    rewrite(tmp_path / "runs" / "a" / "scores.json")
    imagery = {"imagery": str(tmp_path / "tiles.mbtiles"), "probe": 0}
    again = {"tiles": tmp_path / "tiles.txt", "scored_under": tmp_path / "runs", "out": tmp_path / "again"}
    found = plan_tiles(BulkPlanConfig(**again, **imagery, **model)).plan
    assert (found.planned, found.left_out) == (0, 100)


def test_digests_are_those_of_the_first_version():
    """Else a run would not go on from its shards, and a plan would lose the folder of its scores."""
    identity = {"digest of tile ids": "a", "planned": 1, "imagery": {"url": "u"}}
    assert with_present_names(identity) == {"tile_ids_digest": "a", "planned": 1, "imagery": {"url": "u"}}
    # SHA-256 of {"digest of tile ids": "a", "imagery": {"url": "u"}, "planned": 1}, and of that and a model in a list.
    assert (
        identity_digest(with_present_names(identity))
        == "bd273c745cd37a2a1706668dc39e04113f40f014e27110d7e8e621a64852fc20"
    )
    assert (
        identity_digest(with_present_names(identity), {"name": "m"})
        == "7cd768f9b4d4cf878be21807256007de399b05f73281d533059be45d8a12aacd"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "of a newer version of sat-xception"),
        ({"planned": -1}, r"plan\.json is damaged: planned: .*run `sat_xception bulk plan` again"),
        (
            {"imagery": {"url": "u", "attribution": "", "tile_size": 0, "max_pixels": 1}},
            "expected a dataset, or a zoom",
        ),
        ({"zoom": None}, "expected a dataset, or a zoom"),
    ],
)
def test_a_plan_that_cannot_be_used_is_refused_with_its_key(planned, change, message):
    plan = planned(10)
    content = json.loads((plan / "plan.json").read_text())
    (plan / "plan.json").write_text(json.dumps(content | change))
    with pytest.raises(DataError, match=message):
        read_plan(plan)
