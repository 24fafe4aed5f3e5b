"""KFP contract of the bulk plan step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("score"), install_kfp_package=False)
def bulk_plan(
    area: str,
    area_layer: list[str],
    bbox: str,
    tiles: str,
    zoom: int,
    buffer_m: float,
    imagery: str,
    imagery_attribution: str,
    imagery_bands: list[int],
    imagery_contact: str,
    imagery_scale: list[float],
    imagery_token_env: str,
    imagery_tms: bool,
    tile_size: int,
    rate_per_s: float,
    workers: int,
    model: str,
    name: str,
    engine: str,
    scored_under: str,
    shard_tiles: int,
    parts: int,
    plan: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
) -> list[str]:
    """Plan which tiles of an area are scored; skip those that the same model has scored on the same imagery.

    Args:
        area: File of the area: polygons, or points and lines with buffer_m; "" if bbox or tiles is given.
        area_layer: Layers of `area` to read.
        bbox: West, south, east and north in degrees, separated by commas.
        tiles: File with a list of tiles.
        zoom: Zoom of the tiles.
        buffer_m: Buffer around the features of the area, in metres.
        imagery: Imagery of the tiles, as for assemble.
        imagery_attribution: Attribution required by the imagery's licence.
        imagery_bands: Red, green and blue band of a GeoTIFF.
        imagery_contact: E-mail address or web page, sent to the tile server.
        imagery_scale: Pixel values of a GeoTIFF that are mapped to black and white.
        imagery_token_env: Environment variable with the imagery's token.
        imagery_tms: Whether the imagery numbers tile rows from the south.
        tile_size: Required width and height of a tile, in pixels; 0 is any.
        rate_per_s: Maximum requests per second of this task to the imagery; 0 is unlimited.
        workers: Number of tiles fetched concurrently.
        model: Model root.
        name: Name of the served model.
        engine: Inference engine of the scoring tasks, whose speed is measured here.
        scored_under: Folder of the scores of all runs.
        shard_tiles: Tiles per shard.
        parts: Number of scoring tasks that run in parallel.
        plan: The plan.
        summary: Table of the number of tiles, time, bytes and cost.

    Returns:
        The parts, "1/4" and so on; at most as many as shards.
    """
    given = dict(locals())

    import pathlib

    from sat_xception.kubeflow.pod import check_kept
    from sat_xception.steps import reporting_errors, run_step

    with reporting_errors("bulk_plan"):
        check_kept({"scores": scored_under, "model_root": model})
    settings = {key: value for key, value in given.items() if key not in ("plan", "summary", "parts")}
    result = run_step("bulk_plan", out=plan.path, **settings)
    pathlib.Path(summary.path).write_text(result.markdown(), encoding="utf-8")
    plan.metadata.update({"planned": result.plan.planned, "shards": result.plan.shards})
    return list(result.parts(parts))
