"""Settings of one task of a pipeline: a settings class without what the pipeline sets, and the check of its values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_origin

from pydantic import ValidationError

from sat_xception.errors import Fault, faults_of
from sat_xception.settings.config import StepConfig, shown
from sat_xception.storage.files import dump_json

__all__ = ["Task", "TaskSettings", "Value", "describe", "masked", "plain"]

_FLAG = re.compile(r"--([a-z][a-z0-9-]*)")


class Value(NamedTuple):
    """A value, and the name under which the user gave it or can give it."""

    value: object
    name: str


@dataclass(frozen=True)
class Task:
    """Settings of a task.

    Attributes:
        config: Settings class of the step.
        sections: Sections that apply to the task; a later one overrides an earlier one.
        inputs: Settings that are inputs or outputs of the task.
        fixed: Settings that the pipeline sets, with their values.
        taken: Settings that have the value of another one: its address, or the name of a parameter.
    """

    config: type[StepConfig]
    sections: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    fixed: Mapping[str, object] = field(default_factory=dict)
    taken: Mapping[str, str] = field(default_factory=dict)

    @property
    def own(self) -> list[str]:
        """Settings that users can set in the sections; those of the class itself come before inherited ones."""
        set_here = {*self.inputs, *self.fixed, *self.taken}
        names = [name for name in self.config.model_fields if name not in set_here]
        return sorted(names, key=lambda name: name not in self.config.__annotations__)

    def placeholders(self) -> dict[str, object]:
        """Return values for the inputs, which aren't known yet when the settings are checked."""
        fields = self.config.model_fields
        several = {name for name in self.inputs if get_origin(fields[name].annotation) is tuple}
        return {name: ("of-the-task",) if name in several else "of-the-task" for name in self.inputs}


@dataclass
class TaskSettings:
    """Settings of a task as they are given, before they are checked.

    Attributes:
        task: The task.
        values: Values of the settings that are given or have a default of the pipeline.
        names: Name of each setting for messages, whether it is given or not.
    """

    task: Task
    values: dict[str, object]
    names: dict[str, str]

    def get(self, name: str) -> Any:  # noqa: ANN401 - a setting of any type
        """Return the value of a setting, or its default."""
        return self.values.get(name, plain(self.task.config.model_fields[name].default))

    def check(self) -> tuple[StepConfig | None, list[Fault]]:
        """Return the checked settings, or what is wrong with them."""
        try:
            given = {**self.values, **self.task.fixed, **self.task.placeholders()}
            return self.task.config.model_validate(given), []
        except ValidationError as error:
            return None, faults_of(error)

    def explain(self, fault: Fault) -> str:
        """Return the message of an error, with the names that the user gave or can give."""
        message = self.renamed(fault.why)
        if not fault.path:  # an error of several settings together
            return message
        setting, *inside = fault.path
        position = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inside)
        got = "" if fault.is_missing else f"; got {masked(fault.value)}"
        return f"{self.names.get(str(setting), setting)}{position}: {message}{got}"

    def renamed(self, message: str) -> str:
        """Return a message with the names that the user gave or can give instead of flags."""
        return _FLAG.sub(lambda flag: self._shown(flag), message)

    def _shown(self, flag: re.Match[str]) -> str:
        return self.names.get(flag[1].replace("-", "_"), flag[0])

    def text(self, config: StepConfig) -> str:
        """Return the settings as JSON: those that the pipeline fixes, and those that differ from the class's defaults.

        Equal settings give equal texts, however they were given; a new setting at its default changes no text.
        """
        everything = config.model_dump(mode="json")
        fields = self.task.config.model_fields
        kept = {
            name: value
            for name, value in everything.items()
            if name in self.task.fixed
            or (name not in self.task.inputs and getattr(config, name) != fields[name].default)
        }
        return dump_json(kept, sort_keys=True, ensure_ascii=False)


def describe(config: type[StepConfig], name: str, names: Mapping[str, str]) -> str:
    """Return the description of a setting, with the names of other settings instead of their flags."""
    text = " ".join((config.model_fields[name].description or "").split())
    return _FLAG.sub(lambda flag: names.get(flag[1].replace("-", "_"), flag[0]), text)


def masked(value: object) -> str:
    """Return a value for a message, with keys and passwords in addresses masked."""
    return repr(shown(value) if isinstance(value, str) and "://" in value else value)


def plain(value: object) -> Any:  # noqa: ANN401 - a setting of any type
    """Return a setting as a JSON type: None is "", a path is text, a tuple is a list."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return "" if value is None else value
