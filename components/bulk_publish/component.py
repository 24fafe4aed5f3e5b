"""KFP contract of the bulk publish step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def bulk_publish(
    settings: str,
    scores: str,
    publication: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Make maps of scored tiles: merge candidates into sites, compare them with known sites, write a review page.

    Args:
        settings: Settings of the step that differ from its defaults, as JSON.
        scores: Folder of the run's scores.
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
    run_step("bulk_publish", settings, scores=scores, out=publication.path)
    shutil.copyfile(f"{publication.path}/report.html", report.path)
