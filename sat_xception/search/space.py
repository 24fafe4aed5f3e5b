"""What a search tries: a range or a list of values for settings of train, from a preset or a YAML file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sat_xception.errors import ConfigError, did_you_mean, faults_of
from sat_xception.model.settings import TrainConfig

__all__ = ["PRESETS", "Choice", "Range", "Space", "read_space"]

Value = bool | int | float | str

_HEAD = (
    "optimizer",
    "head_learning_rate",
    "head_units",
    "head_activation",
    "dropout",
    "label_smoothing",
    "class_weights",
)
_FINE_TUNING = (
    "fine_tune_learning_rate",
    "fine_tune_from",
    "fine_tune_crop",
    "fine_tune_label_smoothing",
    "batch_size",
)


class Suggester(Protocol):
    """The part of the interface of an Optuna trial that is used here."""

    def suggest_categorical(self, name: str, choices: list[Value]) -> Any:  # noqa: ANN401
        ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int: ...


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Value, ...]

    def holds(self, value: Value) -> bool:
        """Return whether a value may be tried."""
        return value in self.values

    def ends(self) -> tuple[Value, ...]:
        """Return the values that must be right for all to be: every one."""
        return self.values

    def suggest(self, name: str, trial: Suggester) -> Value:
        """Return a trial's value."""
        value: Value = trial.suggest_categorical(name, list(self.values))
        return value

    def describe(self) -> Any:  # noqa: ANN401 - as it is written in YAML
        """Return it as a space file has it."""
        return list(self.values)


class Range(BaseModel):
    """Anything from `low` to `high`, both included; on a logarithmic scale, as rates want it, with `log`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low must be less than high; got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0; got low: {self.low:g}")
        return self

    def holds(self, value: Value) -> bool:
        """Return whether a value may be tried."""
        return self.low <= float(value) <= self.high

    def ends(self) -> tuple[Value, ...]:
        """Return the values that must be right for all to be: the two ends."""
        return self._as_type(self.low), self._as_type(self.high)

    def suggest(self, name: str, trial: Suggester) -> Value:
        """Return a trial's value."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def describe(self) -> Any:  # noqa: ANN401 - as it is written in YAML
        """Return it as a space file has it."""
        low, high = self.ends()
        return {"low": low, "high": high, "log": self.log}

    def _as_type(self, value: float) -> Value:
        return int(value) if self.whole and value == int(value) else value


@dataclass(frozen=True)
class Space:
    """The settings of train to search, with the candidates of each.

    Attributes:
        name: The preset, or the file.
        settings: By the setting's name.
    """

    name: str
    settings: Mapping[str, Choice | Range]

    @property
    def fine_tunes(self) -> bool:
        """Whether a setting matters only when the backbone learns, too."""
        return any(setting in _FINE_TUNING for setting in self.settings)

    def defaults(self) -> dict[str, Value]:
        """Return the defaults of train, for those settings whose search space contains them."""
        values = {name: TrainConfig.model_fields[name].default for name in self.settings}
        return {name: value for name, value in values.items() if self.settings[name].holds(value)}

    def suggest(self, trial: Suggester) -> dict[str, Value]:
        """Return a trial's settings, in the order of the space."""
        return {name: setting.suggest(name, trial) for name, setting in self.settings.items()}

    def describe(self) -> dict[str, Any]:
        """Return the space as a file has it."""
        return {name: setting.describe() for name, setting in self.settings.items()}


PRESETS: Mapping[str, Space] = {
    "head": Space(
        "head",
        {
            "optimizer": Choice(("adam", "nadam", "rmsprop", "sgd")),
            "head_learning_rate": Range(low=1e-4, high=1e-1, log=True),
            "head_units": Choice((0, 64, 128, 256, 512)),
            "head_activation": Choice(("relu", "elu", "selu", "tanh")),
            "dropout": Range(low=0.0, high=0.7),
        },
    ),
    # developmentseed/unicef-schools at 96a4df4, main_model/sat_xception/train_config.py: what varied in its model.
    "original": Space(
        "original",
        {
            "optimizer": Choice(("adam", "rmsprop")),
            "head_learning_rate": Range(low=1e-4, high=1e-3),
            "head_units": Choice((128, 256, 512)),
            "head_activation": Choice(("relu", "elu")),
            "dropout": Choice((0.0, 0.1, 0.25, 0.5)),
            "fine_tune_learning_rate": Range(low=1e-5, high=1e-4),
        },
    ),
}


def read_space(name: str) -> Space:
    """Return a preset by its name, or the space in a YAML file.

    Args:
        name: Name of a preset, or path of a file that maps settings of train to a list of values or to
            `{low: …, high: …, log: true|false}`.

    Raises:
        ConfigError: Neither, or the file has a value that train rejects; the message names the setting.
    """
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith((".yaml", ".yml")):
        raise ConfigError(f"--space {name!r} is no preset ({', '.join(PRESETS)}) and no .yaml file")
    try:
        content = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read the space {name}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{name} must map settings of train to what is tried for them; see docs/search.md")
    keys = {str(key).replace("-", "_"): value for key, value in content.items()}
    return Space(name, {key: _read_setting(name, key, value) for key, value in keys.items()})


def _read_setting(file: str, name: str, value: object) -> Choice | Range:
    known = (*_HEAD, *_FINE_TUNING)
    if name not in known:
        hint = did_you_mean(name, known, f"these can be: {', '.join(known)}")
        raise ConfigError(f"{name!r} in {file} can't be searched; {hint}")
    kind = TrainConfig.model_fields[name].annotation
    try:
        if isinstance(value, dict):
            if kind not in (int, float):
                raise ConfigError(f"{name} in {file} isn't a number; list its values: [a, b]")
            setting: Choice | Range = Range(**{str(key): part for key, part in value.items()}, whole=kind is int)
        elif isinstance(value, list) and value:
            # As train has it: YAML reads 1e-3 as text.
            setting = Choice(tuple(_as_train_has_it(name, item) for item in value))
        else:
            raise ConfigError(f"{name} in {file}: expected [a, b, …] or {{low: a, high: b}}; got {value!r}")
        for end in setting.ends():
            _as_train_has_it(name, end)
    except (ValidationError, TypeError) as error:
        reason = faults_of(error)[0].why if isinstance(error, ValidationError) else str(error)
        raise ConfigError(f"{name} in {file}: {reason}; got {value!r}") from None
    return setting


def _as_train_has_it(name: str, value: object) -> Value:
    config = TrainConfig.model_validate({"examples": Path("-"), "out": Path("-"), name: value})
    checked: Value = getattr(config, name)
    return checked
