"""KFP contract of the bulk publish step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def bulk_publish(
    scores: str,
    threshold: float,
    known: str,
    known_layer: list[str],
    known_distance_m: float,
    areas: str,
    areas_layer: list[str],
    area_name: str,
    imagery: str,
    imagery_attribution: str,
    imagery_tms: bool,
    imagery_token_env: str,
    with_tiles: bool,
    most_reviewed: int,
    publication: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Make maps of scored tiles: merge candidates into sites, compare them with known sites, write a review page.

    Args:
        scores: Folder of the run's scores.
        threshold: Decision threshold of candidates; 0 is the model's own.
        known: File of known sites; "" means none.
        known_layer: Layers of `known` to read.
        known_distance_m: Maximum distance between a known site and a candidate's nearest tile, in metres.
        areas: File of polygons for counts by area; "" means none.
        areas_layer: Layers of `areas` to read.
        area_name: Column of `areas` that holds the names.
        imagery: Imagery shown on the review page; "" is the imagery that was scored.
        imagery_attribution: Attribution required by the imagery's licence.
        imagery_tms: Whether the imagery numbers tile rows from the south.
        imagery_token_env: Environment variable with the imagery's token.
        with_tiles: Whether the candidates' tiles are copied beside the review page.
        most_reviewed: Maximum number of candidates on the review page, highest probabilities first.
        publication: GeoParquet, GeoJSON and FlatGeobuf of the candidates, tables, the heat map and the review page.
        report: Page with the results.
    """
    import pathlib
    import shutil

    from sat_xception.bulk.ledger import has_tiles
    from sat_xception.steps import run_step

    if not has_tiles(scores):
        pathlib.Path(report.path).write_text("<p>Nothing new: all tiles are scored already.</p>", encoding="utf-8")
        return
    places = {"known": known, "areas": areas, "area_name": area_name, "known_distance_m": known_distance_m}
    places |= {"known_layer": known_layer, "areas_layer": areas_layer}
    page = {"imagery": imagery, "imagery_token_env": imagery_token_env, "with_tiles": with_tiles}
    page |= {"imagery_attribution": imagery_attribution, "imagery_tms": imagery_tms, "most_reviewed": most_reviewed}
    run_step("bulk_publish", scores=scores, out=publication.path, threshold=threshold or None, **places, **page)
    shutil.copyfile(f"{publication.path}/report.html", report.path)
