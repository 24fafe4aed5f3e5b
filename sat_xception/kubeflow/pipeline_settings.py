"""Settings of a pipeline: a few parameters, the headlines, and one YAML text for every other setting of its steps.

A section of the text is a step's settings class without the settings that the pipeline sets itself, so a field that is
added to a class is reachable at once. All values are checked by the classes; each task gets one JSON text.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sat_xception.errors import ConfigError, did_you_mean
from sat_xception.kubeflow.settings_text import read_mapping
from sat_xception.kubeflow.task_settings import Task, TaskSettings, Value, describe, masked, plain
from sat_xception.settings.config import StepConfig

__all__ = ["SETTINGS", "Headline", "PipelineSettings", "Resolved"]

# Name of the parameter with the YAML text.
SETTINGS = "settings"
_UNSET: Any = object()


@dataclass(frozen=True)
class Headline:
    """A parameter of the pipeline that sets one or several settings.

    Attributes:
        addresses: Each setting, as `section.setting`.
        default: The pipeline's own default. Default: that of the first setting.
        help: The pipeline's own description. Default: that of the first setting.
    """

    addresses: tuple[str, ...]
    default: Any = _UNSET
    help: str = ""


@dataclass(frozen=True)
class Resolved:
    """Settings of all tasks, and the values of the pipeline's own parameters."""

    tasks: dict[str, TaskSettings]
    parameters: dict[str, object]


