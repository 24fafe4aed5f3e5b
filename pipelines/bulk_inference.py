"""The bulk pipeline: from an area to a map of candidates and a page to review them.

    plan -> predict part 1/n -> predict the rest, close the ledger -> publish
         -> predict part 2/n ->
         -> ...              ->

On a schedule, each run scores the tiles that the same model hasn't scored yet on the same imagery: new tiles, all tiles
for a new model, none if nothing is new. Notify always runs at the end. `kfp dsl compile --py
pipelines/bulk_inference.py` works.
"""

from kfp import dsl

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
    retention,
    retry,
)

__all__ = ["PIPELINE_NAME", "bulk_inference"]

PIPELINE_NAME = "tile-bulk-inference"


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
    area_buffer_m: float = 0.0,
    area_layer: list[str] = [],  # noqa: B006 - kfp writes the default into the compiled pipeline
    area_tiles: str = "",
    area_zoom: int = 18,
    imagery_attribution: str = "",
    imagery_bands: list[int] = [],  # noqa: B006
    imagery_contact: str = "",
    imagery_rate_per_s: float = 0.0,
    imagery_scale: list[float] = [],  # noqa: B006
    imagery_tile_size: int = 0,
    imagery_tms: bool = False,
    imagery_token_env: str = "",
    imagery_workers: int = 16,
    model_name: str = "school-classifier",
    publish_area_name: str = "name",
    publish_areas: str = "",
    publish_areas_layer: list[str] = [],  # noqa: B006
    publish_known: str = "",
    publish_known_distance_m: float = 100.0,
    publish_known_layer: list[str] = [],  # noqa: B006
    publish_most_reviewed: int = 50_000,
    publish_threshold: float = 0.0,
    publish_with_tiles: bool = False,
    scoring_batch_size: int = 32,
    scoring_endpoint: str = "",
    scoring_engine: str = "auto",
    scoring_in_flight: int = 4,
    scoring_parts: int = 4,
    scoring_shard_tiles: int = 10_000,
) -> None:
    """Plan, score, publish.

    Args:
        area: File of the area, local or at gs://: polygons, or points and lines with area_buffer_m.
        area_bbox: Instead of area: west, south, east and north in degrees, separated by commas.
        area_buffer_m: Buffer around the features of area, in metres.
        area_layer: Layers of area to read, if the file has several.
        area_tiles: Instead of area: file with a list of tiles, as z/x/y lines or as a table with x, y and z.
        area_zoom: Zoom of the tiles, from 0 to 22.
        imagery: Imagery of the tiles: an address with {z}, {x} and {y}, a folder, an archive, or gs://.
        imagery_attribution: Attribution required by the imagery's licence.
        imagery_bands: Red, green and blue band of a GeoTIFF. Empty: as the file defines them.
        imagery_contact: Your e-mail address or web page, sent to the tile server so that its operator can reach you.
        imagery_rate_per_s: Maximum requests per second of each scoring task to the imagery; 0 is unlimited.
        imagery_scale: Pixel values of a GeoTIFF that are mapped to black and white. Empty: 0 and 255.
        imagery_tile_size: Required width and height of a tile, in pixels; 0 is any.
        imagery_tms: Whether the imagery numbers tile rows from the south, as TMS does.
        imagery_token_env: Environment variable with the imagery's token. The Secret sat-xception-imagery sets
            IMAGERY_TOKEN.
        imagery_workers: Number of tiles fetched concurrently in each scoring task, from 1 to 256.
        model_name: Name of the served model.
        model_root: Model root, local or at gs://; the version that is newest at the start is used for the whole run.
        publish_area_name: Column of publish_areas that holds the names.
        publish_areas: File of polygons, such as provinces, for counts by area.
        publish_areas_layer: Layers of publish_areas to read, if the file has several.
        publish_known: File of known sites; candidates near one are marked as known, the others as new.
        publish_known_distance_m: Maximum distance between a known site and a candidate's nearest tile, in metres.
        publish_known_layer: Layers of publish_known to read, if the file has several.
        publish_most_reviewed: Maximum number of candidates on the review page, highest probabilities first.
        publish_threshold: Decision threshold of candidates; 0 is the model's own.
        publish_with_tiles: Whether the candidates' tiles are copied beside the review page, so that it works offline.
        scores: Folder, local or at gs://, of the scores of all runs; each run has a subfolder.
        scoring_batch_size: Maximum batch size, in tiles.
        scoring_endpoint: Address of a server that serves the model: grpc:// or http://, host and port. Empty: each task
            runs the model itself.
        scoring_engine: Inference engine in each task: "auto", "tensorflow" or "openvino".
        scoring_in_flight: Concurrent requests to the server, per task.
        scoring_parts: Number of scoring tasks that run in parallel.
        scoring_shard_tiles: Tiles per shard: the maximum that is lost if a task is killed.
    """
    ending = configure(
        notify(pipeline=PIPELINE_NAME, baseline="", run=dsl.PIPELINE_JOB_ID_PLACEHOLDER), SMALL, "Notify"
    )
    with dsl.ExitHandler(add_webhook(disable_caching(ending)), name="run"):
        planned = bulk_plan(
            area=area,
            area_layer=area_layer,
            bbox=area_bbox,
            tiles=area_tiles,
            zoom=area_zoom,
            buffer_m=area_buffer_m,
            imagery=imagery,
            imagery_attribution=imagery_attribution,
            imagery_bands=imagery_bands,
            imagery_contact=imagery_contact,
            imagery_scale=imagery_scale,
            imagery_token_env=imagery_token_env,
            imagery_tms=imagery_tms,
            tile_size=imagery_tile_size,
            rate_per_s=imagery_rate_per_s,
            workers=imagery_workers,
            model=model_root,
            name=model_name,
            engine=scoring_engine,
            scored_under=scores,
            shard_tiles=scoring_shard_tiles,
            parts=scoring_parts,
        )
        _reads(planned, "Plan tiles")
        scoring = {
            "plan": planned.outputs["plan"],
            "imagery": imagery,
            "rate_per_s": imagery_rate_per_s,
            "workers": imagery_workers,
            "model": model_root,
            "name": model_name,
            "endpoint": scoring_endpoint,
            "in_flight": scoring_in_flight,
            "engine": scoring_engine,
            "batch_size": scoring_batch_size,
            "scores": scores,
        }
        with dsl.ParallelFor(planned.outputs["Output"], name="parts") as part:
            scored = bulk_predict(part=part, after=[], **scoring)
            retry(mount_endpoint_token(_reads(scored, "Score tiles")), SCORING, pause_s=60)
        # Scores what the parts left over, usually nothing, and checks that no tile is lost.
        closed = bulk_predict(part="", after=dsl.Collected(scored.outputs["Output"]), **scoring)
        retry(mount_endpoint_token(_reads(closed, "Close the ledger")), SCORING, pause_s=60)
        published = bulk_publish(
            scores=closed.outputs["Output"],
            threshold=publish_threshold,
            known=publish_known,
            known_layer=publish_known_layer,
            known_distance_m=publish_known_distance_m,
            areas=publish_areas,
            areas_layer=publish_areas_layer,
            area_name=publish_area_name,
            imagery=imagery,
            imagery_attribution=imagery_attribution,
            imagery_tms=imagery_tms,
            imagery_token_env=imagery_token_env,
            with_tiles=publish_with_tiles,
            most_reviewed=publish_most_reviewed,
        )
        mount_storage_key(
            add_imagery_token(disable_caching(configure(published, DATA, "Publish and make the review page")))
        )
