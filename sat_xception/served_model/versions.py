"""Manage a model root, in a folder or in a bucket: list versions, show one, remove old ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sat_xception.errors import ConfigError, DataError
from sat_xception.served_model.model_root import known_versions, remove_version
from sat_xception.served_model.packaged_model import PackagedModel
from sat_xception.served_model.settings import ListModelsConfig, RemoveModelsConfig, ShowModelConfig
from sat_xception.storage import read_stored_bytes
from sat_xception.storage.files import dump_json

__all__ = ["Report", "find_version", "list_models", "remove_models", "show_model"]

_SCORED = ("valid", "test")
_COLUMNS = ("version", "backbone", *_SCORED, "tiles", "data")


@dataclass(frozen=True)
class Report:
    """Text of a verb.

    Attributes:
        text: Lines for stdout.
    """

    text: str

    def summary(self) -> str:
        """Return the text."""
        return self.text


def list_models(config: ListModelsConfig) -> Report:
    """List a model's versions, the newest first, with backbone, accuracies, training tiles and data.

    Raises:
        ConfigError: There is no version.
        DataError: A version's `model.json` is damaged.
        ServiceError: The bucket can't be read.

    Example:
        print(list_models(ListModelsConfig(model_root="models/serving")).summary())
    """
    found = {path: PackagedModel.read(path) for path in reversed(_versions(config).values())}
    if config.as_json:
        rows = [{"place": str(path), **model.content()} for path, model in found.items()]
        return Report(dump_json(rows, indent=2, ensure_ascii=False))
    cells = [_COLUMNS, *map(_cells, found.values())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return Report("\n".join(lines))


def show_model(config: ShowModelConfig) -> Report:
    """Show a version's model card, or with `as_json` its `model.json`.

    Raises:
        ConfigError: There is no such version.
        DataError: The file is missing.
        ServiceError: The bucket can't be read.
    """
    name = PackagedModel.file_name if config.as_json else "MODEL_CARD.md"
    path = find_version(config) / name
    content = read_stored_bytes(path)
    if content is None:
        raise DataError(f"{path} is missing; package the model again")
    return Report(content.decode().rstrip())


def remove_models(config: RemoveModelsConfig) -> Report:
    """Remove all but the newest versions; with `dry_run` only list them.

    Raises:
        ConfigError: There is no version, or one can't be removed.
        ServiceError: The bucket can't be read or written.
    """
    versions = _versions(config)
    old = list(versions.values())[: -config.keep]
    if not config.dry_run:
        for path in old:
            remove_version(path)
    done = "would be removed" if config.dry_run else "removed"
    lines = [f"{'would go' if config.dry_run else 'removed'}  {path}" for path in old]
    lines.append(f"versions  {len(versions)} were there | {len(old)} {done}  {len(versions) - len(old)} kept")
    return Report("\n".join(lines))


def _versions(config: ListModelsConfig | RemoveModelsConfig | ShowModelConfig) -> dict[int, Path]:
    folder = config.model_root / config.name
    versions = known_versions(folder)
    if not versions:
        raise ConfigError(f"no version of {config.name!r} at {folder}; name another --model-root or --name")
    return versions


def find_version(config: ShowModelConfig) -> Path:
    """Return the folder of a version. Default: the newest one.

    Raises:
        ConfigError: There is no such version.
        ServiceError: The bucket can't be read.
    """
    versions = _versions(config)
    number = config.version or max(versions)
    if number not in versions:
        known = ", ".join(map(str, versions))
        raise ConfigError(f"no version {number} of {config.name!r} in {config.model_root}; there are {known}")
    return versions[number]


def _cells(model: PackagedModel) -> tuple[str, ...]:
    accuracies = [f"{model.metrics[split].accuracy:.4f}" if split in model.metrics else "-" for split in _SCORED]
    tiles = f"{model.tiles.get('train', 0):,}"
    return (str(model.version), model.backbone, *accuracies, tiles, model.dataset_digest[:12])
