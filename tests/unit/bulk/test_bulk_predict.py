"""Scoring a plan: every tile has a row, whatever happens; what is finished is kept; engines agree with the package."""

import asyncio
import io
import json
import os
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from PIL import Image

from sat_xception.bulk.engines import engine_id
from sat_xception.bulk.ledger import report_status
from sat_xception.bulk.plan import plan_tiles
from sat_xception.bulk.plan_file import read_plan
from sat_xception.bulk.predict import predict_tiles, retry_failed
from sat_xception.bulk.run_document import BulkRun
from sat_xception.bulk.settings import BulkPlanConfig, BulkPredictConfig, BulkRetryConfig, BulkStatusConfig
from sat_xception.errors import ConfigError, DataError, ModelError, ServiceError
from sat_xception.imagery.web import WebSource
from sat_xception.publish.publish import publish
from sat_xception.publish.settings import PublishConfig
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.protocol import Code, RequestError
from sat_xception.serve.server import RunningServer
from tests.bulk_tiles import images, package_version, write_imagery
from tests.datasets import write_index
from tests.odd_answers import OddAnswers
from tests.serving_fixtures import NAME, TOO_HIGH, encoded, expected, pixels_of, reverse_golden_tiles, serve_config
from tests.tile_server import TileServer

pytestmark = pytest.mark.usefixtures("models_are_loaded_once")

BROKEN = {3: b"\xff\xd8 no image", 41: images(1)[0][:200], 79: b""}


@pytest.fixture
def config(packaged_root, tmp_path):
    def make(plan, name="scores", kind=BulkPredictConfig, **settings):
        settings = {"engine": "tensorflow", "batch_size": 16, **settings}
        if settings.get("endpoint"):
            del settings["engine"]
        return kind(**{"plan": plan, "model": packaged_root, "name": NAME, "out": tmp_path / name, **settings})

    return make


@pytest.fixture(scope="module")
def server(packaged_root):
    with RunningServer(serve_config(packaged_root)) as running:
        yield running


def rows_of(folder):
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("scores-*.parquet"))])


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("scores*"))}


@pytest.mark.parametrize("count", [1, 16, 17, 100])
def test_planned_is_scored_and_failed_for_any_number_of_tiles(planned, config, count):
    result = predict_tiles(config(planned(count)))
    assert (result.scores.planned, result.scores.scored, result.scores.failed) == (count, count, 0)
    rows = rows_of(result.folder)
    assert rows.num_rows == count
    pixels = pixels_of(min(count, 50), seed=3)
    wanted = expected(pixels)[np.arange(count) % len(pixels)]
    found = np.stack([rows[f"probability_{name}"].to_numpy() for name in ("not-school", "school")], axis=1)
    assert np.abs(found - wanted).max() < 1e-5
    names = np.array(["not-school", "school"])
    assert rows["label"].to_pylist() == names[wanted.argmax(axis=1)].tolist()


def test_beam_scores_the_shards_to_the_same_bytes(planned, config):
    plan = planned(50, {3: b""})
    here = predict_tiles(config(plan, "here")).folder
    there = predict_tiles(config(plan, "there", runner="FnApiRunner")).folder
    assert contents(there) == contents(here)


def test_broken_tiles_fail_with_a_reason_and_their_neighbours_are_scored(planned, config, tmp_path):
    whole = predict_tiles(config(planned(100), "whole"))
    (tmp_path / "tiles.mbtiles").unlink()
    write_imagery(tmp_path / "tiles.mbtiles", 100, {**BROKEN, 50: None})
    result = predict_tiles(config(tmp_path / "plan", "some"))
    assert (result.scores.scored, result.scores.failed) == (96, 4)
    rows, sound = rows_of(result.folder), rows_of(whole.folder)
    failed = {index for index, status in enumerate(rows["status"].to_pylist()) if status == "failed"}
    assert failed == {3, 41, 50, 79}
    reasons = [reason for reason in rows["reason"].to_pylist() if reason]
    assert reasons[0].startswith("not an image (starts with") and reasons[2:] == [
        "no tile in the imagery",
        "zero bytes",
    ]
    kept = pa.array([index not in failed for index in range(100)])
    for name in ("probability_school", "label", "tile_id"):
        if name == "probability_school":
            both = [part.filter(kept)[name].to_numpy() for part in (rows, sound)]
            assert np.abs(both[0] - both[1]).max() < 1e-6
        else:
            assert rows.filter(kept)[name].equals(sound.filter(kept)[name])


