"""Spaces: presets, files, and what is told of a wrong one before anything is tried."""

import optuna
import pytest

from sat_xception.errors import ConfigError
from sat_xception.model.settings import TrainConfig
from sat_xception.search.space import PRESETS, Choice, Range, read_space


def write(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return str(path)


def test_the_originals_space_is_its_six_settings():
    space = read_space("original")
    assert list(space.settings) == [
        "optimizer",
        "head_learning_rate",
        "head_units",
        "head_activation",
        "dropout",
        "fine_tune_learning_rate",
    ]
    assert space.describe()["dropout"] == [0.0, 0.1, 0.25, 0.5]
    assert space.fine_tunes
    assert not read_space("head").fine_tunes
    assert set(read_space("head").settings) < set(space.settings)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_train_takes_whatever_a_preset_suggests(name):
    space = PRESETS[name]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        TrainConfig(examples="e", out="o", **space.suggest(study.ask()))
    assert space.defaults()["optimizer"] == "adam"


def test_a_file_says_lists_and_ranges_in_the_words_of_train(tmp_path):
    text = """
      head-learning-rate: {low: 1e-4, high: 1e-2, log: true}
      head_units: {low: 16, high: 64}
      optimizer: [sgd]
      label_smoothing: [0, 1e-1]
    """
    space = read_space(write(tmp_path, text))
    assert space.settings == {
        "head_learning_rate": Range(low=1e-4, high=1e-2, log=True),
        "head_units": Range(low=16, high=64, whole=True),
        "optimizer": Choice(("sgd",)),
        "label_smoothing": Choice((0.0, 0.1)),
    }
    assert space.describe()["head_units"] == {"low": 16, "high": 64, "log": False}
    assert space.defaults() == {"head_learning_rate": 1e-3, "label_smoothing": 0.0}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    tried = [space.suggest(study.ask()) for _ in range(20)]
    assert all(isinstance(one["head_units"], int) and 16 <= one["head_units"] <= 64 for one in tried)
    assert all(1e-4 <= one["head_learning_rate"] <= 1e-2 for one in tried)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("drop_out: [0.1]", "'drop_out' in .*can't be searched; did you mean 'dropout'"),
        ("backbone: [xception]", "'backbone' in .*can't be searched; these can be: optimizer, "),
        ("optimizer: [adam, lion]", "optimizer in .*Input should be 'adam'.*; got"),
        ("optimizer: {low: 1, high: 2}", "optimizer in .*isn't a number; list its values"),
        ("dropout: {low: 0.5, high: 1.5}", "dropout in .*Input should be less than 1"),
        ("dropout: {low: 0.5, high: 0.1}", "dropout in .*low must be less than high; got 0.5 and 0.1"),
        ("dropout: {low: 0, high: 0.5, log: true}", "dropout in .*a logarithmic range begins above 0"),
        ("dropout: {low: 0.1}", "dropout in .*Field required"),
        ("dropout: {low: 0, high: 0.5, step: 2}", "dropout in .*Extra inputs are not permitted"),
        ("head_units: {low: 1.5, high: 2}", "head_units in .*valid integer"),
        ("dropout: 0.5", r"dropout in .*expected \[a, b, …\] or \{low: a, high: b\}; got 0.5"),
        ("dropout: []", r"dropout in .*expected \[a, b"),
        ("- dropout", "must map settings of train"),
        ("", "must map settings of train"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_wrong_file_is_told_with_the_setting(tmp_path, text, told):
    with pytest.raises(ConfigError, match=told):
        read_space(write(tmp_path, text))


def test_no_preset_and_no_file_are_told():
    with pytest.raises(ConfigError, match=r"--space 'wide' is no preset \(head, original\) and no \.yaml file"):
        read_space("wide")
    with pytest.raises(ConfigError, match=r"can't read the space none\.yaml"):
        read_space("none.yaml")
