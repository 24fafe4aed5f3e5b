"""From tiles to validated examples in one call: a part that fails leaves those before it, and is done again."""

import json

import pytest

from sat_xception.errors import ConfigError
from sat_xception.workflows.build import build_dataset
from sat_xception.workflows.settings import BuildConfig


def test_what_was_done_before_a_failure_is_kept_and_the_rest_is_done(class_folders, tmp_path):
    given = {"data": str(class_folders), "out": tmp_path / "out"}
    with pytest.raises(ConfigError, match="must have the form"):
        build_dataset(BuildConfig(**given, accept=("no-pattern",)))
    assert "validate" not in json.loads((tmp_path / "out" / "build.json").read_text())
    result = build_dataset(BuildConfig(**given, accept=("*:*:*",)))
    # Class folders may have changed, so they are read again; what came of it is the same.
    assert result.kept == ("convert",)
    assert result.counts.by_status == {"ok": 80}
    assert sum(result.examples.values()) == 80
    assert result.summary().startswith("build     80 tiles: 80 ok | ")
    assert {path.name for path in result.folder.iterdir()} == {"build.json", "dataset", "examples", "validation"}