@dataclass(frozen=True)
class PipelineSettings:
    """Settings of a pipeline.

    Attributes:
        name: Name of the pipeline in Kubeflow.
        tasks: Settings of each task.
        headlines: Parameters that set settings of steps.
        parameters: Class of the parameters that the pipeline uses itself: each field is a parameter of that name.
        adjust: Changes settings that depend on each other, before they are checked.
        find_problems: Returns the problems that the classes can't find.
        flat_key: Key of a flat mapping, whose value is the name of the section that the other keys belong to.
        moved_from: Sections that took the parameters of earlier versions with a prefix. Default: that of the same name.
        renamed: Address of parameters of earlier versions that don't have the name of their setting.
        command: Command that prints all settings, for messages.
    """

    name: str
    tasks: Mapping[str, Task]
    headlines: Mapping[str, Headline]
    parameters: type[StepConfig]
    adjust: Callable[[Resolved], None] = lambda resolved: None
    find_problems: Callable[[Resolved], list[str]] = lambda resolved: []
    flat_key: str = ""
    moved_from: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    command: str = "sat_xception settings"

    @cached_property
    def sections(self) -> dict[str, dict[str, type[StepConfig]]]:
        """The settings of each section, each with the class that defines it."""
        names = dict.fromkeys(section for task in self.tasks.values() for section in task.sections)
        found: dict[str, dict[str, type[StepConfig]]] = {}
        for section in names:
            tasks = self.tasks_of(section)
            common = set.intersection(*(set(task.own) for task in tasks))
            found[section] = {name: tasks[0].config for name in tasks[0].own if name in common}
        return found

    def tasks_of(self, section: str) -> list[Task]:
        """Return the tasks that a section applies to."""
        return [task for task in self.tasks.values() if section in task.sections]

    def headline_of(self, address: str) -> str:
        """Return the name of the headline that sets a setting; "" if none does."""
        return next((name for name, headline in self.headlines.items() if address in headline.addresses), "")

    def default_of(self, parameter: str) -> Any:  # noqa: ANN401 - of any type
        """Return the default of a parameter, as a JSON type."""
        if parameter == SETTINGS:
            return ""
        if parameter in self.parameters.model_fields:
            return plain(self.parameters.model_fields[parameter].default)
        headline = self.headlines[parameter]
        section, name = headline.addresses[0].split(".")
        own = headline.default is not _UNSET
        return plain(headline.default if own else self.sections[section][name].model_fields[name].default)

    def default_at(self, address: str) -> Any:  # noqa: ANN401 - of any type
        """Return the default of a setting in this pipeline, as a JSON type."""
        section, name = address.split(".")
        if headline := self.headline_of(address):
            return self.default_of(headline)
        return plain(self.sections[section][name].model_fields[name].default)

    def help_of(self, parameter: str) -> str:
        """Return the description of a parameter, with the names of other settings instead of their flags."""
        if parameter == SETTINGS:
            return f"Further settings of the steps, as YAML: a section per step; `{self.command}` lists them."
        if parameter in self.parameters.model_fields:
            return self.parameters.model_fields[parameter].description or ""
        headline = self.headlines[parameter]
        section, name = headline.addresses[0].split(".")
        names = {other: f"{section}.{other}" for other in self.sections[section]}
        names = {other: self.headline_of(address) or address for other, address in names.items()}
        return headline.help or describe(self.sections[section][name], name, names)

    def moved(self, parameter: str) -> str:
        """Return the address in `settings` of a parameter of an earlier version; "" if it had none of that name."""
        if parameter in self.renamed:
            return self.renamed[parameter]
        prefix, _, name = parameter.partition("_")
        sections = self.moved_from.get(prefix, (prefix,))
        return next((f"{section}.{name}" for section in sections if name in self.sections.get(section, {})), "")

    def resolve(self, given: Mapping[str, object], origin: str = SETTINGS) -> tuple[Resolved, list[str]]:
        """Merge parameters and the YAML text into settings of tasks, without checking their values.

        Args:
            given: Parameters by name; those that aren't given have their defaults.
            origin: Source of the YAML text, for messages.

        Returns:
            The settings, and the problems: unknown sections and settings, and contradictions.
        """
        values = {name: given.get(name, self.default_of(name)) for name in (*self.headlines, SETTINGS)}
        own = self.parameters.model_fields
        # A required one that isn't given is missed by the check.
        parameters = {
            name: given[name] if name in given else self.default_of(name)
            for name, field in own.items()
            if name in given or not field.is_required()
        }
        mapping = read_mapping(str(values[SETTINGS] or ""), origin)
        problems: list[str] = []
        written: dict[str, object] = {}
        for address, value in self._written(mapping, origin, problems):
            if address in written and not _same(written[address], value):
                problems.append(f"{address} is given twice: {masked(written[address])} and {masked(value)}")
            written[address] = value
        layers = self._layers(values, written, problems)
        tasks = {name: self._of_task(task, layers, parameters) for name, task in self.tasks.items()}
        resolved = Resolved(tasks, parameters)
        self.adjust(resolved)
        return resolved, problems

    def check(
        self,
        given: Mapping[str, object],
        origin: str = SETTINGS,
        settle: Callable[[Resolved], None] = lambda resolved: None,
    ) -> dict[str, str]:
        """Check all parameters and settings; return the settings of each task as JSON.

        Args:
            given: Parameters by name; those that aren't given have their defaults.
            origin: Source of the YAML text, for messages.
            settle: Changes settings whose values depend on where the pipeline runs, before they are checked.

        Raises:
            ConfigError: Something is wrong; the message names every mistake.
        """
        try:
            resolved, problems = self.resolve(given, origin)
            readable = True
        except ValueError as error:
            resolved, _ = self.resolve({**given, SETTINGS: ""})
            problems, readable = [str(error)], False
        settle(resolved)
        texts = {}
        own = Task(self.parameters, ())
        names = {name: name for name in self.parameters.model_fields}
        everything = {**resolved.tasks, "": TaskSettings(own, resolved.parameters, names)}
        for name, settings in everything.items():
            config, faults = settings.check()
            # Without the text, settings may be missing that it holds.
            problems += [settings.explain(fault) for fault in faults if readable or fault.path]
            if config and name:
                texts[name] = settings.text(config)
        if readable:
            problems += self.find_problems(resolved)
        if problems:
            # Without duplicates: several tasks may have the same setting.
            raise ConfigError(
                f"wrong settings: {'; '.join(dict.fromkeys(problems))}. No data was read; start a run with other values"
            )
        return texts

    def _written(self, mapping: Mapping[str, Any], origin: str, problems: list[str]) -> Iterator[tuple[str, object]]:
        """Yield the address and value of each setting in the YAML text; unknown ones are added to the problems."""
        flat = {name: value for name, value in mapping.items() if name not in self.sections}
        section = self._flat_sections().get(str(flat.get(self.flat_key)))
        nested = {name: value for name, value in mapping.items() if name in self.sections}
        if section:
            yield from self._in_section(section, flat, problems)
        else:
            problems += [f"{origin}: {self._unknown_section(name, value)}" for name, value in flat.items()]
        for name, content in nested.items():
            if isinstance(content, dict):
                yield from self._in_section(name, content, problems)
            elif content is not None:
                problems.append(
                    f"{name}: expected a mapping of settings, such as {{{self._example(name)}}}; got {content!r}"
                )

    def _in_section(
        self, section: str, content: Mapping[Any, object], problems: list[str]
    ) -> Iterator[tuple[str, object]]:
        known, tasks = self.sections[section], self.tasks_of(section)
        # What the pipeline fixes for a task may be repeated, as in a file that `search` wrote.
        fixed = tasks[0].fixed if len(tasks) == 1 else {}
        for key, value in content.items():
            name = str(key).replace("-", "_")
            if name in known:
                yield f"{section}.{name}", value
            elif name not in fixed or fixed[name] != value:
                problems.append(self._unknown(section, name))

    def _flat_sections(self) -> dict[str, str]:
        """Return the section of a flat mapping by the value of its key."""
        key = self.flat_key
        return {str(task.fixed[key]): task.sections[-1] for task in self.tasks.values() if key in task.fixed}

    def _example(self, section: str) -> str:
        name = next(iter(self.sections[section]))
        return f"{name}: {self.default_at(f'{section}.{name}')!r}"

    def _unknown_section(self, name: str, value: object) -> str:
        if name == self.flat_key:
            return f"{name}: {value!r} isn't one of this pipeline; expected {' or '.join(self._flat_sections())}"
        if name in self.headlines:
            return f"unknown section {name!r}: it is a parameter; in {SETTINGS}, {self.headlines[name].addresses[0]}"
        if name in self.parameters.model_fields:
            return f"unknown section {name!r}: it is a parameter of the pipeline"
        if inside := [f"{section}.{name}" for section, fields in self.sections.items() if name in fields]:
            return f"unknown section {name!r}; did you mean {' or '.join(inside)}?"
        hint = did_you_mean(name, self.sections, f"expected {', '.join(self.sections)}")
        return f"unknown section {name!r}; {hint}"

    def _unknown(self, section: str, name: str) -> str:
        tasks = self.tasks_of(section)
        source = next((task.taken[name] for task in tasks if name in task.taken), "")
        if source:
            return f"{section}.{name}: this is set as {source}"
        if any(name in task.inputs or name in task.fixed for task in tasks):
            return f"{section}.{name}: the pipeline sets this itself; leave it out"
        near = difflib.get_close_matches(name, self.sections[section], n=1)
        inside = [f"{other}.{name}" for other, fields in self.sections.items() if name in fields]
        if inside or near:
            return f"unknown setting {section}.{name}; did you mean {' or '.join(inside) or f'{section}.{near[0]}'}?"
        return f"unknown setting {section}.{name}; `{self.command}` lists those of {section}"

    def _layers(
        self, values: Mapping[str, object], written: Mapping[str, object], problems: list[str]
    ) -> tuple[dict[str, Value], dict[str, Value]]:
        """Return the settings that are given, and the pipeline's own defaults, each by its address."""
        given = {address: Value(value, address) for address, value in written.items()}
        defaults: dict[str, Value] = {}
        for name, headline in self.headlines.items():
            value, default = values[name], self.default_of(name)
            for address in headline.addresses:
                if _same(value, default):
                    defaults[address] = Value(value, name)
                    continue
                other = written.get(address, default)
                if not _same(other, default) and not _same(other, value):
                    problems.append(
                        f"{name} is {masked(value)}, and {address} in {SETTINGS} is {masked(other)}; give one of them"
                    )
                given[address] = Value(value, name)
        return given, defaults

    def _of_task(
        self, task: Task, layers: tuple[dict[str, Value], dict[str, Value]], parameters: Mapping[str, object]
    ) -> TaskSettings:
        values: dict[str, object] = {}
        names: dict[str, str] = {}
        for name in task.own:
            addresses = [f"{section}.{name}" for section in reversed(task.sections)]
            headlines = (self.headline_of(address) for address in addresses)
            names[name] = next(filter(None, headlines), addresses[-1])
            found = next((layer[address] for layer in layers for address in addresses if address in layer), None)
            if found is not None:
                values[name], names[name] = found
        for name, source in task.taken.items():
            if source in self.parameters.model_fields:
                names[name] = source
                if source in parameters:
                    values[name] = parameters[source]
            else:
                default = Value(self.default_at(source), self.headline_of(source) or source)
                values[name], names[name] = next((layer[source] for layer in layers if source in layer), default)
        return TaskSettings(task, values, names)


def _same(one: object, other: object) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and plain(one) == plain(other)
