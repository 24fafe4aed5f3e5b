"""Every setting of a pipeline with default and description: `sat_xception settings`, and docs/settings.md.

`python -m sat_xception.kubeflow.settings_reference` updates docs/settings.md.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from sat_xception.errors import ConfigError
from sat_xception.kubeflow.markdown import replace_between, table_cell
from sat_xception.kubeflow.pipeline_settings import SETTINGS, PipelineSettings
from sat_xception.kubeflow.pipelines import PIPELINES
from sat_xception.kubeflow.settings import SettingsConfig
from sat_xception.kubeflow.task_settings import describe

__all__ = ["SettingsText", "print_settings", "settings_markdown", "settings_yaml", "write_reference"]

_WIDTH = 100
_DOCUMENT = Path("docs/settings.md")


@dataclass(frozen=True)
class SettingsText:
    """The printed settings."""

    text: str

    def summary(self) -> str:
        """Return the YAML."""
        return self.text


def print_settings(config: SettingsConfig) -> SettingsText:
    """Return every setting of a pipeline as YAML.

    Raises:
        ConfigError: No pipeline has this name.
    """
    if config.pipeline not in PIPELINES:
        raise ConfigError(f"PIPELINE: there is no pipeline {config.pipeline!r}; expected {' or '.join(PIPELINES)}")
    return SettingsText(settings_yaml(PIPELINES[config.pipeline]))


def settings_yaml(pipeline: PipelineSettings) -> str:
    """Return all sections as YAML that holds the defaults, with the descriptions as comments.

    The text as it is can be given as `settings`, and changes nothing.
    """
    lines = [
        f"# Settings of the pipeline {pipeline.name}, with their defaults. Give those that differ as its",
        f"# parameter `{SETTINGS}`. Settings with a parameter of their own are marked with its name.",
        f"# Parameters alone: {', '.join(pipeline.parameters.model_fields)}.",
    ]
    for section in pipeline.sections:
        lines += ["", f"# {_purpose(pipeline, section)}", f"{section}:"]
        # An active line would override what is set for all.
        mark = "# " if _is_override(pipeline, section) else ""
        for name in _listed(pipeline, section):
            headline = pipeline.headline_of(f"{section}.{name}")
            text = f"{_description(pipeline, section, name)}{f' Parameter {headline}.' if headline else ''}"
            lines += textwrap.wrap(text, _WIDTH, initial_indent="  # ", subsequent_indent="  # ")
            lines.append(f"  {mark}{name}: {_shown(pipeline, section, name)}")
    return "\n".join(lines)


def settings_markdown(pipeline: PipelineSettings) -> str:
    """Return a table per section, for the documentation."""
    return "\n".join(_markdown(pipeline))


def _markdown(pipeline: PipelineSettings) -> Iterator[str]:
    for section in pipeline.sections:
        yield from (f"### {section}", "", _purpose(pipeline, section), "")
        yield from ("| setting | default | parameter | what it does |", "|---|---|---|---|")
        for name in _listed(pipeline, section):
            headline = pipeline.headline_of(f"{section}.{name}")
            text = table_cell(_description(pipeline, section, name))
            default = _shown(pipeline, section, name).replace("|", "\\|")
            yield f"| `{name}` | `{default}` | {f'`{headline}`' if headline else ''} | {text} |"
        yield ""


def _listed(pipeline: PipelineSettings, section: str) -> list[str]:
    """Return the settings of a section; of one that overrides another, only those with a parameter."""
    override = _is_override(pipeline, section)
    return [name for name in pipeline.sections[section] if not override or pipeline.headline_of(f"{section}.{name}")]


def _is_override(pipeline: PipelineSettings, section: str) -> bool:
    """Return whether a section only overrides settings of an earlier one."""
    return all(section != task.sections[0] for task in pipeline.tasks_of(section))


def _purpose(pipeline: PipelineSettings, section: str) -> str:
    task = pipeline.tasks_of(section)[0]
    if _is_override(pipeline, section):
        return f"Any setting of {task.sections[0]}, for {section} alone."
    return (task.config.__doc__ or "").strip().splitlines()[0]


def _description(pipeline: PipelineSettings, section: str, name: str) -> str:
    config = pipeline.sections[section][name]
    return describe(config, name, {other: other for other in config.model_fields})


def _shown(pipeline: PipelineSettings, section: str, name: str) -> str:
    """Return the default as YAML on one line."""
    value = pipeline.default_at(f"{section}.{name}")
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def write_reference(path: Path) -> None:
    """Replace the tables between their two markers in a Markdown file."""
    parts = [f"## Pipeline {name}\n\n{settings_markdown(pipeline)}" for name, pipeline in PIPELINES.items()]
    replace_between(path, "settings", "\n".join(parts))


if __name__ == "__main__":
    write_reference(_DOCUMENT)
    print(f"wrote     the settings into {_DOCUMENT}")
