"""KFP contract of the bulk plan step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("score"), install_kfp_package=False)
def bulk_plan(
    settings: str,
    parts: int,
    plan: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
) -> list[str]:
    """Plan which tiles of an area are scored; skip those that the same model has scored on the same imagery.

    Args:
        settings: Settings of the step that differ from its defaults, as JSON.
        parts: Number of scoring tasks that run in parallel.
        plan: The plan.
        summary: Table of the number of tiles, time, bytes and cost.

    Returns:
        The parts, "1/4" and so on; at most as many as shards.
    """
    import pathlib

    from sat_xception.steps import run_step

    result = run_step("bulk_plan", settings, out=plan.path)
    pathlib.Path(summary.path).write_text(result.markdown(), encoding="utf-8")
    plan.metadata.update({"planned": result.plan.planned, "shards": result.plan.shards})
    return list(result.parts(parts))
