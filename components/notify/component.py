"""KFP contract of the notify step, which runs however the pipeline ended."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("notify"), install_kfp_package=False)
def notify(pipeline: str, baseline: str, run: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Say how a run ended: in the log, and to the webhook in $SAT_XCEPTION_WEBHOOK when there is one.

    Args:
        pipeline: Name of the pipeline.
        baseline: Folder with the record of how the run ended; "" for none.
        run: Id of the run.
        status: How it ended, filled in by Kubeflow.
    """
    from sat_xception.steps import run_step

    told = {"state": status.state, "message": status.error_message or ""}
    run_step("notify", pipeline=pipeline, baseline=baseline, run=run, **told)
