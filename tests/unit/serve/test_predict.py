from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sat_xception.errors import ConfigError, DataError, ModelError, ServiceError
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.predict import find_images, predict
from sat_xception.serve.server import RunningServer
from sat_xception.serve.settings import PredictConfig
from sat_xception.settings.config import load_config
from tests.odd_answers import OddAnswers
from tests.serving_fixtures import (
    CLASSES,
    NAME,
    TOO_HIGH,
    describe_version,
    expected,
    pixels_of,
    serve_config,
    write_version,
)

pytest_plugins = ["tests.serving_fixtures"]
COUNT = 7


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def tiles(tmp_path) -> Path:
    folder = tmp_path / "tiles"
    for number, pixels in enumerate(pixels_of(COUNT)):
        save(folder / f"part-{number % 2}" / f"{number}.png", pixels)
    return folder


@pytest.fixture(params=["model", "rest", "grpc"])
def source(request, contract, tiny_root) -> dict[str, object]:
    return {
        "model": {"model": tiny_root},
        "rest": {"endpoint": contract.rest_url},
        "grpc": {"endpoint": f"grpc://{contract.grpc_address}"},
    }[request.param]


def run(tiles: Path, out: Path | None = None, **settings: object):
    return predict(PredictConfig(**{"inputs": (tiles,), "name": NAME, "out": out, "batch_size": 3, **settings}))


def rows_of(file: Path) -> list[dict]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def probabilities(rows: list[dict]) -> list[list[float]]:
    return [[float(value) for key, value in row.items() if key.startswith("probability_")] for row in rows]


def wanted_order() -> list[int]:
    """Files are sorted by path: part-0 holds the even ones."""
    return [0, 2, 4, 6, 1, 3, 5]


def test_every_source_gives_the_scores_that_keras_gives(tiles, tmp_path, source):
    result = run(tiles, tmp_path / "new" / "scores.csv", **source)
    rows = rows_of(tmp_path / "new" / "scores.csv")
    wanted = expected(pixels_of(COUNT))[wanted_order()]
    assert [Path(row["path"]).stem for row in rows] == [str(number) for number in wanted_order()]
    np.testing.assert_allclose(probabilities(rows), wanted, atol=1e-5)
    np.testing.assert_allclose([float(row["score"]) for row in rows], wanted.max(axis=1), atol=1e-5)
    assert [row["label"] for row in rows] == [CLASSES[i] for i in wanted.argmax(axis=1)]
    assert {(row["status"], row["reason"]) for row in rows} == {("ok", "")}
    assert (result.images, result.ok, result.failed) == (COUNT, COUNT, 0)
    assert "7 images | 7 ok  0 failed" in result.summary()
    assert "scores.csv" in result.summary()


def test_columns_are_named_after_classes_where_they_are_known(tiles, tmp_path, contract, tiny_root):
    run(tiles, tmp_path / "model.csv", model=tiny_root)
    run(tiles, tmp_path / "endpoint.csv", endpoint=contract.rest_url)
    named, numbered = rows_of(tmp_path / "model.csv"), rows_of(tmp_path / "endpoint.csv")
    assert list(named[0]) == [
        "path",
        "label",
        "score",
        "probability_not-school",
        "probability_school",
        "status",
        "reason",
    ]
    assert list(numbered[0]) == ["path", "label", "score", "probability_0", "probability_1", "status", "reason"]
    assert [(row["path"], row["label"], row["status"]) for row in named] == [
        (row["path"], row["label"], row["status"]) for row in numbered
    ]
    # A server merges batches, and another batch size rounds otherwise.
    np.testing.assert_allclose(probabilities(named), probabilities(numbered), atol=1e-6)


def test_a_bad_image_is_a_failed_row_and_its_neighbours_are_scored(tiles, tmp_path, source):
    bad = tiles / "part-0" / "3-bad.png"
    bad.write_bytes(b"this is no image")
    result = run(tiles, tmp_path / "scores.csv", **source)
    rows = {Path(row["path"]).stem: row for row in rows_of(tmp_path / "scores.csv")}
    assert rows.pop("3-bad") == {
        **dict.fromkeys(rows["0"], ""),
        "path": str(bad),
        "status": "failed",
        "reason": "not an image (starts with b'this is ')",
    }
    good = [rows[str(number)] for number in range(COUNT)]
    np.testing.assert_allclose(probabilities(good), expected(pixels_of(COUNT)), atol=1e-5)
    assert (result.images, result.ok, result.failed) == (COUNT + 1, COUNT, 1)


