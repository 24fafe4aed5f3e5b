"""KFP contract of the evaluate step for a trained model."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("score"), install_kfp_package=False)
def evaluate(
    settings: str,
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Score the validation split with a trained model.

    Args:
        settings: Settings of the step that differ from its defaults, as JSON.
        examples: Examples of the convert step.
        model: Model of the train step.
        evaluation: All metrics, and the prediction of each tile.
        report: Page with the metrics and the most confident mistakes.
    """
    import shutil

    from sat_xception.steps import run_step

    run_step("evaluate", settings, model=model.path, examples=examples.path, out=evaluation.path)
    shutil.copyfile(f"{evaluation.path}/report.html", report.path)