def test_scores_are_geoparquet_of_the_tiles_outlines(planned, config):
    result = predict_tiles(config(planned(100)))
    path = sorted(result.folder.glob("scores-*.parquet"))[1]
    assert path.name == "scores-00001-of-00003.parquet"
    table = pq.read_table(path)
    assert [str(table.schema.field(name).type) for name in ("tile_id", "x", "y", "z", "probability_school")] == [
        *("string", "int32", "int32", "int32", "float"),
    ]
    assert set(table["model_version"].to_pylist()) == {"1"}
    geo = json.loads(table.schema.metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    import mercantile

    for row in table.slice(0, 3).to_pylist():
        outline = shapely.from_wkb(row["geometry"])
        assert outline.bounds == pytest.approx(tuple(mercantile.bounds(row["x"], row["y"], row["z"])))
        assert tuple(row["bbox"].values()) == pytest.approx(outline.bounds)
        assert row["tile_id"] == f"{row['z']}/{row['x']}/{row['y']}"
    assert geo["columns"]["geometry"]["bbox"] == pytest.approx(
        shapely.total_bounds(shapely.from_wkb(table["geometry"].to_pylist())).tolist()
    )


def test_a_shard_that_is_lost_is_scored_again_to_the_same_bytes_and_others_are_kept(planned, config):
    plan = planned(100, BROKEN)
    folder = predict_tiles(config(plan)).folder
    before, old = contents(folder), os.stat(folder / "scores-00000-of-00003.parquet")
    (folder / "scores-00002-of-00003.parquet").unlink()
    (folder / "scores-00001-of-00003.parquet").write_bytes(b"half a fi")
    result = predict_tiles(config(plan))
    assert result.tiles == 60
    assert contents(folder) == before
    assert os.stat(folder / "scores-00000-of-00003.parquet").st_mtime_ns == old.st_mtime_ns


def test_failed_tiles_are_scored_again_and_nothing_else_is(planned, config, tmp_path):
    plan = planned(100, BROKEN)
    folder = predict_tiles(config(plan)).folder
    old = os.stat(folder / "scores-00002-of-00003.parquet").st_mtime_ns
    (tmp_path / "tiles.mbtiles").unlink()
    write_imagery(tmp_path / "tiles.mbtiles", 100, {41: b""})
    result = retry_failed(config(plan, kind=BulkRetryConfig))
    assert (result.scores.scored, result.scores.failed, result.tiles) == (99, 1, 3)
    assert rows_of(folder)["reason"].to_pylist()[41] == "zero bytes"
    assert os.stat(folder / "scores-00002-of-00003.parquet").st_mtime_ns == old
    whole = predict_tiles(config(plan, "whole")).folder
    assert rows_of(folder)["tile_id"].equals(rows_of(whole)["tile_id"])


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ([float("nan"), float("nan")], "not a number"),
        ([float("-inf"), float("inf")], "infinite"),
        ([1.5, -0.5], "below 0"),
        ([0.5, 1.5], "above 1"),
    ],
)
def test_an_answer_that_is_no_probability_is_a_failed_tile_that_is_scored_again(
    planned, config, server, tmp_path, odd, reason
):
    def change(predictions):
        predictions[0] = odd

    plan = planned(60, BROKEN)
    with OddAnswers(server.rest_url, change) as answers:
        result = predict_tiles(config(plan, endpoint=answers.url))
    rows = rows_of(result.folder)
    told = f"the model answers with a probability that is {reason}, expected 0 to 1"
    # 40 tiles and 20 in batches of 16: the first of each batch.
    assert [place for place, why in enumerate(rows["reason"].to_pylist()) if why == told] == [0, 16, 32, 40, 56]
    assert (result.scores.scored, result.scores.failed) == (53, 7)
    assert result.scores.reasons[told] == 5
    assert rows["label"].null_count == rows["probability_school"].null_count == 7
    again = retry_failed(config(plan, kind=BulkRetryConfig, endpoint=server.rest_url))
    assert (again.scores.scored, again.scores.failed, again.tiles) == (58, 2, 7)
    publish(PublishConfig(scores=result.folder, out=tmp_path / "published"))


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        (lambda row: [row[0], row[1] / 2, row[1] / 2], "3 probabilities, and the model has 2 classes"),
        (lambda row: row[:1], r"probabilities of shape \[16, 1\] for 16 images"),
    ],
)
def test_more_or_fewer_probabilities_than_classes_end_the_run(planned, config, server, odd, told):
    def change(predictions):
        predictions[:] = [odd(row) for row in predictions]

    with OddAnswers(server.rest_url, change) as answers, pytest.raises((ModelError, ServiceError), match=told):
        predict_tiles(config(planned(30), endpoint=answers.url, in_flight=1))


