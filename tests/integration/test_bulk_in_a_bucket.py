"""Plan, model and scores in a bucket: workers read and write them by themselves, and a lost shard is scored again."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sat_xception.bulk.ledger import report_status
from sat_xception.bulk.plan import plan_tiles
from sat_xception.bulk.predict import predict_tiles, retry_failed
from sat_xception.bulk.scorer import ScoringModel, model_id
from sat_xception.bulk.settings import BulkPlanConfig, BulkPredictConfig, BulkRetryConfig, BulkStatusConfig
from sat_xception.bulk.worker import FAILED
from sat_xception.served_model.model_root import new_version
from sat_xception.storage import fetch_folder, read_stored_bytes, write_stored_bytes
from sat_xception.storage import store as stores
from sat_xception.storage.store import open_store
from tests.bulk_tiles import export_version, write_imagery
from tests.serving_fixtures import NAME
from tests.storage_backends import running_backend

# The client library leaves the body of a refused download unread, and its connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def root(request, monkeypatch, tmp_path) -> Iterator[Path]:
    """An empty place in a bucket of a kind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stores, "FIRST_PAUSE_S", 0.05)
    with running_backend(request.param, tmp_path, monkeypatch) as backend:
        yield backend.root


@pytest.mark.parametrize(
    ("root", "engine"),
    [
        ("gs", "tensorflow"),
        pytest.param("gs", "openvino", marks=pytest.mark.slow),
        pytest.param("s3", "tensorflow", marks=pytest.mark.slow),
        pytest.param("az", "tensorflow", marks=pytest.mark.slow),
    ],
    indirect=["root"],
)
def test_a_run_in_a_bucket_is_one_like_any_other(root, tmp_path, engine):
    pytest.importorskip(engine)
    bad = {3: b"no image"}
    (tmp_path / "tiles.txt").write_text("\n".join(write_imagery(tmp_path / "tiles.mbtiles", 90, bad)))
    settings = {"imagery": str(tmp_path / "tiles.mbtiles"), "probe": 0, "shard_tiles": 40}
    for plan in (root / "plan", tmp_path / "plan"):
        plan_tiles(BulkPlanConfig(tiles=tmp_path / "tiles.txt", out=plan, **settings))
    version = export_version(tmp_path / "models") / NAME / "1"
    with new_version(root / "models" / NAME / "1") as work:
        for path in version.rglob("*"):
            if path.is_file():
                (work / path.relative_to(version)).parent.mkdir(parents=True, exist_ok=True)
                (work / path.relative_to(version)).write_bytes(path.read_bytes())
    common = {"name": NAME, "engine": engine}
    here = {"plan": tmp_path / "plan", "model": tmp_path / "models", "out": tmp_path / "scores", **common}
    there = {"plan": f"{root}/plan", "model": f"{root}/models", "out": f"{root}/scores", **common}
    result, local = predict_tiles(BulkPredictConfig(**there)), predict_tiles(BulkPredictConfig(**here))
    assert (result.scores.planned, result.scores.scored, result.scores.failed) == (90, 89, 1)
    assert result.scores == local.scores
    names = ("scores-00000-of-00003.parquet", "scores-00001-of-00003.parquet", "scores-00002-of-00003.parquet")
    for name in names:
        assert read_stored_bytes(root / "scores" / name) == (tmp_path / "scores" / name).read_bytes()
    assert report_status(BulkStatusConfig(scores=f"{root}/scores")).closed
    with open_store(root) as store:
        store.delete(store.name_of(root / "scores" / names[1]))
    assert report_status(BulkStatusConfig(scores=f"{root}/scores")).waiting == 40
    # Why an earlier run stopped is of no concern to this one.
    write_stored_bytes(b'{"kind": "ServiceError", "error": "down"}', root / "scores" / FAILED)
    assert predict_tiles(BulkPredictConfig(**there)).tiles == 40
    (tmp_path / "tiles.mbtiles").unlink()
    write_imagery(tmp_path / "tiles.mbtiles", 90)
    assert retry_failed(BulkRetryConfig(**there)).scores.failed == 0
    # The next plan leaves out what is scored, and finds it as it is fetched.
    folder = fetch_folder(root / "scores", "scores.json")
    assert sum(pq.read_metadata(path).num_rows for path in folder.glob("scores-*")) == 90
    assert model_id(ScoringModel.read(version)) == result.scores.model
