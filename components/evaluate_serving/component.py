"""KFP contract of the evaluate step for the serving model."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("score"), install_kfp_package=False)
def evaluate_serving(
    settings: str,
    examples: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Score the validation split with the serving model, if there is one.

    Args:
        settings: Settings of the step that differ from its defaults, as JSON.
        examples: Examples of the convert step.
        evaluation: All metrics, and the prediction of each tile; or the record that nothing is serving.
        report: Page with the metrics and the most confident mistakes.
    """
    import shutil

    from sat_xception.steps import run_step

    run_step("evaluate", settings, examples=examples.path, out=evaluation.path)
    shutil.copyfile(f"{evaluation.path}/report.html", report.path)
