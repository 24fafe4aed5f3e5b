"""Access to the definitions of the pipelines and of their images, in a checkout of the project.

They aren't part of the installed package: a cluster gets a compiled pipeline. No other module of this package imports
`pipelines` or `components`.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

from sat_xception.errors import ConfigError
from sat_xception.kubeflow.spec import CompiledPipeline, read_pipeline

__all__ = ["compile_pipeline", "image_notes", "local_images", "pipeline_function"]


def pipeline_function(name: str) -> Any:  # noqa: ANN401 - kfp has no types
    """Return the kfp pipeline `training` or `bulk_inference`, with the images set by environment variables.

    Raises:
        ConfigError: This isn't a checkout, or an environment variable has an unsupported value.
    """
    return getattr(_module(f"pipelines.{name}"), name)


def compile_pipeline(name: str) -> CompiledPipeline:
    """Compile the pipeline `training` or `bulk-inference`, with the images set by environment variables.

    Raises:
        ConfigError: This isn't a checkout, or an environment variable has an unsupported value.
    """
    with tempfile.TemporaryDirectory() as folder:
        return read_pipeline(_module("pipelines.compile").compile_spec(name, Path(folder)))


def image_notes() -> list[str]:
    """Return warnings about the training pipeline's images, for `submit`."""
    images = _module("components.images")
    notes = []
    if images.image("light").startswith(f"{images.LOCAL_REGISTRY}/"):
        notes.append(f"{images.image('light')} and the others are in no registry: make push REGISTRY=…")
    if note := images.training_note():
        notes.append(note)
    return notes


def local_images() -> Any:  # noqa: ANN401 - a module
    """Return the module `components.images`, with the reference of each image."""
    return _module("components.images")


def _module(name: str) -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("components", "pipelines"):
            raise
        raise ConfigError(
            "the pipelines' definitions aren't installed with the package: run this in a checkout of sat-xception "
            "(`pip install -e .`), or give a compiled pipeline with --file"
        ) from None
