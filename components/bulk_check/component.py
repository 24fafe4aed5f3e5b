"""KFP contract of the first task of the bulk pipeline: check all settings."""

from typing import NamedTuple

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def bulk_check(
    area: str,
    area_bbox: str,
    area_tiles: str,
    area_zoom: int,
    imagery: str,
    model_name: str,
    model_root: str,
    publish_areas: str,
    publish_known: str,
    publish_threshold: float,
    scores: str,
    scoring_endpoint: str,
    scoring_parts: int,
    settings: str,
    predict: dsl.Output[dsl.Artifact],
) -> NamedTuple("Outputs", [("plan", str), ("publish", str)]):  # type: ignore[valid-type]
    """Check every setting of every step.

    Args:
        area: Sets plan.area.
        area_bbox: Sets plan.bbox.
        area_tiles: Sets plan.tiles.
        area_zoom: Sets plan.zoom.
        imagery: Sets imagery.imagery.
        model_name: Name of the served model, for plan and predict.
        model_root: Model root, for plan and predict.
        publish_areas: Sets publish.areas.
        publish_known: Sets publish.known.
        publish_threshold: Sets publish.threshold.
        scores: Folder of the scores of all runs, for plan and predict.
        scoring_endpoint: Sets predict.endpoint.
        scoring_parts: Checked; for plan.
        settings: Further settings, as YAML.
        predict: Settings of predict. Not a parameter: kfp's local runner would replace it by the loop's item.

    Returns:
        The settings of the other tasks.
    """
    parameters = dict(locals())  # before there is anything else in it

    import pathlib

    from sat_xception.kubeflow.bulk_settings import BULK
    from sat_xception.steps import reporting_errors

    with reporting_errors("bulk_check"):
        texts = BULK.check(parameters)
    pathlib.Path(predict.path).write_text(texts["predict"], encoding="utf-8")
    return texts["plan"], texts["publish"]
