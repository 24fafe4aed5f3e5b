"""Golden tiles: how near is near enough, and what gives another model away."""

import json

import numpy as np
import pytest

from sat_xception.errors import DataError, ModelError
from sat_xception.served_model.golden import GoldenTiles, check_golden
from tests.serving_fixtures import write_golden_tiles

EXPECTED = [[0.9, 0.1], [0.25, 0.75]]


class Endpoint:
    """Stands where a client of an endpoint does, and gives the answers it is told to."""

    address = "http://endpoint"

    def __init__(self, answers):
        self.answers = np.asarray(answers, dtype=np.float32)

    def predict(self, images):
        assert images == [b"tile 0", b"tile 1"]
        return self.answers


@pytest.fixture
def version(tmp_path):
    write_golden_tiles(tmp_path, [b"tile 0", b"tile 1"], np.array(EXPECTED), tolerance=0.01)
    return tmp_path


def stored(version):
    return json.loads((version / "golden.json").read_text())


def rewrite(version, **changes):
    (version / "golden.json").write_text(json.dumps({**stored(version), **changes}))


def test_the_largest_difference_is_returned(version):
    assert check_golden(version, Endpoint(EXPECTED)) == 0
    assert check_golden(version, Endpoint([[0.9, 0.1], [0.255, 0.745]])) == pytest.approx(0.005, abs=1e-6)


@pytest.mark.parametrize("answers", [[[0.9, 0.1], [0.27, 0.73]], [[0.9, 0.1], [np.nan, 0.75]], [[np.nan, np.nan]] * 2])
def test_an_answer_out_of_tolerance_or_no_number_names_the_tile(version, answers):
    with pytest.raises(ModelError, match=r"http://endpoint answers golden tile tile-\d with .*within 0\.01"):
        check_golden(version, Endpoint(answers))


def test_another_number_of_classes_is_another_model(version):
    with pytest.raises(ModelError, match=r"with 3 classes, .* has 2: another model"):
        check_golden(version, Endpoint([[0.9, 0.1, 0.0], [0.25, 0.75, 0.0]]))


def test_an_empty_list_of_golden_tiles_proves_nothing(version):
    rewrite(version, tiles=[])
    for ask in (lambda: check_golden(version, Endpoint(EXPECTED)), lambda: GoldenTiles.read(version)):
        with pytest.raises(DataError, match=r"golden\.json .*tiles: there are none.*validation split; run .* package`"):
            ask()


def test_a_file_of_the_version_before_is_read(version):
    content = stored(version)
    del content["schema_version"]
    assert [list(tile) for tile in content["tiles"]] == [["id", "image_bytes", "label", "probabilities"]] * 2
    (version / "golden.json").write_text(json.dumps(content))
    assert check_golden(version, Endpoint(EXPECTED)) == 0


def test_an_image_that_isnt_base64_is_told(version):
    tiles = stored(version)["tiles"]
    tiles[1]["image_bytes"]["b64"] = "dGlsZ"
    rewrite(version, tiles=tiles)
    with pytest.raises(DataError, match=r"golden\.json .*tiles\.1\.image_bytes\.b64: isn't base64: .*5"):
        check_golden(version, Endpoint(EXPECTED))


def test_a_tile_without_a_probability_of_each_class_is_told(version):
    tiles = stored(version)["tiles"]
    tiles[0]["probabilities"] = [1.0]
    rewrite(version, tiles=tiles)
    with pytest.raises(DataError, match="tile tile-0 has 1 probabilities, expected 2, one of each class"):
        check_golden(version, Endpoint(EXPECTED))


def test_no_golden_tiles_are_told(tmp_path):
    with pytest.raises(DataError, match=r"golden\.json is missing.*sat_xception package"):
        check_golden(tmp_path, Endpoint(EXPECTED))
