"""Plans of drawn tiles, and a packaged model that scores them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sat_xception.bulk.plan import plan_tiles
from sat_xception.bulk.settings import BulkPlanConfig


@pytest.fixture(scope="session")
def packaged_root(made_once) -> Path:
    """A model root with version 1 of a tiny model; not to be changed."""
    from tests.bulk_tiles import package_version

    return made_once("tiny-models", package_version)


@pytest.fixture(scope="session")
def other_root(made_once) -> Path:
    """A model root with version 1 of another tiny model, of the same name; not to be changed."""
    from tests.bulk_tiles import package_version

    return made_once("other-tiny-models", lambda folder: package_version(folder, seed=1))


@pytest.fixture(autouse=True)
def short_measurement(monkeypatch) -> None:
    """A plan with a model measures its rate on a few batches."""
    monkeypatch.setattr("sat_xception.bulk.measure._MEASURE_S", 0.2)


@pytest.fixture(scope="session")
def models_are_loaded_once() -> Iterator[None]:
    """Freeze a version once per process; each run of a test opens an engine of its own on it."""
    from sat_xception.bulk import tensorflow_engine

    frozen, freeze = {}, tensorflow_engine.freeze

    def freeze_once(version: Path) -> Any:
        digests = (version / "digests.json").read_bytes()  # which name each of the version's files
        if digests not in frozen:
            frozen[digests] = freeze(version)
        return frozen[digests]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorflow_engine, "freeze", freeze_once)
        yield


@pytest.fixture
def planned(tmp_path):
    """Return a function that plans so many tiles, of which some are as they are told to be."""

    from tests.bulk_tiles import write_imagery

    def plan(count: int, bad: dict[int, bytes] | None = None, shard_tiles: int = 40) -> Path:
        ids = write_imagery(tmp_path / "tiles.mbtiles", count, bad)
        (tmp_path / "tiles.txt").write_text("\n".join(ids))
        settings = {"imagery": str(tmp_path / "tiles.mbtiles"), "probe": 0, "shard_tiles": shard_tiles}
        plan_tiles(BulkPlanConfig(tiles=tmp_path / "tiles.txt", out=tmp_path / "plan", **settings))
        return tmp_path / "plan"

    return plan


@pytest.fixture
def model_copy(packaged_root, tmp_path) -> Path:
    """A model root that may be changed."""
    return shutil.copytree(packaged_root, tmp_path / "models")
