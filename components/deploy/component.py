"""KFP contract of the deploy step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("deploy"), install_kfp_package=False)
def deploy(
    served_model: dsl.Input[dsl.Model],
    target: str,
    name: str,
    model_root: str,
    endpoint: str,
    endpoint_host: str,
    namespace: str,
    storage_uri: str,
    strategy: str,
    traffic_steps: list[int],
    step_minutes: float,
    start_minutes: float,
    min_agreement: float,
    max_slowdown: float,
    baseline: str,
    run: str,
    deployment: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """Put a packaged model where it answers, and prove with its golden tiles that it is the one that does.

    Args:
        served_model: Model root of the package step.
        target: "local", a model root that a server follows; "kserve"; or "none", which leaves the package where it is.
        name: Name the model is served as.
        model_root: Model root of the endpoint.
        endpoint: Address of the server that follows the model root; "" starts one for the proof. On a cluster the
            address that users use.
        endpoint_host: Host header for it; "" for its own.
        namespace: Namespace of the endpoint on the cluster.
        storage_uri: The model root as the cluster's pods name it; "" when it is model_root itself.
        strategy: How traffic is split: "auto", "two-services" or "canary".
        traffic_steps: Shares of the traffic, in %, that the new version gets in turn.
        step_minutes: How long each share is watched.
        start_minutes: How long new pods may take to be ready.
        min_agreement: Least share of tiles that old and new give the same class.
        max_slowdown: How many times slower than the old the new may be; 0: any.
        baseline: Folder that records how the run ended; "" for none.
        run: Id of the run.
        deployment: The deployment record.
        summary: The version, where it answers, and how to ask it.
    """
    import pathlib

    from sat_xception.notify.last_run import finish_run
    from sat_xception.steps import reporting_errors, run_step

    where = {"target": target, "name": name, "model_root": model_root, "endpoint": endpoint, "namespace": namespace}
    limits = {"min_agreement": min_agreement, "max_slowdown": max_slowdown, "start_minutes": start_minutes}
    traffic = {"strategy": strategy, "traffic_steps": traffic_steps, "step_minutes": step_minutes, **limits}
    where |= {"endpoint_host": endpoint_host, "storage_uri": storage_uri}
    result = run_step("deploy", package=served_model.path, out=deployment.path, **where, **traffic)
    pathlib.Path(summary.path).write_text(result.markdown(), encoding="utf-8")
    with reporting_errors("deploy"):
        finish_run(baseline, run, result.outcome())
    deployment.metadata.update({"name": name, "version": str(result.record["version"])})
