"""What takes an address takes each kind: imagery, steps from bucket to bucket, model roots, checkpoints, baselines."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from sat_xception.errors import ConfigError
from sat_xception.imagery.open import open_imagery
from sat_xception.imagery.settings import ImageryConfig
from sat_xception.notify.last_run import LastRun, finish_run
from sat_xception.publish.publish import publish
from sat_xception.publish.settings import PublishConfig
from sat_xception.served_model.model_root import find_versions, has_version, here, new_version, remove_version
from sat_xception.steps import STEPS
from sat_xception.storage import fetch_file, fetch_folder, folder_digests, list_files, write_stored_bytes
from tests.conftest import draw_tile, encode
from tests.scores import write_scores
from tests.tile_reading import read_tiles

# Google's client leaves the body of a refused download unread, and its connection to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
TILE = (14, 8192, 8191)


def read(uri, *tiles):
    return read_tiles(open_imagery(str(uri), ImageryConfig()), tiles)


def test_a_folder_of_tiles_is_read(bucket_of_any_kind):
    root, proxy = bucket_of_any_kind.root / "tiles", bucket_of_any_kind.proxy
    tiles = {(14, 9_300, 5_900 + index): encode(draw_tile("school", index)) for index in range(3)}
    for (z, x, y), data in tiles.items():
        write_stored_bytes(data, root / str(z) / str(x) / f"{y}.jpg")
    assert read(root, *tiles, (14, 1, 1)) == [*tiles.values(), "no tile in the imagery"]
    proxy.fail(bucket_of_any_kind.reads(r"5901\.jpg"), 503)
    proxy.fail(bucket_of_any_kind.reads(r"5902\.jpg"), "reset")
    refused, gone = read(root, *list(tiles)[1:])
    assert refused == "HTTP 503"
    assert gone.startswith("connection failed: ")


def write_raster(path: Path) -> Path:
    """Write an image in the grid of the tiles, 4 tiles of zoom 14 around the origin."""
    side = 512
    pixels = np.random.default_rng(0).integers(0, 255, (3, side, side), np.uint8)
    edge = 2 * np.pi * 6_378_137 / 2**14
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "crs": "EPSG:3857"}
    transform = rasterio.Affine(2 * edge / side, 0, -edge, 0, -2 * edge / side, edge)
    with rasterio.open(path, "w", transform=transform, tiled=True, **profile) as file:
        file.write(pixels)
    return path


def test_a_geotiff_is_read_by_gdal_with_the_same_settings(bucket_of_any_kind, tmp_path):
    if bucket_of_any_kind.name == "gs":
        pytest.skip("GDAL knows no emulator of Google Cloud Storage")
    path = write_raster(tmp_path / "scene.tif")
    write_stored_bytes(path.read_bytes(), bucket_of_any_kind.root / "scene.tif")
    assert read(bucket_of_any_kind.root / "scene.tif", TILE) == read(path, TILE)


def test_steps_from_bucket_to_bucket_make_what_they_make_here(bucket_of_any_kind, class_folders, tmp_path):
    if bucket_of_any_kind.name == "gs":
        pytest.skip("see test_storage_settings.py")
    root = bucket_of_any_kind.root
    data = tmp_path / "data"
    for path in sorted(class_folders.rglob("*.jpg"))[::8]:
        target = data / path.relative_to(class_folders)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        write_stored_bytes(path.read_bytes(), root / "data" / path.relative_to(class_folders))
    STEPS["assemble"].run({"data": str(data), "out": tmp_path / "dataset"})
    STEPS["convert"].run({"dataset": tmp_path / "dataset", "out": tmp_path / "examples"})
    assembled = STEPS["assemble"].run({"data": f"{root}/data", "out": f"{root}/dataset"})
    assert f"{root}/dataset/manifest.parquet" in assembled.summary()
    converted = STEPS["convert"].run({"dataset": f"{root}/dataset", "out": f"{root}/examples"})
    assert converted.summary().endswith(f"wrote     {root}/examples")
    there, same = (
        {name: digest for name, digest in folder_digests(folder).items() if name.endswith(".tfrecord")}
        for folder in (fetch_folder(root / "examples", "examples.json"), tmp_path / "examples")
    )
    assert there == same and there


def test_a_model_root_is_written_and_listed_and_read_and_cleared(backend):
    model = backend.root / "serving" / "schools"
    for number in (1, 10, 2):
        with new_version(model / str(number)) as work:
            (work / "variables").mkdir()
            for name in ("variables/data", "saved_model.pb", "digests.json"):
                (work / name).write_text(f"{number}")
    assert list(find_versions(model)) == [1, 2, 10]
    assert has_version(model / "2") and not has_version(model / "3")
    assert (here(model / "10") / "variables" / "data").read_text() == "10"
    remove_version(model / "2")
    assert list(find_versions(model)) == [1, 10]


def test_how_a_run_ended_is_kept_beside_the_baseline(backend):
    finish_run(str(backend.root / "baseline"), "run-1", "deployed")
    found = LastRun.find(backend.root / "baseline")
    assert found is not None and (found.run, found.outcome) == ("run-1", "deployed")
    assert [path.name for path in list_files(backend.root / "baseline")] == ["last-run.json"]


def test_scores_are_published_to_a_bucket_and_a_review_there_is_kept(bucket_of_any_kind, tmp_path):
    root, tiles = bucket_of_any_kind.root, {(8192, 5456, 14): 0.9, (8200, 5456, 14): 0.1}
    web = {"url": "https://tiles.example/{z}/{x}/{y}.png"}
    scores = write_scores(tmp_path / "scores", tiles, imagery=web)
    settings = {"scores": scores, "out": root / "published"}
    first = publish(PublishConfig(**settings))
    assert first.summary().endswith("publish to a folder on this machine, for the review")
    assert fetch_file(f"{root}/published/review/index.html").is_file()
    feature = {"type": "Feature", "properties": {"tile_id": "14/8192/5456", "site": "14/8192/5456", "verdict": "yes"}}
    review = json.dumps({"type": "FeatureCollection", "features": [feature | {"geometry": None}]}).encode()
    write_stored_bytes(review, root / "published" / "review.geojson")
    assert publish(PublishConfig(**settings)).publication.review.kept_decisions == 1
    assert fetch_file(f"{root}/published/review.geojson").read_bytes() == review
    other = write_scores(tmp_path / "other", tiles, imagery=web | {"bands": [3, 2, 1]})
    with pytest.raises(ConfigError, match=r"review\.geojson holds a review of .*they differ in: bands"):
        publish(PublishConfig(**(settings | {"scores": other})))
