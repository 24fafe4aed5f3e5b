"""The settings of a pipeline for a run on this machine: flags, the file of --settings, local defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from sat_xception.errors import ConfigError
from sat_xception.kubeflow.local_runner import whole_path
from sat_xception.kubeflow.pipeline_settings import SETTINGS, PipelineSettings, Resolved
from sat_xception.kubeflow.run_settings import LOCAL_TRAINING, RUN_FLAGS, RunConfig, weights_flag
from sat_xception.kubeflow.task_settings import plain
from sat_xception.kubeflow.training_settings import SAMPLE, TRAINED_BACKBONES, TRAINING
from sat_xception.log import get_logger
from sat_xception.model.backbones import get_backbone
from sat_xception.model.weights import identify_weights
from sat_xception.settings.config import StepConfig
from sat_xception.storage import Stored, fetch_file

__all__ = ["RunArguments", "resolve_settings", "run_arguments"]

_log = get_logger(__name__)

# Settings with a path or an address that their type doesn't show.
_ADDRESSES = ("imagery", "weights")


@dataclass(frozen=True)
class RunArguments:
    """Settings of a run, with absolute paths.

    Attributes:
        sections: Settings by section, each with its values.
        parameters: The pipeline's own parameters.
    """

    sections: dict[str, dict[str, Any]]
    parameters: dict[str, Any]

    def for_pipeline(self) -> dict[str, Any]:
        """Return the parameters of the pipeline that differ from their defaults."""
        return {**self.parameters, SETTINGS: yaml.safe_dump(self.sections, allow_unicode=True)}

    def paths(self, read: bool) -> list[Path]:
        """Return the paths on this machine that steps read, or those that they write besides their outputs."""
        found = {str(value) for kind, value in self._paths() if (kind in ("folder", "file")) == read}
        own = () if read else map(str, self.parameters.values())
        return [Path(path) for path in sorted({*found, *own}) if Path(path).is_absolute()]

    def _paths(self) -> Iterator[tuple[str, object]]:
        for section, values in self.sections.items():
            for name, value in values.items():
                config = TRAINING.sections[section][name]
                if value and _is_path(config, name) and f"{section}.{name}" != "deploy.model_root":
                    yield _kind(config, name), value


def run_arguments(config: RunConfig) -> RunArguments:
    """Return the settings of a run; each weights file goes to the backbone that it fits.

    Raises:
        ConfigError: Settings are wrong, a weights file doesn't exist, or the pipeline doesn't train its backbone.
        ModelError: A weights file fits no backbone.
    """
    weights, alphas = _sort_weights(config.weights)
    given = {name: plain(getattr(config, setting)) for name, setting in RUN_FLAGS.items()}
    given |= {weights_flag(name): source for name, source in weights.items()}
    if alphas:
        given["--alpha"] = next(iter(alphas.values()))
    given |= {"data_baseline": plain(config.baseline), "data_store": plain(config.store)}
    resolved, sections = resolve_settings(LOCAL_TRAINING, given, config.settings)
    for name in TRAINED_BACKBONES:
        start = resolved.tasks[name].get("weights")
        _log.info("weights   %s starts from %s", name, "random weights" if start == "none" else start)
    own = {name: whole_path(str(value)) for name, value in resolved.parameters.items() if name in given}
    return RunArguments(sections, own)


def resolve_settings(
    pipeline: PipelineSettings, given: Mapping[str, object], file: Path | None
) -> tuple[Resolved, dict[str, dict[str, Any]]]:
    """Check the settings of a run.

    Args:
        pipeline: Settings of the pipeline on this machine.
        given: Its parameters.
        file: YAML file of further settings.

    Returns:
        The settings of all tasks; and by section those that are given or have a default of the pipeline, as JSON types
        with absolute paths, for steps in other processes.

    Raises:
        ConfigError: The file can't be read, or settings are wrong; the message names every mistake.
    """
    given = {**given, SETTINGS: _read_text(file) if file else ""}
    origin = str(file or SETTINGS)
    pipeline.check(given, origin)
    resolved, _ = pipeline.resolve(given, origin)
    sections = {
        settings.task.sections[-1]: {
            name: _absolute(settings.task.config, name, settings.values[name])
            for name in settings.task.own
            if settings.values.get(name) is not None
        }
        for settings in resolved.tasks.values()
    }
    return resolved, sections


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read the settings {path}: {error}") from None


def _sort_weights(given: Sequence[str]) -> tuple[dict[str, str], dict[str, float]]:
    """Return the initial weights of each backbone, and the width multipliers that follow from weights files."""
    weights, alphas = dict.fromkeys(TRAINED_BACKBONES, "none"), {}
    for each in given:
        name, _, source = each.partition("=")
        if name not in weights:
            name, source = "", each
        if not name or source not in ("imagenet", "none"):
            path = fetch_file(source).resolve()
            name, alpha = identify_weights(path)
            if name not in weights:
                raise ConfigError(
                    f"{path} holds weights of {name}, but the pipeline trains {' and '.join(weights)}; "
                    "train it with `sat_xception train --backbone`"
                )
            source = str(path)
            if get_backbone(name).has_alpha:
                alphas[name] = alpha
        weights[name] = source
    return weights, alphas


def _is_path(config: type[StepConfig], name: str) -> bool:
    field = config.model_fields[name]
    return Path in (field.annotation, *get_args(field.annotation)) or _kind(config, name) != "local"


def _kind(config: type[StepConfig], name: str) -> str:
    """Return the kind of a path; see `Stored`. "local" is a path that is never in a bucket, or no path."""
    if name in _ADDRESSES:
        return "file"
    marks = [mark.kind for mark in config.model_fields[name].metadata if isinstance(mark, Stored)]
    return marks[0] if marks else "local"


def _absolute(config: type[StepConfig], name: str, value: object) -> object:
    """Return a path as an absolute one, for steps in other processes; other values as they are."""
    is_name = (name == "data" and value == SAMPLE) or (name == "weights" and value in ("imagenet", "none"))
    # The model root is shown as it is given, in the command that serves it.
    if is_name or name == "model_root" or not _is_path(config, name):
        return plain(value)
    return [whole_path(str(item)) for item in value] if isinstance(value, list) else whole_path(str(plain(value)))
