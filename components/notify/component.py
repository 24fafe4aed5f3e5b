"""KFP contract of the notify step, which runs whatever the outcome of the pipeline."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("light"), install_kfp_package=False)
def notify(pipeline: str, baseline: str, run: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Report the outcome of a run: in the log, and to the webhook in $SAT_XCEPTION_WEBHOOK if it is set.

    Args:
        pipeline: Name of the pipeline.
        baseline: Folder with the record of the run's outcome; "" means the store of the installation, on a cluster.
        run: Id of the run.
        status: Final status, filled in by Kubeflow.
    """
    from sat_xception.kubeflow.pod import record_folder
    from sat_xception.steps import run_step

    outcome = {"state": status.state, "message": status.error_message or ""}
    run_step("notify", pipeline=pipeline, baseline=baseline or record_folder(), run=run, **outcome)