def test_an_image_that_only_the_model_refuses_is_isolated_too(tiles, tmp_path, source):
    save(tiles / "part-1" / "2.png", pixels_of(1, side=TOO_HIGH)[0])
    result = run(tiles, tmp_path / "scores.csv", **source)
    failed = [row for row in rows_of(tmp_path / "scores.csv") if row["status"] == "failed"]
    assert [Path(row["path"]).name for row in failed] == ["2.png"]
    assert "the image is too high" in failed[0]["reason"]
    assert (result.images, result.ok, result.failed) == (COUNT + 1, COUNT, 1)


def test_an_endpoint_that_refuses_the_first_image_still_gives_all_columns(tmp_path, contract):
    (tmp_path / "a.png").write_bytes(b"junk")
    save(tmp_path / "b.png", pixels_of(1)[0])
    run(tmp_path, tmp_path / "scores.csv", endpoint=contract.rest_url, batch_size=1)
    first, second = rows_of(tmp_path / "scores.csv")
    assert (first["status"], first["probability_1"]) == ("failed", "")
    assert second["status"] == "ok"


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"probabilities": [float("nan")] * 2, "score": float("nan")}, "not a number"),
        ({"probabilities": [float("-inf"), float("inf")]}, "infinite"),
        ({"probabilities": [1.25, -0.25]}, "below 0"),
        ({"score": 1.5}, "above 1"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_an_answer_that_is_no_probability_is_a_failed_row(tiles, tmp_path, contract, odd, reason, suffix):
    def change(predictions):
        predictions[0] |= odd

    with OddAnswers(contract.rest_url, change, first=0) as answers:
        result = run(tiles, tmp_path / f"scores{suffix}", endpoint=answers.url)
    assert (result.images, result.ok, result.failed) == (COUNT, COUNT - 3, 3)
    if suffix == ".json":
        text = (tmp_path / "scores.json").read_text()
        assert not {"NaN", "Infinity", "-Infinity"} & set(text.replace(",", " ").split())
        rows = json.loads(text)
    else:
        rows = rows_of(tmp_path / "scores.csv")
    told = f"the model answers with a probability that is {reason}, expected 0 to 1"
    assert [row["status"] for row in rows] == ["failed", "ok", "ok", "failed", "ok", "ok", "failed"]
    assert {(row["label"] or "", row["score"] or "", row["reason"]) for row in rows[::3]} == {("", "", told)}


@pytest.mark.parametrize(
    ("first", "odd", "told"),
    [
        (1, [0.2, 0.3, 0.5], r"answers with [23] classes for .*, and with [23] before: its model was changed"),
        (0, [1.0], r"probabilities of shape \[3, 1\] for 3 images"),
    ],
)
def test_an_endpoint_with_other_classes_meanwhile_ends_the_run(tiles, tmp_path, contract, first, odd, told):
    def change(predictions):
        for row in predictions:
            row["probabilities"] = odd

    with OddAnswers(contract.rest_url, change, first) as answers, pytest.raises(ServiceError, match=told):
        run(tiles, tmp_path / "scores.csv", endpoint=answers.url)
    assert not (tmp_path / "scores.csv").exists()


def test_when_nothing_can_be_scored_the_rows_say_why_and_it_is_an_error(tmp_path, source):
    (tmp_path / "a.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"none of 1 images could be scored; the first, .*a\.png: not an image"):
        run(tmp_path, tmp_path / "scores.csv", **source)
    assert [row["status"] for row in rows_of(tmp_path / "scores.csv")] == ["failed"]


@pytest.mark.parametrize("suffix", [".tif", ".tiff"])
def test_tiff_is_scored_as_the_same_pixels_in_png(tmp_path, tiny_root, suffix):
    save(tmp_path / f"tile{suffix}", pixels_of(1)[0])
    run(tmp_path, tmp_path / "scores.csv", model=tiny_root)
    np.testing.assert_allclose(probabilities(rows_of(tmp_path / "scores.csv")), expected(pixels_of(1)), atol=1e-5)


def test_rows_go_to_stdout_as_csv_and_the_counts_to_the_log(tiles, tiny_root, capsys, caplog):
    with caplog.at_level("INFO", "sat_xception"):
        result = run(tiles, model=tiny_root)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == COUNT
    assert result.summary() == ""
    assert "7 images | 7 ok  0 failed" in caplog.text


def test_json_holds_the_same_rows_with_numbers_and_nulls(tiles, tmp_path, tiny_root):
    (tiles / "bad.png").write_bytes(b"junk")
    run(tiles, tmp_path / "scores.csv", model=tiny_root)
    run(tiles, tmp_path / "scores.json", model=tiny_root)
    rows = json.loads((tmp_path / "scores.json").read_text())
    as_text = [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]
    assert as_text == rows_of(tmp_path / "scores.csv")
    assert isinstance(rows[-1]["score"], float)
    assert rows[0]["score"] is None


@pytest.mark.parametrize("batch_size", [1, COUNT, COUNT + 1])
def test_the_batch_size_changes_nothing(tiles, tmp_path, tiny_root, batch_size):
    run(tiles, tmp_path / "scores.csv", model=tiny_root, batch_size=batch_size)
    wanted = expected(pixels_of(COUNT))[wanted_order()]
    np.testing.assert_allclose(probabilities(rows_of(tmp_path / "scores.csv")), wanted, atol=1e-5)


def test_the_same_run_gives_the_same_bytes(tiles, tmp_path, tiny_root):
    for name in ("a.csv", "b.csv"):
        run(tiles, tmp_path / name, model=tiny_root)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_run_that_fails_leaves_no_half_file(tiles, tmp_path, tiny_root):
    root = tmp_path / "root"
    describe_version(write_version(root / NAME / "1"), classes=["a", "b", "c"])
    with pytest.raises(ModelError, match=r"shape \[3, 2\], its model\.json has 3 names"):
        run(tiles, tmp_path / "scores.csv", model=root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "tiles"]


def test_images_are_found_below_folders_each_once_and_hidden_ones_left_out(tmp_path):
    for name in ("b/2.PNG", "a/1.jpeg", "a/notes.txt", "a/._1.jpeg", "c.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([tmp_path / "c.tif", tmp_path, tmp_path / "a"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["c.tif", "a/1.jpeg", "b/2.PNG"]


def test_wrong_inputs_say_what_to_do(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"no file or folder at .*missing"):
        find_images([tmp_path / "missing"])
    with pytest.raises(DataError, match=r"its name ends in '\.txt', expected one of \.jpeg, \.jpg"):
        find_images([tmp_path / "notes.txt"])
    with pytest.raises(DataError, match="no images in"):
        find_images([tmp_path])


def test_wrong_out_model_and_endpoint_say_what_to_do(tiles, tmp_path, tiny_root, contract):
    with pytest.raises(ConfigError, match=r"scores\.xlsx must end in \.csv or \.json"):
        run(tiles, tmp_path / "scores.xlsx", model=tiny_root)
    with pytest.raises(ConfigError, match="no packaged model at"):
        run(tiles, model=tmp_path)
    with pytest.raises(ConfigError, match="can't write --out"):
        run(tiles, tiles / "part-0" / "0.png" / "scores.csv", model=tiny_root)
    with pytest.raises(ConfigError, match="must be http"):
        run(tiles, endpoint="localhost:8501")
    with pytest.raises(ServiceError, match="other"):
        run(tiles, endpoint=contract.rest_url, name="other")


def test_an_endpoint_without_the_classify_signature_is_refused(tiles, tmp_path):
    from sat_xception.serve.server import RunningServer
    from tests.serving_fixtures import serve_config, write_slow_version

    write_slow_version(tmp_path / NAME / "1")
    with RunningServer(serve_config(tmp_path)) as server, pytest.raises(ModelError, match="not 'classify'"):
        run(tiles, endpoint=server.rest_url)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model": "m", "token_file": "t"}, "--token-file go with --endpoint"),
        ({"model": "m", "host_header": "h", "ca_file": "c"}, "--ca-file, --host-header go with --endpoint"),
        ({"endpoint": "http://h:1", "ca_file": "c"}, "--ca-file goes with an --endpoint of https:// or grpcs://"),
    ],
)
def test_what_a_call_needs_goes_with_an_endpoint(settings, told):
    with pytest.raises(ConfigError) as caught:
        load_config(PredictConfig, None, {"inputs": ["x"], **settings})
    assert told in str(caught.value)


def test_an_endpoint_that_goes_away_in_the_middle_ends_the_run_and_leaves_no_file(tiles, tmp_path, tiny_root):
    server = RunningServer(serve_config(tiny_root))
    for number in range(60):
        shutil.copy(tiles / "part-0" / "0.png", tiles / f"more-{number:02d}.png")
    answered = []

    class Leaving(EndpointClient):
        def classify(self, images):
            answer = super().classify(images)
            answered.append(len(images))
            if len(answered) == 3:
                server.stop()
            return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sat_xception.serve.predict.EndpointClient", Leaving)
        patch.setattr("sat_xception.serve.client._RETRY_DELAYS_S", (0.01, 0.01))
        with pytest.raises(ServiceError, match=r"can't reach|didn't answer"):
            run(tiles, tmp_path / "scores.csv", endpoint=server.rest_url, timeout_s=2.0)
    assert sum(answered) < 67
    assert not (tmp_path / "scores.csv").exists()