def test_tiles_that_an_earlier_version_stored_as_scored_without_a_probability_are_scored_again(
    planned, config, tmp_path
):
    plan = planned(50)
    folder = predict_tiles(config(plan)).folder
    path = folder / "scores-00000-of-00002.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("probability_school")
    values = table["probability_school"].to_numpy().copy()
    values[[3, 5]] = np.nan, 7.0
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(values, pa.float32())), path)
    with pytest.raises(
        DataError, match=r"probability_school nan, expected 0 to 1; run .sat_xception bulk retry-failed"
    ):
        publish(PublishConfig(scores=folder, out=tmp_path / "published"))
    result = retry_failed(config(plan, kind=BulkRetryConfig))
    assert (result.scores.scored, result.scores.failed, result.tiles) == (50, 0, 2)
    publish(PublishConfig(scores=folder, out=tmp_path / "published"))


def planned_again(tmp_path, out, **settings):
    """Plan the same tiles with other settings."""
    settings = {"imagery": str(tmp_path / "tiles.mbtiles"), "probe": 0, "shard_tiles": 40, **settings}
    plan_tiles(BulkPlanConfig(tiles=tmp_path / "tiles.txt", out=tmp_path / out, **settings))
    return tmp_path / out


CHANGED = (
    ({"imagery": "other.mbtiles"}, r"imagery url was .*tiles\.mbtiles, is .*other\.mbtiles"),
    ({"imagery_bands": (3, 2, 1)}, r"imagery bands was \[\], is \[3, 2, 1\]"),
    ({"imagery_scale": (0, 3000)}, r"imagery scale was \[\], is \[0\.0, 3000\.0\]"),
    ({"imagery_tms": True}, "imagery tms was False, is True"),
    ({"tile_size": 256}, "imagery tile_size was 0, is 256"),
    ({"max_pixels": 10**6}, "imagery max_pixels was .*, is 1000000"),
    ({"shard_tiles": 30}, "shard_tiles was 40, is 30"),
    ({"batch_size": 8}, "batch_size was 16, is 8"),
)


def test_a_run_that_differs_in_anything_its_scores_are_made_of_is_refused(planned, config, tmp_path):
    folder = predict_tiles(config(planned(100))).folder
    (folder / "scores-00001-of-00003.parquet").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_imagery(tmp_path / "other.mbtiles", 100, {5: images(9)[8]})
    for number, (changed, told) in enumerate(CHANGED):
        changed = {name: str(tmp_path / value) if name == "imagery" else value for name, value in changed.items()}
        of_predict = {name: changed.pop(name) for name in ("batch_size",) if name in changed}
        plan = planned_again(tmp_path, f"changed-{number}", **changed)
        with pytest.raises(
            ConfigError, match=rf"holds scores of another run: .*{told}.*Give the settings that it was started"
        ):
            predict_tiles(config(plan, **of_predict))
        with pytest.raises(ConfigError, match=told):
            retry_failed(config(plan, kind=BulkRetryConfig, **of_predict))
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_has_no_say_in_the_scores_may_differ(planned, config, tmp_path):
    folder = predict_tiles(config(planned(100))).folder
    before = contents(folder)
    (folder / "scores-00001-of-00003.parquet").unlink()
    plan = planned_again(tmp_path, "again", imagery_contact="https://example.org", imagery_attribution="another")
    assert predict_tiles(config(plan, workers=3, in_flight=9)).tiles == 40
    assert contents(folder) == before


