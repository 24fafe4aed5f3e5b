"""KFP contract of the gate step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("gate"), install_kfp_package=False)
def gate(
    xception: dsl.Input[dsl.Artifact],
    mobilenetv2: dsl.Input[dsl.Artifact],
    serving: dsl.Input[dsl.Artifact],
    min_accuracy: float,
    min_gain: float,
    min_recall: float,
    min_precision: float,
    min_slice_accuracy: float,
    min_slice_recall: float,
    min_slice_tiles: int,
    max_calibration_error: float,
    max_loss: float,
    baseline: str,
    run: str,
    decision: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> str:
    """Return the winner's name, or "none" if no model may be deployed.

    Args:
        xception: Evaluation of Xception.
        mobilenetv2: Evaluation of MobileNetV2.
        serving: Evaluation of the serving model.
        min_accuracy: Minimum validation accuracy.
        min_gain: Limit that the accuracy gain over always predicting the most frequent class must exceed, even at its
            lower confidence bound; -1 disables the check.
        min_recall: Minimum recall of the positive class.
        min_precision: Minimum precision of the positive class.
        min_slice_accuracy: Minimum accuracy in each slice; 0 disables the check.
        min_slice_recall: Minimum recall of the positive class in each slice; 0 disables the check.
        min_slice_tiles: Minimum number of tiles for a slice to be checked.
        max_calibration_error: Maximum expected calibration error, after calibration.
        max_loss: Maximum loss of accuracy against the serving model; 1 disables the check.
        baseline: Folder for the record of a run's outcome if no model may be deployed; "" means none.
        run: Id of the run.
        decision: The decision, with the value and limit of every check.
        metrics: Main metrics of both models and of the serving model, for comparing runs.
        report: Page that compares both models.
    """
    import shutil

    from sat_xception.notify.last_run import finish_run
    from sat_xception.steps import reporting_errors, run_step

    how = {"min_accuracy": min_accuracy, "min_recall": min_recall, "min_precision": min_precision, "max_loss": max_loss}
    how |= {"min_gain": min_gain, "min_slice_accuracy": min_slice_accuracy, "min_slice_recall": min_slice_recall}
    how |= {"min_slice_tiles": min_slice_tiles, "max_calibration_error": max_calibration_error, "serving": serving.path}
    result = run_step("gate", evaluations=[xception.path, mobilenetv2.path], out=decision.path, **how)
    shutil.copyfile(f"{decision.path}/report.html", report.path)
    metrics.metadata.update(result.main_figures())
    if result.to_deploy == "none":
        with reporting_errors("gate"):
            finish_run(baseline, run, result.decision.reason)
    return str(result.to_deploy)
