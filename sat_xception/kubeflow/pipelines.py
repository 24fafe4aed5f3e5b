"""The settings of each pipeline, by its name."""

from __future__ import annotations

from collections.abc import Mapping

from sat_xception.kubeflow.bulk_settings import BULK
from sat_xception.kubeflow.pipeline_settings import PipelineSettings
from sat_xception.kubeflow.training_settings import TRAINING

__all__ = ["PIPELINES", "moved_setting"]

# By the name on the command line.
PIPELINES: Mapping[str, PipelineSettings] = {"training": TRAINING, "bulk": BULK}


def moved_setting(pipeline: str, parameter: str) -> str:
    """Return the address in `settings` of a parameter that earlier versions had.

    Args:
        pipeline: Name of the pipeline in Kubeflow.
        parameter: Name of the parameter.

    Returns:
        The address, as `section.setting`; "" if there is none.
    """
    known = next((settings for settings in PIPELINES.values() if settings.name == pipeline), None)
    return known.moved(parameter) if known else ""
