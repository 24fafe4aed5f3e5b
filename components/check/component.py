"""KFP contract of the first task: check all settings, and find the dataset's source."""

from typing import NamedTuple

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def check(
    data: str,
    data_baseline: str,
    data_imagery: str,
    data_labels: str,
    data_positive_label: str,
    data_seed: int,
    data_store: str,
    data_zoom: int,
    deploy_endpoint: str,
    deploy_model_name: str,
    deploy_model_root: str,
    deploy_namespace: str,
    deploy_strategy: str,
    deploy_target: str,
    gate_max_loss: float,
    gate_min_accuracy: float,
    gate_min_precision: float,
    gate_min_recall: float,
    gpu_count: str,
    gpu_node_selector: dict[str, str],
    gpu_tolerations: list[dict[str, object]],
    gpu_type: str,
    mobilenetv2_alpha: float,
    mobilenetv2_weights: str,
    settings: str,
    train_checkpoints: str,
    train_fine_tune_epochs: int,
    xception_weights: str,
    run: str,
    summary: dsl.Output[dsl.Markdown],
) -> NamedTuple(  # type: ignore[valid-type]
    "Outputs",
    [
        ("source", str),
        ("baseline_run", str),
        ("deploy_reason", str),
        # In the order of the tasks in TRAINING, which is the order of the texts that are returned.
        ("convert", str),
        ("validate", str),
        ("xception", str),
        ("mobilenetv2", str),
        ("evaluate", str),
        ("evaluate_serving", str),
        ("gate", str),
        ("package", str),
        ("deploy", str),
    ],
):
    """Check every setting of every step, and whether the cluster can serve the model.

    With a dataset store, also assemble the dataset and store it there.

    Args:
        data: Sets assemble.data.
        data_baseline: Folder that keeps the baseline; "" means none.
        data_imagery: Sets assemble.imagery.
        data_labels: Sets assemble.labels.
        data_positive_label: Sets assemble.positive_label.
        data_seed: Sets assemble.seed and train.seed.
        data_store: Folder or bucket address that stores datasets; "" means none.
        data_zoom: Sets assemble.zoom.
        deploy_endpoint: Sets deploy.endpoint.
        deploy_model_name: Sets deploy.name.
        deploy_model_root: Sets deploy.model_root.
        deploy_namespace: Sets deploy.namespace.
        deploy_strategy: Sets deploy.strategy.
        deploy_target: Sets deploy.target.
        gate_max_loss: Sets gate.max_loss.
        gate_min_accuracy: Sets gate.min_accuracy.
        gate_min_precision: Sets gate.min_precision.
        gate_min_recall: Sets gate.min_recall.
        gpu_count: Checked; for the cluster.
        gpu_node_selector: Checked; for the cluster.
        gpu_tolerations: Checked; for the cluster.
        gpu_type: Checked; for the cluster.
        mobilenetv2_alpha: Sets mobilenetv2.alpha.
        mobilenetv2_weights: Sets mobilenetv2.weights.
        settings: Further settings, as YAML.
        train_checkpoints: Sets train.checkpoints.
        train_fine_tune_epochs: Sets train.fine_tune_epochs.
        xception_weights: Sets xception.weights.
        run: Id of the run.
        summary: Where a model that passes the gate is deployed, with the checks of the cluster.

    Returns:
        The source of the dataset, for assemble; the run id if there is a baseline, which the cache can't see; why
        nothing will be deployed, if the cluster can't serve the model; and the settings of each task.
    """
    parameters = {name: value for name, value in locals().items() if name != "summary"}  # nothing else is in it yet

    import json
    import pathlib

    from sat_xception.dataset.source import find_source
    from sat_xception.kubeflow.deploy_target import check_training
    from sat_xception.steps import reporting_errors

    with reporting_errors("check"):
        texts, target = check_training(parameters, summary.uri)
        source = find_source(json.loads(texts.pop("assemble")), data_store, run)
    pathlib.Path(summary.path).write_text(target.markdown(), encoding="utf-8")
    return (source, run if data_baseline else "", target.reason, *texts.values())