def test_imagery_that_was_replaced_under_its_name_is_another(planned, config, tmp_path):
    plan = planned(100)
    folder = predict_tiles(config(plan)).folder
    (folder / "scores-00001-of-00003.parquet").unlink()
    (tmp_path / "tiles.mbtiles").unlink()
    write_imagery(tmp_path / "tiles.mbtiles", 100, {5: images(9)[8]})
    with pytest.raises(ConfigError, match=r"another run: imagery file was \d+ bytes of .*, is \d+ bytes of "):
        predict_tiles(config(plan))


def test_failed_tiles_may_be_scored_from_a_mended_file_which_is_recorded(planned, config, tmp_path):
    plan = planned(100, BROKEN)
    folder = predict_tiles(config(plan)).folder
    (tmp_path / "tiles.mbtiles").unlink()
    write_imagery(tmp_path / "tiles.mbtiles", 100)
    assert retry_failed(config(plan, kind=BulkRetryConfig)).scores.failed == 0
    imagery = json.loads((folder / "scores.json").read_text())["imagery"]
    assert imagery["file"] != imagery["retried_with_file"][0]
    assert json.loads((folder / "run.json").read_text())["imagery"] == imagery
    assert predict_tiles(config(plan)).tiles == 0


def test_the_scores_name_the_imagery_that_was_looked_at(planned, config, tmp_path):
    folder = predict_tiles(config(planned(30))).folder
    for name in ("run.json", "scores.json"):
        assert json.loads((folder / name).read_text())["imagery"]["url"] == str(tmp_path / "tiles.mbtiles")


def test_imagery_that_the_plan_does_not_name_is_refused(planned, config, tmp_path):
    plan = planned(30)
    write_imagery(tmp_path / "other.mbtiles", 30)
    with pytest.raises(ConfigError, match=r"--imagery .*other\.mbtiles isn't the imagery of the plan"):
        predict_tiles(config(plan, imagery=str(tmp_path / "other.mbtiles")))
    assert predict_tiles(config(plan, imagery=str(tmp_path / "tiles.mbtiles"))).tiles == 30


def test_a_shard_of_another_run_is_not_taken_for_a_finished_one(planned, config, tmp_path):
    folder = predict_tiles(config(planned(100))).folder
    before = contents(folder)
    write_imagery(tmp_path / "other.mbtiles", 100, {5: images(9)[8], 50: images(9)[8]})
    plan = planned_again(tmp_path, "new", imagery=str(tmp_path / "other.mbtiles"))
    other = predict_tiles(config(plan, "other")).folder
    name = "scores-00001-of-00003.parquet"
    (folder / name).write_bytes((other / name).read_bytes())
    assert report_status(BulkStatusConfig(scores=folder)).finished == 2
    assert predict_tiles(config(tmp_path / "plan")).tiles == 40
    assert contents(folder) == before


def test_the_folder_of_scores_below_others_is_that_of_plan_and_model(planned, packaged_root, tmp_path):
    planned(30)
    given = {"model": packaged_root, "name": NAME, "engine": "tensorflow"}
    names = {
        read_plan(planned_again(tmp_path, f"plan-{number}", **given, **settings)).scores_under("gs://b/scores")
        for number, settings in enumerate(
            [{}, {}, {"imagery_bands": (2, 1, 3)}, {"shard_tiles": 7}, {"imagery": "o/{z}/{x}/{y}"}]
        )
    }
    assert len(names) == 4 and all(name.startswith("gs://b/scores/1-") for name in names)


def test_the_examples_of_a_calibration_are_part_of_an_engine(tmp_path):
    for name, digest in (("one", "a"), ("other", "b")):
        (tmp_path / name).mkdir()
        write_index(tmp_path / name, {"train": ([], [{"file": "x", "count": 0, "sha256": digest}])}, ["a", "b"], [])
    one, other = (engine_id("openvino", "int8", tmp_path / name) for name in ("one", "other"))
    assert one != other and one.made_by.startswith("openvino ")
    # It has no say in exact numbers.
    assert engine_id("openvino", "fp32", tmp_path / "one") == engine_id("openvino", "fp32", None)


