"""KFP contract of the deploy step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("deploy"), install_kfp_package=False)
def deploy(
    served_model: dsl.Input[dsl.Model],
    name: str,
    model_root: str,
    endpoint: str,
    baseline: str,
    content: str,
    run: str,
    deployment: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """Put a packaged model where it answers, and prove with its golden tiles that it is the one that does.

    Args:
        served_model: Model root of the package step.
        name: Name the model is served as.
        model_root: Model root of the endpoint.
        endpoint: Address of the server that follows the model root; "" starts one for the proof.
        baseline: Folder of the baseline, which is told that the run has finished; "" when there is none.
        content: What the run is made of, as assemble says.
        run: What Kubeflow calls the run.
        deployment: The deployment record.
        summary: The version, where it answers, and how to ask it.
    """
    import pathlib

    from sat_xception.deploy.report import deployment_markdown
    from sat_xception.last_run import finish_run
    from sat_xception.steps import run_step, telling_why

    places = {"package": served_model.path, "model_root": model_root, "endpoint": endpoint, "out": deployment.path}
    result = run_step("deploy", name=name, **places)
    pathlib.Path(summary.path).write_text(deployment_markdown(result.record), encoding="utf-8")
    with telling_why("deploy"):
        finish_run(baseline, content, run, result.outcome())
    deployment.metadata.update({"name": name, "version": str(result.record["version"])})
