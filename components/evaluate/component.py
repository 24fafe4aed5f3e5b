"""KFP contract of the evaluate step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("evaluate"), install_kfp_package=False)
def evaluate(
    model: dsl.Input[dsl.Model],
    examples: dsl.Input[dsl.Dataset],
    batch_size: int,
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Score the validation split: accuracy, precision, recall, F1, areas under curves, calibration, confusion.

    Args:
        model: Model of the train step.
        examples: Examples of the convert step.
        batch_size: Tiles a step.
        evaluation: Every figure, and the prediction of each tile.
        metrics: The main figures.
        classification: Confusion matrix; of two classes, the ROC curve too.
        report: Page with the figures and the most confident mistakes.
    """
    import shutil

    from sat_xception.steps import run_step

    result = run_step("evaluate", model=model.path, examples=examples.path, batch_size=batch_size, out=evaluation.path)
    shutil.copyfile(f"{evaluation.path}/report.html", report.path)
    for name, value in result.main_figures().items():
        metrics.log_metric(name, value)
    classification.log_confusion_matrix(*result.confusion())
    if curve := result.roc_curve():
        classification.log_roc_curve(*curve)
