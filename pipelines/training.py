"""The training pipeline: from tiles to a gated, packaged and deployed model.

    check -> assemble -> convert -> validate -> train xception    -> evaluate -> gate -> [package -> deploy]
                                             -> train mobilenetv2 -> evaluate ->
                                             -> evaluate what is serving      ->

Package and deploy are in a group, which is skipped if there is no model to deploy; notify always runs. The two
trainings are independent, so a cluster runs them in parallel. `kfp dsl compile --py pipelines/training.py` works. The
UI sorts parameters by name, so each name starts with its topic.
"""

from kfp import dsl

from components.assemble.component import assemble
from components.check.component import check
from components.convert.component import convert
from components.deploy.component import deploy
from components.evaluate.component import evaluate
from components.evaluate_serving.component import evaluate_serving
from components.gate.component import gate
from components.images import train_device
from components.notify.component import notify
from components.package.component import package
from components.train.component import train
from components.validate.component import validate
from pipelines.resources import (
    DATA,
    ROLLOUT,
    SMALL,
    TRAINING,
    add_imagery_token,
    add_webhook,
    configure,
    disable_caching,
    mount_endpoint_token,
    mount_storage_key,
    retention,
    retry,
    use_gpus,
)

__all__ = ["PIPELINE_NAME", "training"]

PIPELINE_NAME = "school-classifier-training"
_NO_WINNER = "none"
# An image without CUDA would reserve a GPU without using it.
_GPU_COUNT = "0" if train_device() == "cpu" else "1"


