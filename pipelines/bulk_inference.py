"""The bulk pipeline: from an area to a map of candidates and a page to review them.

    check -> plan -> predict part 1/n -> predict the rest, close the ledger -> publish
                  -> predict part 2/n ->
                  -> ...              ->

On a schedule, each run scores the tiles that the same model hasn't scored yet on the same imagery: new tiles, all tiles
for a new model, none if nothing is new. Notify always runs at the end. `kfp dsl compile --py
pipelines/bulk_inference.py` works.
"""

from kfp import dsl

from components.bulk_check.component import bulk_check
from components.bulk_plan.component import bulk_plan
from components.bulk_predict.component import bulk_predict
from components.bulk_publish.component import bulk_publish
from components.notify.component import notify
from pipelines.resources import (
    DATA,
    SCORING,
    SMALL,
    add_imagery_token,
    add_webhook,
    configure,
    disable_caching,
    mount_endpoint_token,
    mount_storage_key,
    mount_volumes,
    retention,
    retry,
)
from sat_xception.kubeflow.volumes import find_volumes

__all__ = ["PIPELINE_NAME", "VOLUMES", "bulk_inference"]

PIPELINE_NAME = "tile-bulk-inference"
# What the tasks below mount.
VOLUMES = find_volumes()


def _reads(task: dsl.PipelineTask, name: str) -> dsl.PipelineTask:
    """Configure a task that reads imagery, a model and the scores of other runs."""
    return mount_storage_key(add_imagery_token(disable_caching(configure(task, SCORING, name))))


@dsl.pipeline(
    name=PIPELINE_NAME,
    description="Score all tiles of an area and publish the candidates for review.",
    pipeline_config=retention(),
)
def bulk_inference(
    imagery: str,
    model_root: str,
    scores: str,
    area: str = "",
    area_bbox: str = "",
    area_tiles: str = "",
    area_zoom: int = 18,
    model_name: str = "school-classifier",
    publish_areas: str = "",
    publish_known: str = "",
    publish_threshold: float = 0.0,
    scoring_endpoint: str = "",
    scoring_parts: int = 4,
    settings: str = "",
) -> None:
    """Plan, score, publish.

    Args:
        area: Area as polygons, or as points and lines with plan.buffer_m, in any vector format.
        area_bbox: Instead of area: west,south,east,north in degrees; west > east crosses the antimeridian.
        area_tiles: Instead of area: a list of tiles, as .txt with z/x/y lines, .csv or .parquet.
        area_zoom: Zoom of the tiles.
        imagery: Imagery of the tiles: a URL template with {z}, {x}, {y}; a folder of z/x/y.jpg files, local or in a
            bucket; local MBTiles; PMTiles or a GeoTIFF, local, at https:// or in a bucket.
        model_name: Name of the served model.
        model_root: Model root, local or in a bucket; the version that is newest at the start is used for the whole run.
        publish_areas: Polygons, such as provinces, for counts by area.
        publish_known: Known sites; candidates near one are marked as known, the others as new.
        publish_threshold: Decision threshold of candidates; 0 is the model's own.
        scores: Folder, local or in a bucket, of the scores of all runs; each run has a subfolder, and tiles in it are
            not scored again.
        scoring_endpoint: Address of a server that serves the model: grpc:// or http://, host and port. Empty: each task
            runs the model itself.
        scoring_parts: Number of scoring tasks that run in parallel.
        settings: Further settings of the steps, as YAML: a section per step; `sat_xception settings bulk` lists them.
    """
    ending = configure(
        notify(pipeline=PIPELINE_NAME, baseline="", run=dsl.PIPELINE_JOB_ID_PLACEHOLDER), SMALL, "Notify"
    )
    with dsl.ExitHandler(add_webhook(disable_caching(ending)), name="run"):
        checked = bulk_check(
            area=area,
            area_bbox=area_bbox,
            area_tiles=area_tiles,
            area_zoom=area_zoom,
            imagery=imagery,
            model_name=model_name,
            model_root=model_root,
            publish_areas=publish_areas,
            publish_known=publish_known,
            publish_threshold=publish_threshold,
            scores=scores,
            scoring_endpoint=scoring_endpoint,
            scoring_parts=scoring_parts,
            settings=settings,
        )
        # Not cached: whether a folder is a mounted one is seen by no input.
        settings_of = mount_volumes(disable_caching(configure(checked, SMALL, "Check settings"))).outputs
        planned = bulk_plan(settings=settings_of["plan"], parts=scoring_parts)
        _reads(planned, "Plan tiles")
        plan = planned.outputs["plan"]
        with dsl.ParallelFor(planned.outputs["Output"], name="parts") as part:
            scored = bulk_predict(settings=settings_of["predict"], plan=plan, part=part, after=[])
            retry(mount_endpoint_token(_reads(scored, "Score tiles")), SCORING, pause_s=60)
        # Scores what the parts left over, usually nothing, and checks that no tile is lost.
        parts = dsl.Collected(scored.outputs["Output"])
        closed = bulk_predict(settings=settings_of["predict"], plan=plan, part="", after=parts)
        retry(mount_endpoint_token(_reads(closed, "Close the ledger")), SCORING, pause_s=60)
        published = bulk_publish(settings=settings_of["publish"], scores=closed.outputs["Output"])
        mount_storage_key(
            add_imagery_token(disable_caching(configure(published, DATA, "Publish and make the review page")))
        )
