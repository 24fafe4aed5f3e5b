"""Plans of drawn tiles, and a packaged model that scores them."""

import shutil
from pathlib import Path

import pytest

from sat_xception.bulk.plan import plan_tiles
from sat_xception.bulk.settings import BulkPlanConfig


@pytest.fixture(scope="session")
def packaged_root(tmp_path_factory) -> Path:
    """A model root with version 1 of a tiny model; not to be changed."""
    from tests.bulk_tiles import package_version

    return package_version(tmp_path_factory.mktemp("models"))


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
