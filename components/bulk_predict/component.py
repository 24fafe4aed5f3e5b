"""KFP contract of the bulk predict step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("score"), install_kfp_package=False)
def bulk_predict(
    plan: dsl.Input[dsl.Artifact],
    part: str,
    after: list[str],
    imagery: str,
    rate_per_s: float,
    workers: int,
    model: str,
    name: str,
    endpoint: str,
    in_flight: int,
    engine: str,
    batch_size: int,
    scores: str,
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Score a part of a plan's tiles, or all that are left; the last task closes the ledger: planned = scored + failed.

    Args:
        plan: Plan of the bulk plan step.
        part: "2/4" is the second of four; "" scores all tiles that are not scored yet, and closes the ledger.
        after: Outputs of the preceding tasks; only for the order.
        imagery: The plan's imagery address, with its key if it has one.
        rate_per_s: Maximum requests per second of this task to the imagery; 0 is unlimited.
        workers: Number of tiles fetched concurrently.
        model: Model root.
        name: Name of the served model.
        endpoint: Address of a server that serves the model; "" scores in this task.
        in_flight: Concurrent requests to the server.
        engine: Inference engine of this task: "auto", "tensorflow" or "openvino".
        batch_size: Maximum batch size, in tiles.
        scores: Folder of the scores of all runs; this run has a subfolder.
        summary: Counts of scored and failed tiles.

    Returns:
        Folder of this run's scores.
    """
    import pathlib

    from sat_xception.bulk.plan_file import read_plan
    from sat_xception.steps import run_step

    planned = read_plan(pathlib.Path(plan.path))
    out = planned.scores_under(scores)
    scoring = {"model": planned.model_under(model), "name": name, "engine": engine, "batch_size": batch_size}
    served = {"endpoint": endpoint, "in_flight": in_flight}
    fetching = {"imagery": imagery, "rate_per_s": rate_per_s, "workers": workers}
    result = run_step("bulk_predict", plan=plan.path, part=part, out=out, **scoring, **served, **fetching)
    pathlib.Path(summary.path).write_text(result.markdown(), encoding="utf-8")
    return out