def test_what_another_model_scored_is_not_left_out(planned, config, other_root, tmp_path, caplog):
    folder = predict_tiles(config(planned(30))).folder
    settings = {"model": other_root, "name": NAME, "scored": (folder,), "engine": "tensorflow"}
    plan = planned_again(tmp_path, "again", **settings)
    assert json.loads((plan / "plan.json").read_text())["planned"] == 30
    assert "by another model, so none of its tiles is left out" in caplog.text


def test_what_was_scored_is_left_out_of_the_next_plan(planned, config, packaged_root, tmp_path):
    folder = predict_tiles(config(planned(100, BROKEN))).folder
    settings = {"imagery": "i/{z}/{x}/{y}", "probe": 0, "model": packaged_root, "name": NAME, "scored": (folder,)}
    plan_tiles(BulkPlanConfig(tiles=tmp_path / "tiles.txt", out=tmp_path / "again", engine="tensorflow", **settings))
    facts = json.loads((tmp_path / "again" / "plan.json").read_text())
    assert (facts["planned"], facts["left_out"]) == (3, 97)


def test_another_plan_model_or_engine_is_refused_and_the_scores_stay(planned, config, tmp_path):
    plan = planned(30)
    folder = predict_tiles(config(plan)).folder
    before = contents(folder)
    package_version(tmp_path / "other", 2, seed=1)
    with pytest.raises(ConfigError, match=r"of another run: --model digest was .*--model version was 1, is 2"):
        predict_tiles(config(plan, model=tmp_path / "other"))
    (tmp_path / "tiles.txt").write_text("16/0/0\n")
    settings = {"imagery": "i/{z}/{x}/{y}", "probe": 0}
    plan_tiles(BulkPlanConfig(tiles=tmp_path / "tiles.txt", out=tmp_path / "short", **settings))
    with pytest.raises(ConfigError, match=r"of another run: --plan \(other tiles\) was"):
        predict_tiles(config(tmp_path / "short"))
    assert contents(folder) == before


def test_a_folder_of_somebody_is_left_alone(planned, config, tmp_path):
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "thesis.txt").write_text("all of it")
    with pytest.raises(ConfigError, match=r"something else \('thesis.txt'\)"):
        predict_tiles(config(planned(5)))


def test_a_model_that_was_changed_since_it_was_packaged_scores_nothing(planned, config, model_copy):
    golden = model_copy / NAME / "1" / "golden.json"
    golden.write_text(golden.read_text().replace("school", "pool"))
    with pytest.raises(DataError, match=r"golden.json changed since it was packaged"):
        predict_tiles(config(planned(5), model=model_copy))


def test_an_engine_that_answers_otherwise_than_the_package_scores_nothing(planned, config, model_copy):
    from sat_xception.storage import folder_digests, write_json

    version = model_copy / NAME / "1"
    (tile_id,) = reverse_golden_tiles(version, 2)
    (version / "digests.json").unlink()
    write_json(version / "digests.json", folder_digests(version))
    with pytest.raises(ModelError, match=f"the engine tensorflow answers golden tile {tile_id} with"):
        predict_tiles(config(planned(5), model=model_copy))


def test_tiles_that_all_fail_are_an_error_and_still_accounted_for(planned, config, tmp_path):
    plan = planned(5, dict.fromkeys(range(5), b"{}"))
    with pytest.raises(DataError, match="none of 5 tiles could be scored; most common: text instead of an image"):
        predict_tiles(config(plan))
    assert report_status(BulkStatusConfig(scores=tmp_path / "scores")).failed == 5


def test_lost_rows_and_foreign_ones_are_found(planned, config):
    from sat_xception.bulk.ledger import close_ledger

    result = predict_tiles(config(planned(100)))
    run = BulkRun.read(result.folder)
    path = result.folder / "scores-00001-of-00003.parquet"
    table = pq.read_table(path)
    for change, told in (
        (table.slice(1), "99 tiles, 100 were planned"),
        (pa.concat_tables([table.slice(1, 1), table.slice(1)]), "other tiles than were planned, or some twice"),
    ):
        pq.write_table(change, path)
        with pytest.raises(DataError, match=told):
            close_ledger(result.folder, run)


