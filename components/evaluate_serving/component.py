"""KFP contract of the evaluate step for the serving model."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("evaluate"), install_kfp_package=False)
def evaluate_serving(
    examples: dsl.Input[dsl.Dataset],
    name: str,
    model_root: str,
    endpoint: str,
    goal: str,
    batch_size: int,
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Score the validation split with the serving model, if there is one.

    Args:
        examples: Examples of the convert step.
        name: Name of the served model.
        model_root: Folder or gs:// address that the endpoint's server watches.
        endpoint: Address of the server; "" scores the newest version of the model root.
        goal: How the decision threshold of the positive class is chosen.
        batch_size: Tiles per batch.
        evaluation: All metrics, and the prediction of each tile; or the record that nothing is serving.
        report: Page with the metrics and the most confident mistakes.
    """
    import shutil

    from sat_xception.steps import run_step

    what = {"name": name, "model_root": model_root, "endpoint": endpoint}
    run_step("evaluate", **what, examples=examples.path, out=evaluation.path, goal=goal, batch_size=batch_size)
    shutil.copyfile(f"{evaluation.path}/report.html", report.path)
