"""The verbs of a model root: what they tell, what they prove, and what they remove."""

import json
import shutil

import pytest

from sat_xception.errors import ConfigError, DataError, ModelError
from sat_xception.package.package import package
from sat_xception.package.settings import PackageConfig
from sat_xception.served_model.packaged_model import PackagedModel
from sat_xception.steps import MODELS_VERBS
from sat_xception.storage import folder_digests
from tests.serving_fixtures import describe_version, reverse_golden_tiles
from tests.small_models import write_small_model

NAME = "school-classifier"


@pytest.fixture(scope="module")
def made(examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("versions")
    write_small_model(folder / "model", examples)
    package(PackageConfig(model=folder / "model", examples=examples, out=folder / "root", version=1, golden_tiles=2))
    return folder / "root"


@pytest.fixture
def root(made, tmp_path):
    """Versions 1, 2 and 10, the same but for their number."""
    for number in (1, 2, 10):
        version = shutil.copytree(made / NAME / "1", tmp_path / "root" / NAME / str(number))
        describe_version(version, version=number)
        _sign(version)
    return tmp_path / "root"


def _sign(version):
    digests = {name: digest for name, digest in folder_digests(version).items() if name != "digests.json"}
    (version / "digests.json").write_text(json.dumps(digests))


def run(verb, root, **settings):
    return MODELS_VERBS[verb].run({"model_root": root, **settings}).summary()


def test_versions_are_listed_the_newest_first_with_their_figures(root):
    head, *rows = run("list", root).splitlines()
    assert head.split() == ["version", "backbone", "valid", "test", "tiles", "data"]
    assert [row.split()[0] for row in rows] == ["10", "2", "1"]
    model = PackagedModel.read(root / NAME / "10")
    accuracy = f"{model.metrics['test'].accuracy:.4f}"
    assert rows[0].split()[1:] == [
        "mobilenetv2",
        "-",
        accuracy,
        str(model.tiles["train"]),
        model.dataset_digest[:12],
    ]
    listed = json.loads(run("list", root, as_json=True))
    assert (listed[0]["version"], listed[0]["place"]) == (10, str(root / NAME / "10"))
    # Everything that package wrote, also what is read by nobody.
    stored = json.loads((root / NAME / "10" / "model.json").read_text())
    assert {"training", "calibration", "threshold_choice", "packaged_by"} <= stored.keys()
    assert "by_class" in stored["metrics"]["test"]
    assert {**listed[0], "schema_version": 1} == {**stored, "place": listed[0]["place"]}


def test_a_version_shows_its_card_or_its_facts(root):
    assert run("show", root) == (root / NAME / "10" / "MODEL_CARD.md").read_text().rstrip()
    assert json.loads(run("show", root, version=2, as_json=True))["version"] == 2
    (root / NAME / "1" / "MODEL_CARD.md").unlink()
    with pytest.raises(DataError, match=r"MODEL_CARD\.md is missing"):
        run("show", root, version=1)


def test_a_sound_version_is_verified(root):
    assert run("verify", root, version=1).startswith(f"verified  {root / NAME / '1'}: ")


def test_a_damaged_file_is_named(root):
    (root / NAME / "10" / "variables" / "variables.index").write_bytes(b"other")
    with pytest.raises(DataError, match=r"variables\.index changed since it was packaged"):
        run("verify", root)


def test_a_model_that_answers_otherwise_than_when_it_was_packaged_is_told(root):
    path = root / NAME / "10" / "golden.json"
    (tile_id,) = reverse_golden_tiles(path.parent, 1)
    _sign(path.parent)
    with pytest.raises(ModelError, match=f"answers golden tile {tile_id} with"):
        run("verify", root)


def test_old_versions_are_removed_by_their_number_after_a_dry_run_told_which(root):
    *paths, counts = run("gc", root, keep=1, dry_run=True).splitlines()
    assert [path.split() for path in paths] == [["would", "go", str(root / NAME / number)] for number in ("1", "2")]
    assert counts == "versions  3 were there | 2 would be removed  1 kept"
    assert sorted(path.name for path in (root / NAME).iterdir()) == ["1", "10", "2"]
    assert run("gc", root, keep=1).splitlines()[-1] == "versions  3 were there | 2 removed  1 kept"
    assert [path.name for path in (root / NAME).iterdir()] == ["10"]
    assert run("gc", root) == "versions  1 were there | 0 removed  1 kept"


@pytest.mark.parametrize("verb", ["list", "show", "verify", "gc"])
def test_a_root_without_the_model_and_a_number_that_is_not_there_are_told(root, verb):
    with pytest.raises(ConfigError, match=f"no version of 'other' at {root / 'other'}"):
        run(verb, root, name="other")
    if verb in ("show", "verify"):
        with pytest.raises(ConfigError, match=r"no version 3 of .* there are 1, 2, 10"):
            run(verb, root, version=3)
