"""Slices: counts and figures by hand, the unknown value, and an interval of their own."""

import logging

import numpy as np
import pytest

from sat_xception.evaluate.slices import slice_table

SETTING = ["rural", "rural", "urban", "urban", "urban", ""]
RIGHT = np.array([1, 0, 1, 1, 1, 1], dtype=bool)
TRUTH = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
TAKEN = np.array([1, 0, 1, 1, 0, 0], dtype=bool)


def test_each_value_has_its_own_figures_those_with_most_tiles_first():
    rows = slice_table({"setting": SETTING}, RIGHT, np.arange(6), (TRUTH, TAKEN))
    assert [(row.value, row.count, row.positives) for row in rows] == [
        ("urban", 3, 1),
        ("rural", 2, 2),
        ("", 1, 0),
    ]
    assert [row.accuracy for row in rows] == [1, 0.5, 1]
    assert [row.recall for row in rows] == [1, 0.5, None]
    assert [row.precision for row in rows] == [0.5, 1, None]
    assert rows[1].intervals.accuracy == (0, 1)
    assert rows[2].content()["intervals"] == {"accuracy": None, "recall": None, "precision": None}


def test_without_a_positive_class_a_slice_has_its_accuracy_alone():
    (row,) = slice_table({"region": ["a"] * 6}, RIGHT, np.arange(6), None)
    assert row.content().keys() == {"slice", "value", "count", "accuracy", "intervals"}
    assert row.content()["intervals"].keys() == {"accuracy"}
    assert row.accuracy == pytest.approx(5 / 6)


def test_data_without_slices_has_none():
    assert slice_table({}, RIGHT, np.arange(6), None) == ()


def test_of_very_many_values_the_most_frequent_are_told_and_that_is_said(caplog):
    values = [*(f"place-{index}" for index in range(300)), "often", "often"]
    with caplog.at_level(logging.WARNING):
        rows = slice_table({"place": values}, np.ones(302, dtype=bool), np.arange(302), None)
    assert len(rows) == 201
    assert rows[0].value == "often"
    assert (rows[-1].value, rows[-1].count) == ("one of 101 other values", 101)
    assert sum(row.count for row in rows) == 302
    assert "place has 301 values" in caplog.text
