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
    """Deploy a packaged model, and verify with its golden tiles that the endpoint serves it.

    Args:
        served_model: Model root of the package step.
        target: "local", a model root that a server watches; "kserve"; or "none", which only checks the package.
        name: Name of the served model.
        model_root: Model root of the endpoint.
        endpoint: Address of the server that watches the model root; "" starts a temporary one for the check. On a
            cluster, the address that users call.
        endpoint_host: Host header for `endpoint`; "" for its own host.
        namespace: Namespace of the endpoint on the cluster.
        storage_uri: The model root as the cluster's pods address it; "" if that is model_root itself.
        strategy: How traffic is split: "auto", "two-services" or "canary".
        traffic_steps: Successive percentages of the traffic for the new version.
        step_minutes: Minutes that each traffic percentage is observed.
        start_minutes: Timeout for new pods to become ready, in minutes.
        min_agreement: Minimum fraction of tiles that get the same class from the old and new version; 0 disables the
            check.
        max_slowdown: Maximum ratio of the new version's 95th-percentile latency to the old one's; 0 disables the check.
        baseline: Folder for the record of the run's outcome; "" means none.
        run: Id of the run.
        deployment: The deployment record.
        summary: The version, its address, and how to send it a request.
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
    deployment.metadata.update({"name": name, "version": str(result.record.version)})
