"""Settings of the bulk pipeline: its parameters, and the sections of its `settings`."""

from __future__ import annotations

from pydantic import Field

from sat_xception.bulk.settings import BulkPlanConfig, BulkPredictConfig
from sat_xception.imagery.settings import ImagerySettings
from sat_xception.kubeflow.claims import find_volume_problems, warn_of_claims
from sat_xception.kubeflow.pipeline_settings import Headline, PipelineSettings, Resolved
from sat_xception.kubeflow.pod import find_lost, find_unmounted, in_pod
from sat_xception.kubeflow.task_settings import Task
from sat_xception.kubeflow.volumes import mounted_path
from sat_xception.publish.settings import PublishConfig
from sat_xception.settings.config import StepConfig, setting_of
from sat_xception.settings.types import Place

__all__ = ["BULK", "BulkParameters"]


class BulkParameters(StepConfig):
    """Parameters that the pipeline uses itself: the model, the scores of all runs, and the number of scoring tasks."""

    model_name: str = setting_of(BulkPlanConfig, "name")
    model_root: Place = Field(
        description="Model root, local or in a bucket; the version that is newest at the start is used for the whole "
        "run."
    )
    scores: Place = Field(
        description="Folder, local or in a bucket, of the scores of all runs; each run has a subfolder, and tiles in "
        "it are not scored again."
    )
    scoring_parts: int = Field(4, gt=0, le=1000, description="Number of scoring tasks that run in parallel.")


def _of_imagery(config: type[StepConfig]) -> dict[str, str]:
    """Return the settings of imagery that a class has, which all tasks share."""
    return {name: f"imagery.{name}" for name in ImagerySettings.model_fields if name in config.model_fields}


_MODEL = {"model": "model_root", "name": "model_name"}
_TASKS = {
    # No task of the pipeline: the settings that the tasks below take from here.
    "imagery": Task(ImagerySettings, ("imagery",)),
    "plan": Task(
        BulkPlanConfig,
        ("plan",),
        inputs=("out",),
        # The speed of the engine that scores is measured.
        taken={**_of_imagery(BulkPlanConfig), **_MODEL, "scored_under": "scores", "engine": "predict.engine"},
    ),
    "predict": Task(
        BulkPredictConfig,
        ("predict",),
        inputs=("plan",),
        fixed={"part": ""},
        taken={**_of_imagery(BulkPredictConfig), **_MODEL, "out": "scores"},
    ),
    "publish": Task(PublishConfig, ("publish",), inputs=("scores", "out"), taken=_of_imagery(PublishConfig)),
}
_HEADLINES = {
    "area": Headline(("plan.area",)),
    "area_bbox": Headline(("plan.bbox",)),
    "area_tiles": Headline(("plan.tiles",)),
    "area_zoom": Headline(("plan.zoom",), help="Zoom of the tiles."),
    "imagery": Headline(("imagery.imagery",)),
    "publish_areas": Headline(("publish.areas",)),
    "publish_known": Headline(("publish.known",)),
    "publish_threshold": Headline(
        ("publish.threshold",), 0.0, "Decision threshold of candidates; 0 is the model's own."
    ),
    "scoring_endpoint": Headline(
        ("predict.endpoint",),
        help="Address of a server that serves the model: grpc:// or http://, host and port. Empty: each task runs the "
        "model itself.",
    ),
}


def _adjust(resolved: Resolved) -> None:
    _use_the_models_threshold(resolved)
    _use_mounted_model_root(resolved)


def _use_mounted_model_root(resolved: Resolved) -> None:
    """Read a model root that is given as KServe addresses it, pvc://, through its mount."""
    if mounted := mounted_path(str(resolved.parameters.get("model_root", ""))):
        resolved.parameters["model_root"] = mounted
        for name in ("plan", "predict"):
            resolved.tasks[name].values["model"] = mounted


def _use_the_models_threshold(resolved: Resolved) -> None:
    publish = resolved.tasks["publish"]
    if publish.get("threshold") in (0, ""):
        publish.values["threshold"] = None


def _find_problems(resolved: Resolved) -> list[str]:
    scores, root = (str(resolved.parameters.get(name, "")) for name in ("scores", "model_root"))
    unmounted = find_unmounted({"model_root": root})
    if not in_pod():
        return unmounted
    # On a cluster each task has its own pod, and so its own disk.
    warn_of_claims()
    return unmounted + find_volume_problems() + find_lost({"scores": scores}, read={"model_root": root})


BULK = PipelineSettings(
    name="tile-bulk-inference",
    tasks=_TASKS,
    headlines=_HEADLINES,
    parameters=BulkParameters,
    adjust=_adjust,
    find_problems=_find_problems,
    moved_from={"area": ("plan",), "scoring": ("predict", "plan")},
    renamed={
        "area_layer": "plan.area_layer",
        **{name: f"imagery.{name}" for name in ImagerySettings.model_fields if name.startswith("imagery_")},
    },
    command="sat_xception settings bulk",
)
