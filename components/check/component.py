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
    """Check every parameter of the pipeline; with a dataset store, also assemble the dataset and store it there.

    Args:
        data: Folder of class folders, or "sample" for the synthetic sample, which is ignored if `data_labels` is given.
        data_accept_anomalies: Checked; for the validate step.
        data_baseline: Folder with the record of the last finished run; "" means none.
        data_block_zoom: Zoom of the blocks that are kept within one split.
        data_fractions: Fractions of train, valid and test.
        data_imagery: Imagery for `data_labels`.
        data_imagery_attribution: Attribution required by the imagery's licence.
        data_imagery_bands: Red, green and blue band of a GeoTIFF; empty: as the file defines them.
        data_imagery_contact: E-mail address or web page, sent to the tile server.
        data_imagery_scale: Pixel values of a GeoTIFF that are mapped to black and white; empty: 0 and 255.
        data_imagery_tms: Whether the imagery numbers tile rows from the south.
        data_imagery_token_env: Environment variable whose value replaces {token} in the template.
        data_keep_near_duplicates: Whether near-duplicates within a split are kept; across splits they are always an
            error.
        data_label: Class of every labelled site, instead of a column.
        data_label_column: Column of the labels that holds the class.
        data_labels: Labelled sites, instead of `data`; "" means none.
        data_labels_layer: Layers of `data_labels` to read.
        data_max_drift: Checked; for the validate step.
        data_max_failed: Maximum fraction of tiles that can't be read.
        data_max_skew: Checked; for the validate step.
        data_max_unplaced: Maximum fraction of images without tile coordinates if others have them; above it the run
            stops.
        data_near_duplicate_bits: Maximum number of differing bits, of 64, in the perceptual hashes of near-duplicates;
            0 to 9.
        data_negative_label: Class of the negatives.
        data_negatives_buffer_m: Minimum distance of random negatives and look-alikes from any labelled site, in metres.
        data_negatives_distance_m: Maximum distance of random negatives from a labelled site, in metres.
        data_negatives_lookalikes: Second layer, of look-alikes, whose tiles are negatives.
        data_negatives_lookalikes_layer: Layers of `data_negatives_lookalikes` to read.
        data_negatives_ratio: Number of random negatives per positive tile.
        data_negatives_review: Reviewed tiles, which override the labels.
        data_negatives_review_layer: Layers of `data_negatives_review` to read.
        data_negatives_review_weight: Training weight of a tile reviewed as "no", relative to other tiles of its class;
            above 0.
        data_negatives_within: Polygons in which random negatives are drawn.
        data_negatives_within_layer: Layers of `data_negatives_within` to read.
        data_positive_label: The positive class; "" infers it from the class names.
        data_rate_per_s: Maximum requests per second.
        data_seed: Part of the hash that assigns tiles to splits.
        data_slice_columns: Columns of the labels to keep with each tile.
        data_split_column: Column of `data_labels` that holds the split. Empty: "split", if that column exists.
        data_store: Folder or gs:// address that stores datasets by their digest; "" means none.
        data_tile_cache: Folder that caches fetched tiles.
        data_tile_size: Required width and height of a tile, in pixels.
        data_workers: Number of tiles fetched concurrently.
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
        The source of the dataset, for assemble; and the run id if there is a baseline, which the cache can't see.
    """
    parameters = dict(locals())  # before there is anything else in it

    from sat_xception.dataset.source import find_source
    from sat_xception.kubeflow.training_parameters import check_parameters
    from sat_xception.steps import reporting_errors

    with reporting_errors("check"):
        source = find_source(check_parameters(parameters), data_store, run)
    return (source, run if data_baseline else "")
