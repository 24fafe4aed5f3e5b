"""The training pipeline: tiles in, a gated, packaged, answering model out.

    check -> assemble -> convert -> validate -> train xception    -> evaluate -> gate -> [package -> deploy]
                                             -> train mobilenetv2 -> evaluate ->
                                             -> evaluate what is serving      ->

Package and deploy are in a group, which is skipped when there is no model to deploy; notify runs in any case. The two
trainings don't wait for each other, so a cluster runs them side by side. `kfp dsl compile --py pipelines/training.py`
works. The UI shows the parameters sorted by name, so each begins with what it is about.
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
# An image without CUDA would hold a GPU and not use it.
_GPU_COUNT = "0" if train_device() == "cpu" else "1"


@dsl.pipeline(
    name=PIPELINE_NAME,
    description="Train Xception and MobileNetV2 side by side; deploy the better if it is good enough.",
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
        data: Folder of class folders, here or at gs://, DIR/<class>/* or DIR/{train,valid,test}/<class>/*, or "sample"
            for the synthetic sample. It gives way to data_labels at its default, "sample"; a folder doesn't.
        data_accept_anomalies: Anomalies that don't stop the run, each as "<split>:<feature>:<kind>"; "*"
            matches anything.
        data_baseline: Folder, here or at gs://, that holds what is kept of the last run: the schema and the statistics
            that data is held against, and last-run.json. Empty: none.
        data_block_zoom: Zoom of the blocks of tiles that share a split, where it is known which tiles images are.
        data_fractions: Shares of train, valid and test, in [0, 1], with sum 1. A split that the folders give is kept.
        data_imagery: Imagery of data_labels: a URL template with {z}, {x} and {y}, a folder of z/x/y.jpg, MBTiles,
            PMTiles or a GeoTIFF. Never with a key in it: write {token}, and see data_imagery_token_env.
        data_imagery_attribution: Whom the imagery's licence wants named; kept with the dataset.
        data_imagery_bands: Bands of a GeoTIFF that are red, green and blue; empty where the file says it.
        data_imagery_contact: Your address or page, for the owner of the tile server.
        data_imagery_scale: Values of a GeoTIFF that become black and white; empty for 0 and 255.
        data_imagery_tms: Whether the imagery counts rows from the south, as TMS does.
        data_imagery_token_env: Environment variable that fills {token} in the template. IMAGERY_TOKEN is what the
            Secret sat-xception-imagery gives.
        data_keep_near_duplicates: Whether tiles that look the same stay, within a split; across splits they stop the
            run.
        data_label: Class of every labelled place, instead of a column.
        data_label_column: Column of data_labels that holds the class.
        data_labels: File of labelled places, here or at gs://, instead of data: GeoJSON, GeoPackage, Shapefile, CSV or
            Parquet. Needs data_imagery.
        data_labels_layer: Layers of data_labels to read, where the file has several.
        data_max_drift: Largest distance of a feature's distribution in training from that of the last accepted run,
            above 0. Only with data_baseline, and until its schema says otherwise.
        data_max_failed: Largest share of tiles that may be unreadable, in [0, 1]; with more the run stops.
        data_max_skew: Largest distance of a feature's distribution between training and another split, above 0.
        data_max_unplaced: Largest share of images that don't say where they are, where others do, which are split by
            block; with more the run stops.
        data_near_duplicate_bits: Tiles whose perceptual hashes differ in so many of 64 bits or less look the same; 0 to
            9.
        data_negative_label: Class of the negatives. Empty: "not-" and the class that is looked for.
        data_negatives_buffer_m: Least distance of random negatives and look-alikes from any labelled place, in metres.
        data_negatives_distance_m: Largest distance of random negatives from a labelled place, in metres, where
            data_negatives_within is empty.
        data_negatives_lookalikes: File of a second layer, of things that look alike: its tiles are negatives.
        data_negatives_lookalikes_layer: Layers of data_negatives_lookalikes to read, where the file has several.
        data_negatives_ratio: Random negatives a positive tile, with data_labels; 0 draws none.
        data_negatives_review: File of reviewed tiles with a verdict of yes, no or unsure, which overrules the labels.
        data_negatives_review_layer: Layers of data_negatives_review to read, where the file has several.
        data_negatives_review_weight: How much a reviewed "no" counts in training, beside other tiles of its class;
            above 0.
        data_negatives_within: File of polygons to draw random negatives in. Empty: around the labelled places.
        data_negatives_within_layer: Layers of data_negatives_within to read, where the file has several.
        data_positive_label: The class that is looked for. Empty: "school", or X where the other class is "not-X".
        data_rate_per_s: Most requests a second to the imagery; 0 is no limit.
        data_seed: Seed of the split and of training, a whole number.
        data_slice_columns: Columns of data_labels to keep with each tile, as slices.
        data_split_column: Column of data_labels that gives the split. Empty: "split", where there is one.
        data_store: Folder or gs:// address that keeps datasets by their digest, so that a run on unchanged data takes
            what was computed before. Empty: every run computes everything.
        data_tile_cache: Folder, on a volume that is mounted, that keeps fetched tiles from run to run. Empty: none.
        data_tile_size: Width and height that a tile must have, in pixels; 0 is any.
        data_workers: Tiles in flight at once, from 1 to 256.
        data_zoom: Zoom of the tiles, from 0 to 22, with data_labels.
        deploy_endpoint: Address of the server that follows the model root: http://, https:// or grpc://, host
            and port. Empty: a server is started for the proof alone. With deploy_target "kserve" the http:// or
            https:// address that users use.
        deploy_endpoint_host: Host header for deploy_endpoint, where that is a gateway's IP address. Empty: its own.
        deploy_max_slowdown: How many times slower than the old version the new may be, at the 95th percentile; 0: any.
        deploy_min_agreement: Least share of tiles that the old and the new version give the same class, in [0, 1]; 0
            doesn't compare.
        deploy_model_name: Name the model is served as: lower-case letters, digits and inner hyphens.
        deploy_model_root: Folder, here or at gs://, that the endpoint's server follows; the model goes to its
            <name>/<version>, with deploy_target "kserve" to its <name>-releases/<version>/<version>.
        deploy_namespace: Namespace of the endpoint on the cluster.
        deploy_start_minutes: How long new pods may take to be ready, in minutes, above 0.
        deploy_step_minutes: How long each share of the traffic is watched, in minutes.
        deploy_storage_uri: Model root as the cluster's pods name it, as "pvc://models/serving". Empty: the same.
        deploy_strategy: How traffic is split: "auto", "two-services" or "canary".
        deploy_target: Where to: "kserve", a cluster; "local", a model root that a server follows; or "none", which ends
            with the packaged model.
        deploy_traffic_steps: Shares of the traffic, in %, that the new version gets in turn; the last is 100.
        evaluate_goal: What the threshold of the class that is looked for is chosen for, on the validation split: "f1",
            "recall-at-precision:0.9" or "precision-at-recall:0.9", with any share.
        gate_max_calibration_error: Largest expected calibration error on the validation split, once calibrated, in [0,
            1].
        gate_max_loss: How much less accurate on the validation split than what is serving a model may be, in [0, 1]; 1
            doesn't compare.
        gate_min_accuracy: Lowest validation accuracy, in [0, 1].
        gate_min_gain: What the accuracy gained on naming the most frequent class for every tile must surely be above;
            -1 doesn't compare.
        gate_min_precision: Lowest precision of the class that is looked for, in [0, 1].
        gate_min_recall: Lowest recall of the class that is looked for, in [0, 1].
        gate_min_slice_accuracy: Lowest validation accuracy in each slice, in [0, 1]; 0 asks for none.
        gate_min_slice_recall: Lowest recall of the class that is looked for in each slice, in [0, 1]; 0 asks for none.
        gate_min_slice_tiles: Tiles that a slice must have to be judged; for recall, of the class that is looked for.
        gpu_count: Number of GPUs of each training, in digits, as a text; "0" trains on CPUs.
        gpu_node_selector: Labels that a node must have for the trainings, for instance
            {"cloud.google.com/gke-accelerator": "nvidia-l4"}.
        gpu_tolerations: Tolerations of the trainings as Kubernetes writes them, for instance [{"key":
            "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}].
        gpu_type: Name of the resource that nodes with GPUs offer.
        mobilenetv2_alpha: Width multiplier of MobileNetV2, above 0.
        mobilenetv2_input_size: Height and width of MobileNetV2's input in pixels, from 32 on; 0 is 224.
        mobilenetv2_scratch_epochs: Epochs of MobileNetV2 where its weights are "none", from 1 on.
        mobilenetv2_weights: What MobileNetV2 starts from: "imagenet" (downloaded), a path or gs:// address of
            a .h5 file, or "none".
        train_batch_size: Tiles in a step of training and of scoring, from 1 on.
        train_checkpoints: Folder or gs:// address that trainings keep what they learnt in, to go on after their node
            was taken away. Empty: it is lost with the pod, and a retry begins anew.
        train_fine_tune_epochs: Most epochs of fine-tuning, from 0 on; 0 leaves it out.
        train_head_epochs: Most epochs of the head on frozen features, from 1 on.
        train_search_trials: Heads that a search tries before each training, from 0 on; the best one's settings are
            trained with. Needs learnt weights for both backbones.
        xception_input_size: Height and width of Xception's input in pixels, from 71 on; 0 is 256.
        xception_scratch_epochs: Epochs of Xception where its weights are "none", from 1 on.
        xception_weights: What Xception starts from: "imagenet" (downloaded), a path or gs:// address of a .h5
            file, or "none".
    """
    # Kubeflow's id of the run tells its own record from an older one.
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
