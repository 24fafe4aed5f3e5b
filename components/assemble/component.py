"""KFP contract of the assemble step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("assemble"), install_kfp_package=False)
def assemble(
    data: str,
    data_accept_anomalies: list[str],
    data_fractions: list[float],
    data_max_failed: float,
    data_max_skew: float,
    data_positive_label: str,
    data_seed: int,
    deploy_endpoint: str,
    deploy_model_name: str,
    deploy_model_root: str,
    gate_max_calibration_error: float,
    gate_min_accuracy: float,
    gate_min_precision: float,
    gate_min_recall: float,
    gpu_count: str,
    gpu_node_selector: dict[str, str],
    gpu_tolerations: list[dict[str, str]],
    gpu_type: str,
    mobilenetv2_alpha: float,
    mobilenetv2_input_size: int,
    mobilenetv2_scratch_epochs: int,
    mobilenetv2_weights: str,
    train_batch_size: int,
    train_fine_tune_epochs: int,
    train_head_epochs: int,
    xception_input_size: int,
    xception_scratch_epochs: int,
    xception_weights: str,
    dataset: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Gather labelled tiles into a dataset: Parquet shards, a manifest with a row for every tile considered, a digest.

    It is the pipeline's first step: it takes all of the pipeline's parameters, and checks them before it reads a tile.

    Args:
        data: Folder of class folders, or "sample" for the synthetic sample.
        data_accept_anomalies: Checked; for the validate step.
        data_fractions: Shares of train, valid and test.
        data_max_failed: Largest share of tiles that may be unreadable.
        data_max_skew: Checked; for the validate step.
        data_positive_label: The class that is looked for; "" leaves the choice to the names.
        data_seed: Part of the hash that deals tiles to splits.
        deploy_endpoint: Checked; for the deploy step.
        deploy_model_name: Checked; for the package and deploy steps.
        deploy_model_root: Checked; for the deploy step.
        gate_max_calibration_error: Checked; for the gate step.
        gate_min_accuracy: Checked; for the gate step.
        gate_min_precision: Checked; for the gate step.
        gate_min_recall: Checked; for the gate step.
        gpu_count: Checked; for the cluster.
        gpu_node_selector: Checked; for the cluster.
        gpu_tolerations: Checked; for the cluster.
        gpu_type: Checked; for the cluster.
        mobilenetv2_alpha: Checked; for the train step.
        mobilenetv2_input_size: Checked; for the train step.
        mobilenetv2_scratch_epochs: Checked; for the train step.
        mobilenetv2_weights: Checked; for the train step.
        train_batch_size: Checked; for the train and evaluate steps.
        train_fine_tune_epochs: Checked; for the train step.
        train_head_epochs: Checked; for the train step.
        xception_input_size: Checked; for the train step.
        xception_scratch_epochs: Checked; for the train step.
        xception_weights: Checked; for the train step.
        dataset: The dataset.
        report: Page with counts, what was left out and why, and some tiles.
    """
    parameters = dict(locals())  # before there is anything else in it

    import shutil

    from sat_xception.steps import run_step, telling_why
    from sat_xception.training_parameters import check_parameters

    with telling_why("assemble"):
        settings = check_parameters(parameters)
    result = run_step("assemble", out=dataset.path, **settings)
    shutil.copyfile(f"{dataset.path}/report.html", report.path)
    dataset.metadata.update({"digest": result.digest, **result.counts["by_status"]})