@dsl.pipeline(
    name=PIPELINE_NAME,
    description="Train Xception and MobileNetV2 in parallel; deploy the better one if it passes the gate.",
    pipeline_config=retention(),
)
def training(
    data: str = "sample",
    data_accept_anomalies: list[str] = [],  # noqa: B006 - kfp copies the default into the pipeline's definition
    data_baseline: str = "",
    data_block_zoom: int = 12,
    data_fractions: list[float] = [0.7, 0.15, 0.15],  # noqa: B006
    data_imagery: str = "",
    data_imagery_attribution: str = "",
    data_imagery_bands: list[int] = [],  # noqa: B006
    data_imagery_contact: str = "",
    data_imagery_scale: list[float] = [],  # noqa: B006
    data_imagery_tms: bool = False,
    data_imagery_token_env: str = "",
    data_keep_near_duplicates: bool = False,
    data_label: str = "",
    data_label_column: str = "label",
    data_labels: str = "",
    data_labels_layer: list[str] = [],  # noqa: B006
    data_max_drift: float = 0.1,
    data_max_failed: float = 0.05,
    data_max_skew: float = 0.3,
    data_max_unplaced: float = 0.05,
    data_near_duplicate_bits: int = 8,
    data_negative_label: str = "",
    data_negatives_buffer_m: float = 500.0,
    data_negatives_distance_m: float = 10_000.0,
    data_negatives_lookalikes: str = "",
    data_negatives_lookalikes_layer: list[str] = [],  # noqa: B006
    data_negatives_ratio: float = 0.0,
    data_negatives_review: str = "",
    data_negatives_review_layer: list[str] = [],  # noqa: B006
    data_negatives_review_weight: float = 1.0,
    data_negatives_within: str = "",
    data_negatives_within_layer: list[str] = [],  # noqa: B006
    data_positive_label: str = "",
    data_rate_per_s: float = 0.0,
    data_seed: int = 0,
    data_slice_columns: list[str] = [],  # noqa: B006
    data_split_column: str = "",
    data_store: str = "",
    data_tile_cache: str = "",
    data_tile_size: int = 0,
    data_workers: int = 16,
    data_zoom: int = 18,
    deploy_endpoint: str = "",
    deploy_endpoint_host: str = "",
    deploy_max_slowdown: float = 2.0,
    deploy_min_agreement: float = 0.7,
    deploy_model_name: str = "school-classifier",
    deploy_model_root: str = "models/serving",
    deploy_namespace: str = "sat-xception",
    deploy_start_minutes: float = 15.0,
    deploy_step_minutes: float = 2.0,
    deploy_storage_uri: str = "",
    deploy_strategy: str = "auto",
    deploy_target: str = "local",
    deploy_traffic_steps: list[int] = [10, 50, 100],  # noqa: B006
    evaluate_goal: str = "f1",
    gate_max_calibration_error: float = 1.0,
    gate_max_loss: float = 0.01,
    gate_min_accuracy: float = 0.85,
    gate_min_gain: float = 0.0,
    gate_min_precision: float = 0.5,
    gate_min_recall: float = 0.5,
    gate_min_slice_accuracy: float = 0.0,
    gate_min_slice_recall: float = 0.0,
    gate_min_slice_tiles: int = 20,
    gpu_count: str = _GPU_COUNT,
    gpu_node_selector: dict[str, str] = {},  # noqa: B006
    gpu_tolerations: list[dict[str, object]] = [],  # noqa: B006
    gpu_type: str = "nvidia.com/gpu",
    mobilenetv2_alpha: float = 1.0,
    mobilenetv2_input_size: int = 224,
    mobilenetv2_scratch_epochs: int = 25,
    mobilenetv2_weights: str = "imagenet",
    train_batch_size: int = 32,
    train_checkpoints: str = "",
    train_fine_tune_epochs: int = 24,
    train_head_epochs: int = 100,
    train_search_trials: int = 0,
    xception_input_size: int = 256,
    xception_scratch_epochs: int = 25,
    xception_weights: str = "imagenet",
) -> None:
    """Train, compare, gate, package and deploy.

    Args:
        data: Folder of class folders, local or at gs://, DIR/<class>/* or DIR/{train,valid,test}/<class>/*, or "sample"
            for the synthetic sample. Ignored if data_labels is set and this is left at "sample"; setting both to other
            values is an error.
        data_accept_anomalies: Anomalies that don't stop the run, each as "<split>:<feature>:<kind>"; "*" matches
            anything.
        data_baseline: Folder, local or at gs://, that keeps the schema and statistics of the last accepted run, which
            new data is compared with, and last-run.json. Empty: no baseline.
        data_block_zoom: Zoom of the blocks of tiles that are kept within one split, for images whose tile coordinates
            are known.
        data_fractions: Fractions of train, valid and test, in [0, 1], with sum 1. A split given by the folders is kept.
        data_imagery: Imagery for data_labels: a URL template with {z}, {x} and {y}, a folder of z/x/y.jpg files,
            MBTiles, PMTiles or a GeoTIFF. Must not contain a key: write {token}, and see data_imagery_token_env.
        data_imagery_attribution: Attribution required by the imagery's licence; stored with the dataset.
        data_imagery_bands: Red, green and blue band of a GeoTIFF. Empty: as the file defines them.
        data_imagery_contact: Your e-mail address or web page, sent to the tile server so that its operator can reach
            you.
        data_imagery_scale: Pixel values of a GeoTIFF that are mapped to black and white. Empty: 0 and 255.
        data_imagery_tms: Whether the imagery numbers tile rows from the south, as TMS does.
        data_imagery_token_env: Environment variable whose value replaces {token} in the template. The Secret
            sat-xception-imagery sets IMAGERY_TOKEN.
        data_keep_near_duplicates: Whether near-duplicates within a split are kept; near-duplicates in different splits
            are always an error.
        data_label: Class of every labelled site, instead of a column.
        data_label_column: Column of data_labels that holds the class.
        data_labels: File of labelled sites, local or at gs://, instead of data: GeoJSON, GeoPackage, Shapefile, CSV or
            Parquet. Needs data_imagery.
        data_labels_layer: Layers of data_labels to read, if the file has several.
        data_max_drift: Maximum distance between a feature's distributions in training and in the last accepted run,
            above 0. Used only with data_baseline, and until its schema sets another limit.
        data_max_failed: Maximum fraction of tiles that can't be read, in [0, 1]; above it the run stops.
        data_max_skew: Maximum distance between a feature's distributions in training and another split, above 0.
        data_max_unplaced: Maximum fraction of images without tile coordinates if others have them and are split by
            block; above it the run stops.
        data_near_duplicate_bits: Tiles are near-duplicates if their perceptual hashes differ in at most this many of 64
            bits and their detail matches too; 0 to 9.
        data_negative_label: Class of the negatives. Empty: "not-" followed by the positive class.
        data_negatives_buffer_m: Minimum distance of random negatives and look-alikes from any labelled site, in metres.
        data_negatives_distance_m: Maximum distance of random negatives from a labelled site, in metres, if
            data_negatives_within is empty.
        data_negatives_lookalikes: File of a second layer, of look-alikes (hard negatives): its tiles are negatives.
        data_negatives_lookalikes_layer: Layers of data_negatives_lookalikes to read, if the file has several.
        data_negatives_ratio: Number of random negatives per positive tile, with data_labels; 0 draws none.
        data_negatives_review: File of reviewed tiles with a verdict of yes, no or unsure, which overrides the labels.
        data_negatives_review_layer: Layers of data_negatives_review to read, if the file has several.
        data_negatives_review_weight: Training weight of a tile reviewed as "no", relative to other tiles of its class;
            above 0.
        data_negatives_within: File of polygons in which random negatives are drawn. Empty: around the labelled sites.
        data_negatives_within_layer: Layers of data_negatives_within to read, if the file has several.
        data_positive_label: The positive class. Empty: "school", or X if the other class is "not-X".
        data_rate_per_s: Maximum requests per second to the imagery; 0 is unlimited.
        data_seed: Seed of the split and of training, a whole number.
        data_slice_columns: Columns of data_labels to keep with each tile, as slices.
        data_split_column: Column of data_labels that holds the split. Empty: "split", if that column exists.
        data_store: Folder or gs:// address that stores datasets by their digest, so that a run on unchanged data reuses
            earlier results. Empty: every run computes everything.
        data_tile_cache: Folder on a mounted volume that caches fetched tiles between runs. Empty: no cache.
        data_tile_size: Required width and height of a tile, in pixels; 0 is any.
        data_workers: Number of tiles fetched concurrently, from 1 to 256.
        data_zoom: Zoom of the tiles, from 0 to 22, with data_labels.
        deploy_endpoint: Address of the server that watches the model root: http://, https:// or grpc://, host and port.
            Empty: a temporary server is started for the check. With deploy_target "kserve", the http:// or https://
            address that users call.
        deploy_endpoint_host: Host header for deploy_endpoint, if that is a gateway's IP address. Empty: the address's
            own host.
        deploy_max_slowdown: Maximum ratio of the new version's 95th-percentile latency to the old one's; 0 disables the
            check.
        deploy_min_agreement: Minimum fraction of tiles that get the same class from the old and new version, in [0, 1];
            0 disables the check.
        deploy_model_name: Name of the served model: lower-case letters, digits and inner hyphens.
        deploy_model_root: Folder, local or at gs://, that the endpoint's server watches; the model is written to its
            <name>/<version>, with deploy_target "kserve" to its <name>-releases/<version>/<version>.
        deploy_namespace: Namespace of the endpoint on the cluster.
        deploy_start_minutes: Timeout for new pods to become ready, in minutes, above 0.
        deploy_step_minutes: Minutes that each traffic percentage is observed.
        deploy_storage_uri: Model root as the cluster's pods address it, such as "pvc://models/serving". Empty:
            deploy_model_root.
        deploy_strategy: How traffic is split: "auto", "two-services" or "canary".
        deploy_target: Deployment target: "kserve", a cluster; "local", a model root that a server watches; or "none",
            which ends with the packaged model.
        deploy_traffic_steps: Successive percentages of the traffic for the new version; the last is 100.
        evaluate_goal: Objective of the decision threshold of the positive class, on the validation split: "f1",
            "recall-at-precision:0.9" or "precision-at-recall:0.9", with any fraction.
        gate_max_calibration_error: Maximum expected calibration error on the validation split, after calibration, in
            [0, 1].
        gate_max_loss: Maximum loss of validation accuracy against the serving model, in [0, 1]; 1 disables the check.
        gate_min_accuracy: Minimum validation accuracy, in [0, 1].
        gate_min_gain: The accuracy gain over always predicting the most frequent class must exceed this even at its
            lower confidence bound; -1 disables the check.
        gate_min_precision: Minimum precision of the positive class, in [0, 1].
        gate_min_recall: Minimum recall of the positive class, in [0, 1].
        gate_min_slice_accuracy: Minimum validation accuracy in each slice, in [0, 1]; 0 disables the check.
        gate_min_slice_recall: Minimum recall of the positive class in each slice, in [0, 1]; 0 disables the check.
        gate_min_slice_tiles: Minimum number of tiles for a slice to be checked; for recall, of the positive class.
        gpu_count: Number of GPUs per training, in digits, as a string; "0" trains on CPUs.
        gpu_node_selector: Labels that a node must have for training, for instance {"cloud.google.com/gke-accelerator":
            "nvidia-l4"}.
        gpu_tolerations: Kubernetes tolerations of the training pods, for instance [{"key": "nvidia.com/gpu",
            "operator": "Exists", "effect": "NoSchedule"}].
        gpu_type: Resource name of the GPUs, as nodes offer it.
        mobilenetv2_alpha: Width multiplier of MobileNetV2, above 0.
        mobilenetv2_input_size: Height and width of MobileNetV2's input in pixels, at least 32; 0 is 224.
        mobilenetv2_scratch_epochs: Number of epochs of MobileNetV2 if its weights are "none", at least 1.
        mobilenetv2_weights: Initial weights of MobileNetV2: "imagenet" (downloaded), a path or gs:// address of a .h5
            file, or "none".
        train_batch_size: Batch size of training and evaluation, in tiles, at least 1.
        train_checkpoints: Folder or gs:// address for training checkpoints, so that a training resumes after its node
            was taken away. Empty: checkpoints are lost with the pod, and a retry starts from the beginning.
        train_fine_tune_epochs: Maximum number of epochs of fine-tuning; 0 skips fine-tuning.
        train_head_epochs: Maximum number of epochs of the head on frozen features, at least 1.
        train_search_trials: Number of trials of a search over head settings before each training, which uses the best
            ones; 0: no search. Needs pretrained weights for both backbones.
        xception_input_size: Height and width of Xception's input in pixels, at least 71; 0 is 256.
        xception_scratch_epochs: Number of epochs of Xception if its weights are "none", at least 1.
        xception_weights: Initial weights of Xception: "imagenet" (downloaded), a path or gs:// address of a .h5 file,
            or "none".
    """
    # Kubeflow's run id distinguishes this run's record from an older one.
    run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    ending = configure(notify(pipeline=PIPELINE_NAME, baseline=data_baseline, run=run), SMALL, "Notify")
    with dsl.ExitHandler(mount_storage_key(add_webhook(disable_caching(ending))), name="run"):
        checked = check(
            # All parameters: it checks them before it reads a tile.
            data=data,
            data_accept_anomalies=data_accept_anomalies,
            data_baseline=data_baseline,
            data_block_zoom=data_block_zoom,
            data_fractions=data_fractions,
            data_imagery=data_imagery,
            data_imagery_attribution=data_imagery_attribution,
            data_imagery_bands=data_imagery_bands,
            data_imagery_contact=data_imagery_contact,
            data_imagery_scale=data_imagery_scale,
            data_imagery_tms=data_imagery_tms,
            data_imagery_token_env=data_imagery_token_env,
            data_keep_near_duplicates=data_keep_near_duplicates,
            data_label=data_label,
            data_label_column=data_label_column,
            data_labels=data_labels,
            data_labels_layer=data_labels_layer,
            data_max_drift=data_max_drift,
            data_max_failed=data_max_failed,
            data_max_skew=data_max_skew,
            data_max_unplaced=data_max_unplaced,
            data_near_duplicate_bits=data_near_duplicate_bits,
            data_negative_label=data_negative_label,
            data_negatives_buffer_m=data_negatives_buffer_m,
            data_negatives_distance_m=data_negatives_distance_m,
            data_negatives_lookalikes=data_negatives_lookalikes,
            data_negatives_lookalikes_layer=data_negatives_lookalikes_layer,
            data_negatives_ratio=data_negatives_ratio,
            data_negatives_review=data_negatives_review,
            data_negatives_review_layer=data_negatives_review_layer,
            data_negatives_review_weight=data_negatives_review_weight,
            data_negatives_within=data_negatives_within,
            data_negatives_within_layer=data_negatives_within_layer,
            data_positive_label=data_positive_label,
            data_rate_per_s=data_rate_per_s,
            data_seed=data_seed,
            data_slice_columns=data_slice_columns,
            data_split_column=data_split_column,
            data_store=data_store,
            data_tile_cache=data_tile_cache,
            data_tile_size=data_tile_size,
            data_workers=data_workers,
            data_zoom=data_zoom,
            deploy_endpoint=deploy_endpoint,
            deploy_endpoint_host=deploy_endpoint_host,
            deploy_max_slowdown=deploy_max_slowdown,
            deploy_min_agreement=deploy_min_agreement,
            deploy_model_name=deploy_model_name,
            deploy_model_root=deploy_model_root,
            deploy_namespace=deploy_namespace,
            deploy_start_minutes=deploy_start_minutes,
            deploy_step_minutes=deploy_step_minutes,
            deploy_storage_uri=deploy_storage_uri,
            deploy_strategy=deploy_strategy,
            deploy_target=deploy_target,
            deploy_traffic_steps=deploy_traffic_steps,
            evaluate_goal=evaluate_goal,
            gate_max_calibration_error=gate_max_calibration_error,
            gate_max_loss=gate_max_loss,
            gate_min_accuracy=gate_min_accuracy,
            gate_min_gain=gate_min_gain,
            gate_min_precision=gate_min_precision,
            gate_min_recall=gate_min_recall,
            gate_min_slice_accuracy=gate_min_slice_accuracy,
            gate_min_slice_recall=gate_min_slice_recall,
            gate_min_slice_tiles=gate_min_slice_tiles,
            gpu_count=gpu_count,
            gpu_node_selector=gpu_node_selector,
            gpu_tolerations=gpu_tolerations,
            gpu_type=gpu_type,
            mobilenetv2_alpha=mobilenetv2_alpha,
            mobilenetv2_input_size=mobilenetv2_input_size,
            mobilenetv2_scratch_epochs=mobilenetv2_scratch_epochs,
            mobilenetv2_weights=mobilenetv2_weights,
            train_batch_size=train_batch_size,
            train_checkpoints=train_checkpoints,
            train_fine_tune_epochs=train_fine_tune_epochs,
            train_head_epochs=train_head_epochs,
            train_search_trials=train_search_trials,
            xception_input_size=xception_input_size,
            xception_scratch_epochs=xception_scratch_epochs,
            xception_weights=xception_weights,
            run=run,
        )
        mount_storage_key(
            add_imagery_token(disable_caching(retry(configure(checked, DATA, "Check settings"), DATA, pause_s=15)))
        )
        # Cached by the source, which is the same as long as the dataset in the store is.
        dataset = configure(assemble(source=checked.outputs["source"]), DATA, "Assemble tiles")
        mount_storage_key(add_imagery_token(retry(dataset, DATA, pause_s=15)))
        converted = configure(convert(dataset=dataset.outputs["dataset"]), DATA, "Convert to TFRecord")
        examples = converted.outputs["examples"]
        validated = validate(
            examples=examples,
            accept=data_accept_anomalies,
            max_skew=data_max_skew,
            max_drift=data_max_drift,
            baseline=data_baseline,
            baseline_run=checked.outputs["baseline_run"],
        )
        mount_storage_key(configure(validated, DATA, "Validate data"))
        shared = {
            "examples": examples,
            "batch_size": train_batch_size,
            "checkpoints": train_checkpoints,
            "head_epochs": train_head_epochs,
            "fine_tune_epochs": train_fine_tune_epochs,
            "search_trials": train_search_trials,
            "seed": data_seed,
        }
        train_xception = train(
            backbone="xception",
            weights=xception_weights,
            input_size=xception_input_size,
            alpha=1.0,
            scratch_epochs=xception_scratch_epochs,
            **shared,
        )
        train_mobilenetv2 = train(
            backbone="mobilenetv2",
            weights=mobilenetv2_weights,
            input_size=mobilenetv2_input_size,
            alpha=mobilenetv2_alpha,
            scratch_epochs=mobilenetv2_scratch_epochs,
            **shared,
        )
        for task, name in ((train_xception, "Train Xception"), (train_mobilenetv2, "Train MobileNetV2")):
            retry(configure(task, TRAINING, name), TRAINING, pause_s=60).after(validated)
            mount_storage_key(use_gpus(task, gpu_type, gpu_count, gpu_node_selector, gpu_tolerations))
        xception, mobilenetv2 = train_xception.outputs["model"], train_mobilenetv2.outputs["model"]

        scoring = {"examples": examples, "goal": evaluate_goal, "batch_size": train_batch_size}
        score_xception = evaluate(model=xception, **scoring)
        score_mobilenetv2 = evaluate(model=mobilenetv2, **scoring)
        score_serving = evaluate_serving(
            model_root=deploy_model_root, endpoint=deploy_endpoint, name=deploy_model_name, **scoring
        ).after(validated)
        # What serves is seen by no input.
        mount_endpoint_token(
            mount_storage_key(disable_caching(configure(score_serving, DATA, "Evaluate what is serving")))
        )
        decision = configure(
            gate(
                xception=configure(score_xception, DATA, "Evaluate Xception").outputs["evaluation"],
                mobilenetv2=configure(score_mobilenetv2, DATA, "Evaluate MobileNetV2").outputs["evaluation"],
                serving=score_serving.outputs["evaluation"],
                min_accuracy=gate_min_accuracy,
                min_gain=gate_min_gain,
                min_recall=gate_min_recall,
                min_precision=gate_min_precision,
                min_slice_accuracy=gate_min_slice_accuracy,
                min_slice_recall=gate_min_slice_recall,
                min_slice_tiles=gate_min_slice_tiles,
                max_calibration_error=gate_max_calibration_error,
                max_loss=gate_max_loss,
                baseline=data_baseline,
                run=run,
            ),
            SMALL,
            "Gate",
        )
        mount_storage_key(disable_caching(decision))
        # The one value that the gate returns: a condition on a named output would silently be false in the local
        # runner.
        winner = decision.outputs["Output"]
        with dsl.If(winner != _NO_WINNER, name="a-model-passed"):
            packaged = package(
                winner=winner,
                xception=xception,
                mobilenetv2=mobilenetv2,
                examples=examples,
                decision=decision.outputs["decision"],
                name=deploy_model_name,
            )
            configure(packaged, DATA, "Package for TensorFlow Serving")
            deployed = deploy(
                served_model=packaged.outputs["served_model"],
                name=deploy_model_name,
                target=deploy_target,
                model_root=deploy_model_root,
                endpoint=deploy_endpoint,
                endpoint_host=deploy_endpoint_host,
                namespace=deploy_namespace,
                storage_uri=deploy_storage_uri,
                strategy=deploy_strategy,
                traffic_steps=deploy_traffic_steps,
                step_minutes=deploy_step_minutes,
                start_minutes=deploy_start_minutes,
                min_agreement=deploy_min_agreement,
                max_slowdown=deploy_max_slowdown,
                baseline=data_baseline,
                run=run,
            )
            retry(configure(deployed, ROLLOUT, "Deploy"), ROLLOUT, pause_s=30)
            mount_endpoint_token(mount_storage_key(disable_caching(deployed)))
