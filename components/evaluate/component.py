"""KFP contract of the evaluate step for a trained model."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("evaluate"), install_kfp_package=False)
def evaluate(
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    goal: str,
    batch_size: int,
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Score the validation split with a trained model.

    Args:
        examples: Examples of the convert step.
        model: Model of the train step.
        goal: How the decision threshold of the positive class is chosen.
        batch_size: Tiles per batch.
        evaluation: All metrics, and the prediction of each tile.
        report: Page with the metrics and the most confident mistakes.
    """
    import shutil

    from sat_xception.steps import run_step

    how = {"goal": goal, "batch_size": batch_size}
    run_step("evaluate", model=model.path, examples=examples.path, out=evaluation.path, **how)
    shutil.copyfile(f"{evaluation.path}/report.html", report.path)
