"""The bulk pipeline: an area in, a map of candidates and a page to review them out.

    plan -> predict part 1/n -> predict the rest, close the ledger -> publish
         -> predict part 2/n ->
         -> ...              ->

Run again, on a schedule, it scores what the same model hasn't scored on the same imagery yet: new places, everything
for a new model, nothing when nothing is new. It ends with notify in any case. `kfp dsl compile --py
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
    """Place a task that reads imagery and a model, and sees what other runs have scored."""
    return mount_storage_key(add_imagery_token(disable_caching(configure(task, SCORING, name))))


@dsl.pipeline(
    name=PIPELINE_NAME,
    description="Score all tiles of an area and publish what was found, for review.",
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
        area: File of polygons, here or at gs://, or of places with area_buffer_m.
        area_bbox: Instead of area: west, south, east and north in degrees, with commas.
        area_buffer_m: How far around the places of the area it reaches, in metres.
        area_layer: Layers of area to read, where the file has several.
        area_tiles: Instead of area: file of a list of tiles, of lines z/x/y or a table with x, y and z.
        area_zoom: Zoom of the tiles, from 0 to 22.
        imagery: Where the tiles' images come from: an address with {z}, {x} and {y}, a folder, an archive, gs://.
        imagery_attribution: Whom the imagery's licence wants named.
        imagery_bands: Bands of a GeoTIFF that are red, green and blue. Empty: as the file says.
        imagery_contact: Who asks, for servers that want to know.
        imagery_rate_per_s: Most requests a second of each scoring task to the imagery; 0 is no limit.
        imagery_scale: Values of a GeoTIFF that are black and white.
        imagery_tile_size: Width and height that a tile must have, in pixels; 0 is any.
        imagery_tms: Whether rows are counted from the south.
        imagery_token_env: Environment variable with the imagery's token, IMAGERY_TOKEN where the Secret
            sat-xception-imagery has it.
        imagery_workers: Tiles in flight at once in each scoring task, from 1 to 256.
        model_name: Name the model is served as.
        model_root: Model root, here or at gs://; the newest version is taken, and no other during the run.
        publish_area_name: Column of publish_areas that holds their names.
        publish_areas: File of polygons, such as provinces, to count by.
        publish_areas_layer: Layers of publish_areas to read, where the file has several.
        publish_known: File of places that are known, to tell known candidates from new ones.
        publish_known_distance_m: Largest distance between a known place and a candidate's nearest tile, in metres.
        publish_known_layer: Layers of publish_known to read, where the file has several.
        publish_most_reviewed: Candidates on the review page, the best ones.
        publish_threshold: From which probability on a tile is a candidate; 0 is the model's own threshold.
        publish_with_tiles: Whether the candidates' tiles are copied beside the review page, so that it works offline.
        scores: Folder, here or at gs://, of the scores of all runs; each has a folder of its own in it.
        scoring_batch_size: Most tiles that are scored at once.
        scoring_endpoint: Address of a server that serves the model: grpc:// or http://, host and port. Empty: each
            task has the model itself.
        scoring_engine: What runs the model in a task: "auto", "tensorflow" or "openvino".
        scoring_in_flight: Requests of each task to the server at once.
        scoring_parts: Tasks that score side by side.
        scoring_shard_tiles: Tiles a shard, which is what a killed task loses at most.
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
        # What a part left, which is nothing where all went well; and the proof that no tile is lost.
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
