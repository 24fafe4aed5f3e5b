"""KFP contract of the gate step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("light"), install_kfp_package=False)
def gate(
    settings: str,
    xception: dsl.Input[dsl.Artifact],
    mobilenetv2: dsl.Input[dsl.Artifact],
    serving: dsl.Input[dsl.Artifact],
    baseline: str,
    run: str,
    decision: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> str:
    """Return the winner's name, or "none" if no model may be deployed.

    Args:
        settings: Settings of the step that differ from its defaults, as JSON.
        xception: Evaluation of Xception.
        mobilenetv2: Evaluation of MobileNetV2.
        serving: Evaluation of the serving model.
        baseline: Folder for the record of a run's outcome if no model may be deployed; "" means the store of the
            installation, on a cluster.
        run: Id of the run.
        decision: The decision, with the value and limit of every check.
        metrics: Main metrics of both models and of the serving model, for comparing runs.
        report: Page that compares both models.
    """
    import shutil

    from sat_xception.kubeflow.pod import record_folder
    from sat_xception.notify.last_run import finish_run
    from sat_xception.steps import reporting_errors, run_step

    candidates = [xception.path, mobilenetv2.path]
    result = run_step("gate", settings, evaluations=candidates, serving=serving.path, out=decision.path)
    shutil.copyfile(f"{decision.path}/report.html", report.path)
    metrics.metadata.update(result.main_figures())
    if result.to_deploy == "none":
        with reporting_errors("gate"):
            finish_run(baseline, run, result.decision.reason, record_folder())
    return str(result.to_deploy)
