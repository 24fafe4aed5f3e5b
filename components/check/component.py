"""KFP contract of the first task: check all parameters, and find the dataset's source."""

from typing import NamedTuple

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("assemble"), install_kfp_package=False)
def check(
    data: str,
    data_accept_anomalies: list[str],
    data_baseline: str,
    data_block_zoom: int,
    data_fractions: list[float],
    data_imagery: str,
    data_imagery_attribution: str,
    data_imagery_bands: list[int],
    data_imagery_contact: str,
    data_imagery_scale: list[float],
    data_imagery_tms: bool,
    data_imagery_token_env: str,
    data_keep_near_duplicates: bool,
    data_label: str,
    data_label_column: str,
    data_labels: str,
    data_labels_layer: list[str],
    data_max_drift: float,
    data_max_failed: float,
    data_max_skew: float,
    data_max_unplaced: float,
    data_near_duplicate_bits: int,
    data_negative_label: str,
    data_negatives_buffer_m: float,
    data_negatives_distance_m: float,
    data_negatives_lookalikes: str,
    data_negatives_lookalikes_layer: list[str],
    data_negatives_ratio: float,
    data_negatives_review: str,
    data_negatives_review_layer: list[str],
    data_negatives_review_weight: float,
    data_negatives_within: str,
    data_negatives_within_layer: list[str],
    data_positive_label: str,
    data_rate_per_s: float,
    data_seed: int,
    data_slice_columns: list[str],
    data_split_column: str,
    data_store: str,
    data_tile_cache: str,
    data_tile_size: int,
    data_workers: int,
    data_zoom: int,
    deploy_endpoint: str,
    deploy_endpoint_host: str,
    deploy_max_slowdown: float,
    deploy_min_agreement: float,
    deploy_model_name: str,
    deploy_model_root: str,
    deploy_namespace: str,
    deploy_start_minutes: float,
    deploy_step_minutes: float,
    deploy_storage_uri: str,
    deploy_strategy: str,
    deploy_target: str,
    deploy_traffic_steps: list[int],
    evaluate_goal: str,
    gate_max_calibration_error: float,
    gate_max_loss: float,
    gate_min_accuracy: float,
    gate_min_gain: float,
    gate_min_precision: float,
    gate_min_recall: float,
    gate_min_slice_accuracy: float,
    gate_min_slice_recall: float,
    gate_min_slice_tiles: int,
    gpu_count: str,
    gpu_node_selector: dict[str, str],
    gpu_tolerations: list[dict[str, object]],
    gpu_type: str,
    mobilenetv2_alpha: float,
    mobilenetv2_input_size: int,
    mobilenetv2_scratch_epochs: int,
    mobilenetv2_weights: str,
    train_batch_size: int,
    train_checkpoints: str,
    train_fine_tune_epochs: int,
    train_head_epochs: int,
    train_search_trials: int,
    xception_input_size: int,
    xception_scratch_epochs: int,
    xception_weights: str,
    run: str,
) -> NamedTuple("Outputs", [("source", str), ("baseline_run", str)]):  # type: ignore[valid-type]
    """Check every parameter of the pipeline; with a dataset store, gather the tiles and file the dataset there.

    Args:
        data: Folder of class folders, or "sample" for the synthetic sample; it gives way to `data_labels`.
        data_accept_anomalies: Checked; for the validate step.
        data_baseline: Folder that says what the last finished run was made of; "" when there is none.
        data_block_zoom: Zoom of the blocks that share a split.
        data_fractions: Shares of train, valid and test.
        data_imagery: Imagery of `data_labels`.
        data_imagery_attribution: Whom the imagery's licence wants named.
        data_imagery_bands: Bands of a GeoTIFF that are red, green and blue; empty where the file says it.
        data_imagery_contact: For the owner of the tile server.
        data_imagery_scale: Values of a GeoTIFF that become black and white; empty for 0 and 255.
        data_imagery_tms: Whether rows count from the south.
        data_imagery_token_env: Environment variable that fills {token} in the template.
        data_keep_near_duplicates: Whether tiles that look the same stay, within a split; across splits they stop the
            run.
        data_label: Class of every labelled place, instead of a column.
        data_label_column: Column of the labels that holds the class.
        data_labels: Labelled places, instead of `data`; "" when there are none.
        data_labels_layer: Layers of it to read.
        data_max_drift: Checked; for the validate step.
        data_max_failed: Largest share of tiles that may be unreadable.
        data_max_skew: Checked; for the validate step.
        data_max_unplaced: Largest share of images that don't say where they are, where others do; with more the run
            stops.
        data_near_duplicate_bits: Tiles whose perceptual hashes differ in so many of 64 bits or less look the same; 0 to
            7.
        data_negative_label: Class of the negatives.
        data_negatives_buffer_m: Their least distance from any labelled place, in metres.
        data_negatives_distance_m: Their largest distance from a labelled place, in metres.
        data_negatives_lookalikes: Second layer, whose tiles are negatives.
        data_negatives_lookalikes_layer: Layers of it to read.
        data_negatives_ratio: Random negatives a positive tile.
        data_negatives_review: Reviewed tiles, which overrule the labels.
        data_negatives_review_layer: Layers of it to read.
        data_negatives_review_weight: How much a reviewed "no" counts in training, beside other tiles of its class;
            above 0.
        data_negatives_within: Polygons to draw random negatives in.
        data_negatives_within_layer: Layers of it to read.
        data_positive_label: The class that is looked for; "" leaves the choice to the names.
        data_rate_per_s: Most requests a second.
        data_seed: Part of the hash that deals tiles to splits.
        data_slice_columns: Columns of the labels to keep with each tile.
        data_split_column: Column of data_labels that gives the split. Empty: "split", where there is one.
        data_store: Folder or gs:// address that keeps datasets by their digest; "" for none.
        data_tile_cache: Folder that keeps fetched tiles.
        data_tile_size: Width and height that a tile must have, in pixels.
        data_workers: Tiles in flight at once.
        data_zoom: Zoom of the tiles, with `data_labels`.
        deploy_endpoint: Checked; for the evaluate and deploy steps.
        deploy_endpoint_host: Checked; for the deploy step.
        deploy_max_slowdown: Checked; for the deploy step.
        deploy_min_agreement: Checked; for the deploy step.
        deploy_model_name: Checked; for the evaluate, package and deploy steps.
        deploy_model_root: Checked; for the evaluate and deploy steps.
        deploy_namespace: Checked; for the deploy step.
        deploy_start_minutes: Checked; for the deploy step.
        deploy_step_minutes: Checked; for the deploy step.
        deploy_storage_uri: Checked; for the deploy step.
        deploy_strategy: Checked; for the deploy step.
        deploy_target: Checked; for the deploy step.
        deploy_traffic_steps: Checked; for the deploy step.
        evaluate_goal: Checked; for the evaluate step.
        gate_max_calibration_error: Checked; for the gate step.
        gate_max_loss: Checked; for the gate step.
        gate_min_accuracy: Checked; for the gate step.
        gate_min_gain: Checked; for the gate step.
        gate_min_precision: Checked; for the gate step.
        gate_min_recall: Checked; for the gate step.
        gate_min_slice_accuracy: Checked; for the gate step.
        gate_min_slice_recall: Checked; for the gate step.
        gate_min_slice_tiles: Checked; for the gate step.
        gpu_count: Checked; for the cluster.
        gpu_node_selector: Checked; for the cluster.
        gpu_tolerations: Checked; for the cluster.
        gpu_type: Checked; for the cluster.
        mobilenetv2_alpha: Checked; for the train step.
        mobilenetv2_input_size: Checked; for the train step.
        mobilenetv2_scratch_epochs: Checked; for the train step.
        mobilenetv2_weights: Checked; for the train step.
        train_batch_size: Checked; for the train and evaluate steps.
        train_checkpoints: Checked; for the train step.
        train_fine_tune_epochs: Checked; for the train step.
        train_head_epochs: Checked; for the train step.
        train_search_trials: Checked; for the train step.
        xception_input_size: Checked; for the train step.
        xception_scratch_epochs: Checked; for the train step.
        xception_weights: Checked; for the train step.
        run: Id of the run.

    Returns:
        The source of the dataset, for assemble, and the run where there is a baseline, which the cache doesn't see.
    """
    parameters = dict(locals())  # before there is anything else in it

    from sat_xception.dataset.source import find_source
    from sat_xception.kubeflow.training_parameters import check_parameters
    from sat_xception.steps import reporting_errors

    with reporting_errors("check"):
        source = find_source(check_parameters(parameters), data_store, run)
    return (source, run if data_baseline else "")