def test_the_status_of_a_run_that_was_stopped_closes(planned, config, tmp_path):
    folder = predict_tiles(config(planned(100, BROKEN))).folder
    (folder / "scores-00001-of-00003.parquet").unlink()
    (folder / "scores.json").unlink()
    status = report_status(BulkStatusConfig(scores=folder))
    assert (status.planned, status.scored, status.failed, status.waiting, status.closed) == (100, 59, 1, 40, False)
    assert "2 of 3 shards | not closed" in status.summary()
    with pytest.raises(ConfigError, match=r"holds no run\.json"):
        report_status(BulkStatusConfig(scores=tmp_path))


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_gives_the_scores_that_the_model_here_gives(planned, config, server, scheme):
    plan = planned(100, BROKEN)
    here = rows_of(predict_tiles(config(plan, "here")).folder)
    address = f"grpc://{server.grpc_address}" if scheme == "grpc" else server.rest_url
    result = predict_tiles(config(plan, "there", endpoint=address))
    there = rows_of(result.folder)
    assert result.scores.engine.name == "endpoint"
    for name in ("tile_id", "label", "status", "reason", "model_version"):
        assert here[name].equals(there[name])
    both = [np.nan_to_num(rows["probability_school"].to_numpy()) for rows in (here, there)]
    assert np.abs(both[0] - both[1]).max() < 1e-6


def test_a_tile_that_the_server_refuses_fails_alone(planned, config, server):
    high = encoded(pixels_of(1, side=TOO_HIGH)[0])
    result = predict_tiles(config(planned(30, {7: high}), endpoint=f"grpc://{server.grpc_address}"))
    rows = rows_of(result.folder)
    assert [index for index, status in enumerate(rows["status"].to_pylist()) if status == "failed"] == [7]
    assert "the image is too high" in rows["reason"].to_pylist()[7]


def test_a_format_that_the_server_cannot_read_is_sent_as_a_png(planned, config, server):
    content = io.BytesIO()
    Image.fromarray(pixels_of(1, seed=5)[0]).save(content, "BMP")
    result = predict_tiles(config(planned(4, {2: content.getvalue()}), endpoint=server.rest_url))
    found = rows_of(result.folder)["probability_school"].to_pylist()[2]
    assert found == pytest.approx(float(expected(pixels_of(1, seed=5))[0, 1]), abs=1e-5)


def test_the_token_that_the_environment_names_goes_to_the_endpoint(config, planned, tmp_path, monkeypatch):
    monkeypatch.setenv("SAT_XCEPTION_TOKEN_FILE", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="can't read --token-file"):
        predict_tiles(config(planned(2), endpoint="http://127.0.0.1:1"))


def test_a_server_with_another_model_is_refused_before_a_tile_is_sent(planned, config, server, other_root, tmp_path):
    with pytest.raises(ModelError, match="answers golden tile"):
        predict_tiles(config(planned(5), model=other_root, endpoint=server.rest_url))
    package_version(tmp_path / "newer", 7)
    with pytest.raises(RequestError) as caught:
        predict_tiles(config(tmp_path / "plan", model=tmp_path / "newer", endpoint=f"grpc://{server.grpc_address}"))
    assert caught.value.code is Code.NOT_FOUND


def test_a_server_that_goes_away_stops_the_run_keeps_what_is_finished_and_the_run_goes_on(
    planned, config, packaged_root, monkeypatch, tmp_path
):
    monkeypatch.setattr("sat_xception.bulk.endpoint._RETRY_DELAYS_S", (0.01, 0.01))
    monkeypatch.setattr("sat_xception.serve.client._RETRY_DELAYS_S", (0.01,))
    plan = planned(100)
    asked = threading.Semaphore(6)
    whole = EndpointClient.predict
    running = RunningServer(serve_config(packaged_root))
    with running:

        def predict(client, images):
            if not asked.acquire(blocking=False):
                running.stop()
            return whole(client, images)

        monkeypatch.setattr(EndpointClient, "predict", predict)
        address = running.rest_url
        with pytest.raises(ServiceError, match=r"(?s)Asked 3 times. Finished shards are kept"):
            predict_tiles(config(plan, endpoint=address, in_flight=1))
    monkeypatch.setattr(EndpointClient, "predict", whole)
    status = report_status(BulkStatusConfig(scores=tmp_path / "scores"))
    assert 0 < status.finished < 3
    with RunningServer(serve_config(packaged_root)) as again:
        result = predict_tiles(config(plan, endpoint=again.rest_url))
    assert (result.scores.scored, result.tiles) == (100, status.waiting)


