"""KFP contract of the evaluate step."""

from typing import Optional

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("evaluate"), install_kfp_package=False)
def evaluate(
    examples: dsl.Input[dsl.Dataset],
    goal: str,
    batch_size: int,
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    model: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045 - kfp reads the annotation
    model_root: str = "",
    endpoint: str = "",
    name: str = "school-classifier",
) -> None:
    """Score the validation split with a trained model, or with what is serving: figures, intervals, calibration.

    Args:
        examples: Examples of the convert step.
        goal: What the threshold of the class that is looked for is chosen for.
        batch_size: Tiles a step.
        evaluation: Every figure, and the prediction of each tile.
        metrics: The main figures; none when nothing is serving.
        classification: Confusion matrix; of two classes, the ROC curve too.
        report: Page with the figures and the most confident mistakes.
        model: Model of the train step; without one, what is serving is scored.
        model_root: Folder that the endpoint's server follows.
        endpoint: Address of the server; "" scores the newest version of the model root.
        name: Name the model is served as.
    """
    import shutil

    from sat_xception.steps import run_step

    what = {"model_root": model_root, "endpoint": endpoint, "name": name} if model is None else {"model": model.path}
    how = {"goal": goal, "batch_size": batch_size}
    result = run_step("evaluate", **what, **how, examples=examples.path, out=evaluation.path)
    shutil.copyfile(f"{evaluation.path}/report.html", report.path)
    for figure, value in result.main_figures().items():
        metrics.log_metric(figure, value)
    if result.evaluation["metrics"]:
        classification.log_confusion_matrix(*result.confusion())
    if curve := result.roc_curve():
        classification.log_roc_curve(*curve)
