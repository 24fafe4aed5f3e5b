"""Step configuration: set by YAML files, overridden by flags, recorded with every result.

Each step has one frozen model derived from `StepConfig` (see `steps/`). An unknown key is an error that names the
nearest known one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, JsonValue, PrivateAttr, ValidationError, field_validator

from sat_xception.errors import ConfigError, did_you_mean, faults_of
from sat_xception.storage import fetch_settings
from sat_xception.storage.address import is_plain_address, remote_path

__all__ = ["POSITIONAL", "SECOND_NAME", "StepConfig", "load_config", "second_name", "setting_of", "shown"]

# Marks a setting that is a positional argument on the command line.
POSITIONAL: dict[str, JsonValue] = {"positional": True}
# Key of the alias of a setting's flag; see `second_name`.
SECOND_NAME = "second-name"

T = TypeVar("T", bound="StepConfig")


class StepConfig(BaseModel):
    """Base class of step configurations: frozen, unknown keys forbidden, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    # Original values of the settings that `localized` replaced.
    _given: dict[str, Any] = PrivateAttr(default_factory=dict)

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON types, to be logged and stored with the result."""
        return self.model_dump(mode="json") | self._given

    @classmethod
    def moved(cls, name: str) -> str:
        """Return where to set a setting that this class had in earlier versions, for messages; "" if it hadn't."""
        del name
        return ""

    def localized(self) -> Self:
        """Download inputs from buckets, and return this configuration with their local paths.

        Raises:
            SatXceptionError: An input can't be downloaded.
        """
        fetched = fetch_settings(self)
        if not fetched:
            return self
        local = self.model_copy(update=fetched)
        local._given = {name: value for name, value in self.resolved().items() if name in fetched}
        return local

    @field_validator("*")
    @classmethod
    def _is_local_unless_it_may_be_stored(cls, value: Any) -> Any:  # noqa: ANN401 - a setting of any type
        for path in value if isinstance(value, tuple) else (value,):
            if is_plain_address(path):
                raise ValueError("this must be a path on this machine; it can't be in a bucket")
        return value


def load_config(model: type[T], file: Path | None = None, overrides: Mapping[str, object] | None = None) -> T:
    """Build a step's configuration from a YAML file and the flags that override it.

    Args:
        model: The step's configuration class.
        file: YAML mapping of settings; keys may use `-` or `_`.
        overrides: Settings given as flags. `None` values are flags that weren't given.

    Returns:
        The validated configuration.

    Raises:
        ConfigError: The file can't be read, a key is unknown, a value is missing or has the wrong type or range.
    """
    settings = _read_mapping(file) if file else {}
    known = list(model.model_fields)
    flags = {key: value for key, value in (overrides or {}).items() if value is not None}
    for origin, keys in ((str(file), settings), ("the command line", flags)):
        for key in keys:
            if key not in known:
                if moved := model.moved(key):
                    raise ConfigError(f"{key!r} in {origin} is no setting of this command any more: {moved}")
                hint = did_you_mean(key, known, f"known keys: {', '.join(sorted(known))}")
                raise ConfigError(f"unknown setting {key!r} in {origin}; {hint}")
    try:
        return model.model_validate({**settings, **flags})
    except ValidationError as error:
        origin = f"{file} and the command line" if file else "the command line"
        raise ConfigError(f"wrong settings from {origin}: {_explain(error, model)}") from None


def setting_of(model: type[StepConfig], name: str) -> Any:  # noqa: ANN401 - stands for a field of any type
    """Return the field of another step's setting, so that shared settings are described once."""
    return model.model_fields[name]


def second_name(name: str) -> dict[str, JsonValue]:
    """Return the `json_schema_extra` that gives a setting's flag an alias, such as `-f` for `--file`."""
    return {SECOND_NAME: name}


def shown(address: str) -> str:
    """Return an address with keys and passwords masked, for files and messages."""
    return re.sub(r"(?<=://)[^/@]*@|(?<==)[^&{}]+(?=&|$)", "***", address)


def _read_mapping(file: Path) -> dict[str, object]:
    if is_plain_address(file):
        raise ConfigError(f"the file of settings must be on this machine; got {remote_path(file)}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read the configuration {file}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold a mapping of settings, found a {type(content).__name__}")
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def _explain(error: ValidationError, model: type[StepConfig]) -> str:
    lines = []
    for fault in faults_of(error):
        if not fault.path:
            lines.append(fault.why)
            continue
        name = str(fault.path[0])
        positional = model.model_fields[name].json_schema_extra == POSITIONAL
        flag = name.upper() if positional else "--" + name.replace("_", "-")
        if fault.is_missing and len(fault.path) == 1:
            lines.append(f"{flag} is required (or {name!r} in the file given as --config)")
        else:
            # A plain path has lost a slash of the address.
            got = str(remote_path(str(fault.value))) if is_plain_address(fault.value) else fault.value
            lines.append(f"{flag}: {fault.why}; got {got!r}")
    return "; ".join(lines)
