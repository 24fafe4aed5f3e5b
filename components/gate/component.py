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
    """Return the winner's name, or "none" when nothing may be deployed.

    Args:
        xception: Evaluation of Xception.
        mobilenetv2: Evaluation of MobileNetV2.
        serving: Evaluation of what is serving now.
        min_accuracy: Lowest validation accuracy.
        min_gain: What the accuracy gained on the most frequent class must surely be above; -1 doesn't compare.
        min_recall: Lowest recall of the positive class.
        min_precision: Lowest precision of the positive class.
        min_slice_accuracy: Lowest accuracy in each slice; 0 asks for none.
        min_slice_recall: Lowest recall of the positive class in each slice; 0 asks for none.
        min_slice_tiles: Tiles that a slice must have to be judged.
        max_calibration_error: Largest expected calibration error, once calibrated.
        max_loss: How much less accurate than what is serving a model may be; 1 doesn't compare.
        baseline: Folder that records how a run without a model to deploy ended; "" for none.
        run: Id of the run.
        decision: The decision with every check's figure and limit.
        metrics: Main figures of both models and of what is serving, to compare runs by.
        report: Page with both models side by side.
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
            finish_run(baseline, run, result.decision["reason"])
    return str(result.to_deploy)
