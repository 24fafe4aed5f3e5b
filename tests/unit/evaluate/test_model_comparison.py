"""Two models on the same tiles: the exact test against tables, the paired interval, and other tiles refused."""

import numpy as np
import pytest
from scipy.stats import binomtest

from sat_xception.errors import DataError
from sat_xception.evaluate.comparison import compare, mcnemar_p
from sat_xception.evaluate.predictions import Outcomes, read_outcomes, write_predictions


def outcomes(right, blocks=None):
    names = [f"tile-{index}" for index in range(len(right))]
    return Outcomes(names, blocks or names, np.array(right, dtype=bool))


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 3), (10, 2), (2, 10), (40, 55), (900, 1100)])
def test_mcnemar_is_the_two_sided_binomial_test(first, second):
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar_p(first, second) == pytest.approx(expected, abs=1e-12)


def test_a_difference_is_counted_on_the_tiles_that_only_one_gets_right():
    found = compare(outcomes([1, 1, 1, 0, 0, 1]), outcomes([1, 0, 0, 1, 0, 1]))
    assert (found.first_only, found.second_only, found.tiles) == (2, 1, 6)
    assert found.difference == pytest.approx(1 / 6)
    assert found.p == 1.0
    assert compare(outcomes([1, 0]), outcomes([0, 1])).difference == 0


def test_the_interval_is_of_pairs_and_narrow_where_models_agree():
    right = np.random.default_rng(0).random(300) < 0.7
    better = right.copy()
    better[np.flatnonzero(~right)[:9]] = True
    low, high = compare(outcomes(better), outcomes(right)).interval
    assert 0 < low < 9 / 300 < high < 0.06  # of two models apart it would be 0.14 wide
    same = compare(outcomes(right), outcomes(right))
    assert (same.difference, same.interval, same.p) == (0, (0, 0), 1)


def test_one_block_gives_no_interval():
    assert compare(outcomes([1, 1], ["a", "a"]), outcomes([1, 0], ["a", "a"])).interval is None


def test_other_tiles_are_refused():
    with pytest.raises(DataError, match=r"different tiles \(2 and 3\)"):
        compare(outcomes([1, 1]), outcomes([1, 1, 1]))


def test_outcomes_are_read_back_as_they_were_written(tmp_path):
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], dtype=np.float32)
    labels = np.array([0, 1, 1])
    path = tmp_path / "predictions.parquet"
    write_predictions(path, ["x", "y", "z"], ["a", "b", "b"], {"at": ["", "u", "v"]}, labels, probabilities, ["n", "p"])
    found = read_outcomes(tmp_path)
    assert (found.ids, found.blocks, found.right.tolist()) == (["x", "y", "z"], ["a", "b", "b"], [True, False, True])
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="sat_xception evaluate"):
        read_outcomes(tmp_path)
