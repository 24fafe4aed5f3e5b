"""KFP contract of the deploy step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("light"), install_kfp_package=False)
def deploy(
    settings: str,
    served_model: dsl.Input[dsl.Model],
    reason: str,
    baseline: str,
    run: str,
    deployment: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """Deploy a packaged model, and verify with its golden tiles that the endpoint serves it.

    Args:
        settings: Settings of the step that differ from its defaults, as JSON.
        served_model: Model root of the package step.
        reason: Why the model is only packaged, if the cluster can't serve it; "" otherwise.
        baseline: Folder for the record of the run's outcome; "" means the store of the installation, on a cluster.
        run: Id of the run.
        deployment: The deployment record.
        summary: The version, its address, and how to send it a request.
    """
    import pathlib

    from sat_xception.kubeflow.pod import record_folder
    from sat_xception.notify.last_run import finish_run
    from sat_xception.steps import reporting_errors, run_step

    result = run_step("deploy", settings, package=served_model.path, out=deployment.path, reason=reason)
    pathlib.Path(summary.path).write_text(result.markdown(), encoding="utf-8")
    with reporting_errors("deploy"):
        finish_run(baseline, run, result.outcome(), record_folder())
    deployment.metadata.update({"name": result.record.name, "version": str(result.record.version)})
