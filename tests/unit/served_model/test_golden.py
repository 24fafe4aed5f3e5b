"""Golden tiles: how near is near enough, and what gives another model away."""

import base64
import json

import numpy as np
import pytest

from sat_xception.errors import DataError, ModelError
from sat_xception.served_model.golden import check_golden, read_golden_tiles

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
    tiles = [
        {
            "id": f"t{index}",
            "image_bytes": {"b64": base64.b64encode(f"tile {index}".encode()).decode()},
            "probabilities": row,
        }
        for index, row in enumerate(EXPECTED)
    ]
    (tmp_path / "golden.json").write_text(json.dumps({"tolerance": 0.01, "tiles": tiles}))
    return tmp_path


def test_the_largest_difference_is_returned(version):
    assert check_golden(version, Endpoint(EXPECTED)) == 0
    assert check_golden(version, Endpoint([[0.9, 0.1], [0.255, 0.745]])) == pytest.approx(0.005, abs=1e-6)


@pytest.mark.parametrize("answers", [[[0.9, 0.1], [0.27, 0.73]], [[0.9, 0.1], [np.nan, 0.75]], [[np.nan, np.nan]] * 2])
def test_an_answer_out_of_tolerance_or_no_number_names_the_tile(version, answers):
    with pytest.raises(ModelError, match=r"http://endpoint answers golden tile t\d with .*within 0\.01"):
        check_golden(version, Endpoint(answers))


def test_another_number_of_classes_is_another_model(version):
    with pytest.raises(ModelError, match=r"with 3 classes, .* has 2: another model"):
        check_golden(version, Endpoint([[0.9, 0.1, 0.0], [0.25, 0.75, 0.0]]))


def test_an_empty_list_of_golden_tiles_proves_nothing(version):
    (version / "golden.json").write_text(json.dumps({"tolerance": 0.01, "tiles": []}))
    for ask in (lambda: check_golden(version, Endpoint(EXPECTED)), lambda: read_golden_tiles(version)):
        with pytest.raises(DataError, match=r"golden\.json holds no tiles.*package it again"):
            ask()


def test_no_golden_tiles_are_told(tmp_path):
    with pytest.raises(DataError, match=r"golden\.json is missing.*sat_xception package"):
        check_golden(tmp_path, Endpoint(EXPECTED))
