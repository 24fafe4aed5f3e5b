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
from sat_xception.kubeflow.volumes import find_volumes

__all__ = ["PIPELINE_NAME", "VOLUMES", "training"]

PIPELINE_NAME = "school-classifier-training"
# What the tasks below mount.
VOLUMES = find_volumes()
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
    data_baseline: str = "",
    data_imagery: str = "",
    data_labels: str = "",
    data_positive_label: str = "",
    data_seed: int = 0,
    data_store: str = "",
    data_zoom: int = 18,
    deploy_endpoint: str = "",
    deploy_model_name: str = "school-classifier",
    deploy_model_root: str = "",
    deploy_namespace: str = "sat-xception",
    deploy_strategy: str = "auto",
    deploy_target: str = "auto",
    gate_max_loss: float = 0.01,
    gate_min_accuracy: float = 0.85,
    gate_min_precision: float = 0.5,
    gate_min_recall: float = 0.5,
    gpu_count: str = _GPU_COUNT,
    gpu_node_selector: dict[str, str] = {},  # noqa: B006 - kfp copies the default into the pipeline's definition
    gpu_tolerations: list[dict[str, object]] = [],  # noqa: B006
    gpu_type: str = "nvidia.com/gpu",
    mobilenetv2_alpha: float = 1.0,
    mobilenetv2_weights: str = "imagenet",
    settings: str = "",
    train_checkpoints: str = "",
    train_fine_tune_epochs: int = 24,
    xception_weights: str = "imagenet",
) -> None:
    """Train, compare, gate, package and deploy.

    Args:
        data: Folder of class folders, local or in a bucket, DIR/<class>/* or DIR/{train,valid,test}/<class>/*, or
            'sample' for the synthetic sample, which is ignored if data_labels is given.
        data_baseline: Folder, local or in a bucket, that keeps the schema and statistics of the last accepted run,
            which new data is compared with, and last-run.json. Empty: no baseline.
        data_imagery: Imagery of the tiles: a URL template with {z}, {x}, {y}; a folder of z/x/y.jpg files, local or in
            a bucket; local MBTiles; PMTiles or a GeoTIFF, local, at https:// or in a bucket.
        data_labels: File of labelled sites, instead of data: GeoJSON, GeoPackage, Shapefile, CSV or Parquet.
        data_positive_label: The positive class. Default: 'school', or X if the other class is 'not-X'.
        data_seed: Seed of the split, and of weights and shuffling in training.
        data_store: Folder or bucket address that stores datasets by their digest, so that a run on unchanged data
            trains nothing. Empty: the dataset is assembled in each run.
        data_zoom: Zoom of the tiles, with data_labels.
        deploy_endpoint: Address of the server that watches the model root: http://, https:// or grpc://, host and port.
            Empty: a temporary server is started for the check. With deploy_target 'kserve', the http:// or https://
            address that users call; by default that of the HTTPRoute's Gateway.
        deploy_model_name: Name of the served model.
        deploy_model_root: Folder, local or in a bucket, that the endpoint's server watches; the model is written to its
            <name>/<version>, with deploy_target 'kserve' to its <name>-releases/<version>/<version>. Empty: the object
            store of Kubeflow Pipelines with 'kserve', else models/serving.
        deploy_namespace: Namespace of the endpoint on the cluster.
        deploy_strategy: How traffic is split: KServe's own `spec.canary`, or two InferenceServices behind one
            HTTPRoute.
        deploy_target: Deployment target: 'kserve', KServe on the cluster; 'local', a model root that `sat_xception
            serve` watches; 'none', the package is only checked. 'auto': on a cluster 'kserve' if KServe and the
            manifests are there, else 'none', with the reason; 'local' on this machine.
        gate_max_loss: Maximum loss of accuracy against the serving model; 1 disables the check.
        gate_min_accuracy: Minimum validation accuracy.
        gate_min_precision: Minimum precision of the positive class (macro average without one).
        gate_min_recall: Minimum recall of the positive class (macro average without one).
        gpu_count: Number of GPUs per training, in digits, as a string; "0" trains on CPUs.
        gpu_node_selector: Labels that a node must have for training, for instance {"cloud.google.com/gke-accelerator":
            "nvidia-l4"}.
        gpu_tolerations: Kubernetes tolerations of the training pods, for instance [{"key": "nvidia.com/gpu",
            "operator": "Exists", "effect": "NoSchedule"}].
        gpu_type: Resource name of the GPUs, as nodes offer it.
        mobilenetv2_alpha: Width multiplier of MobileNetV2.
        mobilenetv2_weights: Initial weights of MobileNetV2: 'imagenet' (downloaded), a path or bucket address of a .h5
            file, or 'none'.
        settings: Further settings of the steps, as YAML: a section per step; `sat_xception settings` lists them.
        train_checkpoints: Folder or bucket address for training checkpoints, so that a training resumes after its node
            was taken away. Empty: checkpoints are lost with the pod, and a retry starts from the beginning.
        train_fine_tune_epochs: Maximum number of epochs of fine-tuning; 0 skips fine-tuning.
        xception_weights: Initial weights of Xception: 'imagenet' (downloaded), a path or bucket address of a .h5 file,
            or 'none'.
    """
    # Kubeflow's run id distinguishes this run's record from an older one.
    run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    ending = configure(notify(pipeline=PIPELINE_NAME, baseline=data_baseline, run=run), SMALL, "Notify")
    with dsl.ExitHandler(mount_storage_key(add_webhook(disable_caching(ending))), name="run"):
        checked = check(
            # All parameters: it checks them before it reads a tile.
            data=data,
            data_baseline=data_baseline,
            data_imagery=data_imagery,
            data_labels=data_labels,
            data_positive_label=data_positive_label,
            data_seed=data_seed,
            data_store=data_store,
            data_zoom=data_zoom,
            deploy_endpoint=deploy_endpoint,
            deploy_model_name=deploy_model_name,
            deploy_model_root=deploy_model_root,
            deploy_namespace=deploy_namespace,
            deploy_strategy=deploy_strategy,
            deploy_target=deploy_target,
            gate_max_loss=gate_max_loss,
            gate_min_accuracy=gate_min_accuracy,
            gate_min_precision=gate_min_precision,
            gate_min_recall=gate_min_recall,
            gpu_count=gpu_count,
            gpu_node_selector=gpu_node_selector,
            gpu_tolerations=gpu_tolerations,
            gpu_type=gpu_type,
            mobilenetv2_alpha=mobilenetv2_alpha,
            mobilenetv2_weights=mobilenetv2_weights,
            settings=settings,
            train_checkpoints=train_checkpoints,
            train_fine_tune_epochs=train_fine_tune_epochs,
            xception_weights=xception_weights,
            run=run,
        )
        mount_storage_key(
            add_imagery_token(disable_caching(retry(configure(checked, DATA, "Check settings"), DATA, pause_s=15)))
        )
        settings_of = checked.outputs
        # Cached by the source, which is the same as long as the dataset in the store is.
        dataset = configure(assemble(source=settings_of["source"]), DATA, "Assemble tiles")
        mount_storage_key(add_imagery_token(retry(dataset, DATA, pause_s=15)))
        converted = convert(settings=settings_of["convert"], dataset=dataset.outputs["dataset"])
        examples = configure(converted, DATA, "Convert to TFRecord").outputs["examples"]
        validated = validate(settings=settings_of["validate"], run=settings_of["baseline_run"], examples=examples)
        mount_storage_key(configure(validated, DATA, "Validate data"))
        train_xception = train(settings=settings_of["xception"], examples=examples)
        train_mobilenetv2 = train(settings=settings_of["mobilenetv2"], examples=examples)
        for task, name in ((train_xception, "Train Xception"), (train_mobilenetv2, "Train MobileNetV2")):
            retry(configure(task, TRAINING, name), TRAINING, pause_s=60).after(validated)
            mount_storage_key(use_gpus(task, gpu_type, gpu_count, gpu_node_selector, gpu_tolerations))
        xception, mobilenetv2 = train_xception.outputs["model"], train_mobilenetv2.outputs["model"]

        score_xception = evaluate(settings=settings_of["evaluate"], examples=examples, model=xception)
        score_mobilenetv2 = evaluate(settings=settings_of["evaluate"], examples=examples, model=mobilenetv2)
        score_serving = evaluate_serving(settings=settings_of["evaluate_serving"], examples=examples).after(validated)
        # What serves is seen by no input.
        mount_endpoint_token(
            mount_storage_key(disable_caching(configure(score_serving, DATA, "Evaluate what is serving")))
        )
        decision = gate(
            settings=settings_of["gate"],
            xception=configure(score_xception, DATA, "Evaluate Xception").outputs["evaluation"],
            mobilenetv2=configure(score_mobilenetv2, DATA, "Evaluate MobileNetV2").outputs["evaluation"],
            serving=score_serving.outputs["evaluation"],
            baseline=data_baseline,
            run=run,
        )
        mount_storage_key(disable_caching(configure(decision, SMALL, "Gate")))
        # The one value that the gate returns: a condition on a named output would silently be false in the local
        # runner.
        winner = decision.outputs["Output"]
        with dsl.If(winner != _NO_WINNER, name="a-model-passed"):
            packaged = package(
                settings=settings_of["package"],
                winner=winner,
                xception=xception,
                mobilenetv2=mobilenetv2,
                examples=examples,
                decision=decision.outputs["decision"],
            )
            configure(packaged, DATA, "Package for TensorFlow Serving")
            deployed = deploy(
                settings=settings_of["deploy"],
                served_model=packaged.outputs["served_model"],
                reason=settings_of["deploy_reason"],
                baseline=data_baseline,
                run=run,
            )
            retry(configure(deployed, ROLLOUT, "Deploy"), ROLLOUT, pause_s=30)
            mount_endpoint_token(mount_storage_key(disable_caching(deployed)))