def test_tiles_come_from_a_server_that_fails_at_times_and_are_never_too_many_at_once(
    config, packaged_root, tmp_path, monkeypatch
):
    (tmp_path / "t.txt").write_text("\n".join(f"10/{x}/{y}" for x in range(8) for y in range(8)))
    script = {(1, 1): [(503, {}), "tile"], (2, 5): ["half", "tile"], (3, 3): ["html as jpeg"], (7, 7): [(404, {})]}
    with TileServer(images(9), script, delay_s=0.01) as tiles:
        settings = {"imagery": tiles.template, "workers": 5, "probe": 8, "engine": "tensorflow"}
        plan = plan_tiles(BulkPlanConfig(tiles=tmp_path / "t.txt", out=tmp_path / "plan", **settings))
        assert "measured on " in plan.summary()
        tiles.most_in_flight = 0
        result = predict_tiles(config(tmp_path / "plan", workers=5, batch_size=4))
    assert (result.scores.scored, result.scores.failed) == (62, 2)
    assert tiles.most_in_flight <= 5
    reasons = dict(
        zip(rows_of(result.folder)["tile_id"].to_pylist(), rows_of(result.folder)["reason"].to_pylist(), strict=True)
    )
    assert reasons["10/3/3"] == "text instead of an image" and "404" in reasons["10/7/7"]


def test_the_imagery_is_closed_to_its_end_when_all_tiles_are_read(tmp_path, monkeypatch):
    closed = []
    whole = WebSource.close

    async def close(source):
        await asyncio.sleep(0.2)
        await whole(source)
        closed.append(source)

    (tmp_path / "t.txt").write_text("\n".join(f"10/{x}/1" for x in range(3)))
    with TileServer(images(3)) as tiles:
        settings = {"imagery": tiles.template, "engine": "tensorflow", "probe": 3}
        monkeypatch.setattr(WebSource, "close", close)
        plan = plan_tiles(BulkPlanConfig(tiles=tmp_path / "t.txt", out=tmp_path / "plan", **settings))
    assert "measured on " in plan.summary() and len(closed) == 1


def test_imagery_that_is_down_stops_the_run(config, tmp_path, monkeypatch):
    from sat_xception.imagery.fetch import FetchConfig

    (tmp_path / "t.txt").write_text("\n".join(f"10/{x}/1" for x in range(40)))
    settings = {"imagery": "http://127.0.0.1:9/{z}/{x}/{y}", "probe": 0}
    plan_tiles(BulkPlanConfig(tiles=tmp_path / "t.txt", out=tmp_path / "plan", **settings))
    fast = lambda **given: FetchConfig(**given, backoff_s=0.001, give_up_after=8)  # noqa: E731
    monkeypatch.setattr("sat_xception.bulk.tiles.FetchConfig", fast)
    with pytest.raises(ServiceError, match="the imagery can't be fetched: 8 tiles in a row failed"):
        predict_tiles(config(tmp_path / "plan"))
    assert not list((tmp_path / "scores").glob("scores-*"))


def test_two_runs_do_not_write_one_folder(planned, config, tmp_path):
    import fcntl

    plan = planned(5)
    (tmp_path / "scores").mkdir()
    with (tmp_path / "scores" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another run is writing"):
            predict_tiles(config(plan))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"endpoint": "http://h:1", "precision": "int8", "calibrate": "e"}, "the --endpoint has its own"),
        ({"precision": "int8", "calibrate": "e"}, "is of --engine openvino"),
        ({"engine": "auto", "precision": "int8"}, "needs --calibrate"),
        ({"beam_options": ("--x=1",)}, "no --runner"),
        ({"runner": "FlinkRunner", "processes": 2}, "--processes is for this machine"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config, tmp_path, settings, told):
    with pytest.raises(ValueError, match=told):
        config(tmp_path, **settings)
