"""KFP contract of the deploy step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("deploy"), install_kfp_package=False)
def deploy(
    served_model: dsl.Input[dsl.Model],
    name: str,
    model_root: str,
    endpoint: str,
    deployment: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """Put a packaged model where it answers, and prove with its golden tiles that it is the one that does.

    Args:
        served_model: Model root of the package step.
        name: Name the model is served as.
        model_root: Model root of the endpoint.
        endpoint: Address of the server that follows the model root; "" starts one for the proof.
        deployment: The deployment record.
        summary: The version, where it answers, and how to ask it.
    """
    import pathlib

    from sat_xception.deploy.report import deployment_markdown
    from sat_xception.steps import run_step

    places = {"package": served_model.path, "model_root": model_root, "endpoint": endpoint, "out": deployment.path}
    result = run_step("deploy", name=name, **places)
    pathlib.Path(summary.path).write_text(deployment_markdown(result.record), encoding="utf-8")
    deployment.metadata.update({"name": name, "version": str(result.record["version"])})
