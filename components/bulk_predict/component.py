"""KFP contract of the bulk predict step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("score"), install_kfp_package=False)
def bulk_predict(
    settings: dsl.Input[dsl.Artifact],
    plan: dsl.Input[dsl.Artifact],
    part: str,
    after: list[str],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Score a part of a plan's tiles, or all that are left; the last task closes the ledger: planned = scored + failed.

    Args:
        settings: Settings of the step that differ from its defaults, as JSON: `model` is the model root, and `out` the
            folder of the scores of all runs.
        plan: Plan of the bulk plan step.
        part: "2/4" is the second of four; "" scores all tiles that are not scored yet, and closes the ledger.
        after: Outputs of the preceding tasks; only for the order.
        summary: Counts of scored and failed tiles.

    Returns:
        Folder of this run's scores.
    """
    import json
    import pathlib

    from sat_xception.bulk.plan_file import read_plan
    from sat_xception.steps import run_step

    planned, text = read_plan(pathlib.Path(plan.path)), pathlib.Path(settings.path).read_text(encoding="utf-8")
    given = json.loads(text)
    out = planned.scores_under(given["out"])
    model = planned.model_under(given["model"])
    result = run_step("bulk_predict", text, plan=plan.path, part=part, model=model, out=out)
    pathlib.Path(summary.path).write_text(result.markdown(), encoding="utf-8")
    return out
