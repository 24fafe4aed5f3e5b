"""Temperature scaling: it undoes what made a model too sure, and never changes what it finds most probable."""

import numpy as np
import pytest

from sat_xception.evaluate.calibrate import apply_temperature, fit_temperature, reliability


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def drawn(classes, sharpness, count=4000):
    """Return labels drawn from probabilities, and the probabilities of a model that is `sharpness` times as sure."""
    rng = np.random.default_rng(classes)
    logits = 1.5 * rng.standard_normal((count, classes))
    labels = (softmax(logits).cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return np.minimum(labels, classes - 1), softmax(sharpness * logits)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_is_how_much_too_sure_a_model_is(classes, sharpness):
    labels, probabilities = drawn(classes, sharpness)
    temperature = fit_temperature(labels, probabilities)
    assert temperature == pytest.approx(sharpness, rel=0.08)
    before = reliability(labels, probabilities)
    after = reliability(labels, apply_temperature(probabilities, temperature))
    assert after.log_loss <= before.log_loss
    assert after.error < 0.02
    if sharpness != 1:
        assert before.error > 2 * after.error


def test_a_temperature_never_changes_the_most_probable_class_and_rows_sum_to_one():
    _, probabilities = drawn(4, 2.0)
    for temperature in (0.25, 1.0, 7.0):
        scaled = apply_temperature(probabilities, temperature)
        np.testing.assert_array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))
        np.testing.assert_allclose(scaled.sum(axis=1), 1, atol=1e-5)


def test_a_temperature_of_one_changes_nothing_and_of_two_classes_it_divides_the_log_odds():
    probabilities = np.array([[0.2, 0.8], [0.0, 1.0]], dtype=np.float32)
    np.testing.assert_allclose(apply_temperature(probabilities, 1.0), probabilities, atol=1e-6)
    odds = apply_temperature(probabilities[:1], 2.0)[0]
    assert odds[1] / odds[0] == pytest.approx(2.0, rel=1e-5)  # the root of 4
    assert np.isfinite(apply_temperature(probabilities, 4.0)).all()


def test_a_split_without_a_mistake_gives_no_temperature():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6]], dtype=np.float32)
    assert fit_temperature(np.array([0, 1]), probabilities) == 1.0
    assert fit_temperature(np.array([1, 1]), probabilities) == pytest.approx(10, rel=1e-3)
