"""KFP contract of the bulk plan step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("bulk_plan"), install_kfp_package=False)
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
    """Plan which tiles of an area are scored, without those that the same model has scored on the same imagery.

    Args:
        area: File of polygons, or of places with buffer_m; "" when bbox or tiles says where.
        area_layer: Layers of it to read.
        bbox: West, south, east and north in degrees, with commas.
        tiles: File of a list of tiles.
        zoom: Zoom of the tiles.
        buffer_m: How far around the places of the area it reaches, in metres.
        imagery: Where the tiles' images come from, as for assemble.
        imagery_attribution: Whom the imagery's licence wants named.
        imagery_bands: Bands of a GeoTIFF that are red, green and blue.
        imagery_contact: Who asks, for servers that want to know.
        imagery_scale: Values of a GeoTIFF that are black and white.
        imagery_token_env: Environment variable with the imagery's token.
        imagery_tms: Whether rows are counted from the south.
        tile_size: Width and height that a tile must have, in pixels; 0 is any.
        rate_per_s: Most requests a second to the imagery; 0 is no limit.
        workers: Tiles in flight at once.
        model: Model root.
        name: Name the model is served as.
        engine: What is going to run the model, and is measured here.
        scored_under: Folder of the scores of all runs.
        shard_tiles: Tiles a shard.
        parts: Tasks that score side by side.
        plan: The plan.
        summary: Number of tiles, time, bytes and money, as a table.

    Returns:
        The parts, "1/4" and so on; never more than there are shards.
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
    plan.metadata.update({"planned": result.facts["planned"], "shards": result.facts["shards"]})
    return list(result.parts(parts))
