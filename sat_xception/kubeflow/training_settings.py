"""Settings of the training pipeline: its parameters, and the sections of its `settings`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sat_xception.dataset.settings import AssembleConfig
from sat_xception.deploy.settings import DeployConfig
from sat_xception.evaluate.settings import EvaluateConfig, GateConfig
from sat_xception.examples.settings import ConvertConfig
from sat_xception.kubeflow.claims import find_volume_problems
from sat_xception.kubeflow.pipeline_settings import Headline, PipelineSettings, Resolved
from sat_xception.kubeflow.pod import find_lost, find_unmounted, in_pod, is_lost, where_to
from sat_xception.kubeflow.task_settings import Task
from sat_xception.kubeflow.volumes import claim_address, mounted_path
from sat_xception.model.backbones import get_backbone
from sat_xception.model.settings import TrainConfig
from sat_xception.package.settings import PackageConfig
from sat_xception.settings.config import StepConfig
from sat_xception.settings.types import ResultOrNone
from sat_xception.validation.settings import ValidateConfig

__all__ = [
    "INSTALLATION_ROOT",
    "LOCAL_ROOT",
    "SAMPLE",
    "TRAINED_BACKBONES",
    "TRAINING",
    "Toleration",
    "TrainingParameters",
    "set_model_root",
]

# Backbones that the pipeline trains, in the order of its tasks.
TRAINED_BACKBONES = ("xception", "mobilenetv2")
# Value of `data` for the synthetic sample.
SAMPLE = "sample"

# Model root if none is given: on this machine; and on a cluster with KServe, in the store of Kubeflow Pipelines. The
# bucket is the default one, which the first task replaces by that of the run.
LOCAL_ROOT = "models/serving"
INSTALLATION_ROOT = "minio://mlpipeline/sat-xception/models"


class Toleration(BaseModel):
    """A toleration of a pod, with the names that Kubernetes has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    tolerationSeconds: int | None = None

    @model_validator(mode="after")
    def _says_which_taint(self) -> Toleration:
        if not self.key and self.operator != "Exists":
            raise ValueError("a toleration without a key must have the operator 'Exists'")
        return self


class TrainingParameters(StepConfig):
    """Parameters that the pipeline uses itself: where results are kept, and the GPUs of the trainings."""

    data_baseline: ResultOrNone = Field(
        None,
        description="Folder, local or in a bucket, that keeps the schema and statistics of the last accepted run, "
        "which new data is compared with, and last-run.json. Empty: no baseline.",
    )
    data_store: ResultOrNone = Field(
        None,
        description="Folder or bucket address that stores datasets by their digest, so that a run on unchanged data "
        "trains nothing. Empty: the dataset is assembled in each run.",
    )
    # Text, because Kubeflow's driver reads only text: with a number the training would silently get no GPU.
    gpu_count: str = Field(
        "1",
        pattern=r"^[0-9]{1,2}$",
        description='Number of GPUs per training, in digits, as a string; "0" trains on CPUs.',
    )
    gpu_node_selector: dict[str, str] = Field(
        {},
        description='Labels that a node must have for training, for instance {"cloud.google.com/gke-accelerator": '
        '"nvidia-l4"}.',
    )
    gpu_tolerations: tuple[Toleration, ...] = Field(
        (),
        description='Kubernetes tolerations of the training pods, for instance [{"key": "nvidia.com/gpu", "operator": '
        '"Exists", "effect": "NoSchedule"}].',
    )
    gpu_type: str = Field(
        "nvidia.com/gpu",
        pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
        description="Resource name of the GPUs, as nodes offer it.",
    )


def _train(backbone: str) -> Task:
    # A training that diverged doesn't end the run: the gate rejects it, and the other candidate continues.
    fixed = {"backbone": backbone, "record_divergence": True}
    return Task(TrainConfig, ("train", backbone), inputs=("examples", "out"), fixed=fixed)


_SERVING = {name: f"deploy.{name}" for name in ("name", "model_root", "endpoint", "endpoint_host")}
# The test split is scored once, by package.
_SPLIT = {"split": "valid"}

_TASKS = {
    "assemble": Task(AssembleConfig, ("assemble",), inputs=("out",)),
    "convert": Task(ConvertConfig, ("convert",), inputs=("dataset", "out")),
    "validate": Task(ValidateConfig, ("validate",), inputs=("examples", "out"), taken={"baseline": "data_baseline"}),
    **{backbone: _train(backbone) for backbone in TRAINED_BACKBONES},
    "evaluate": Task(EvaluateConfig, ("evaluate",), inputs=("model", "examples", "out"), fixed=_SPLIT),
    "evaluate_serving": Task(EvaluateConfig, ("evaluate",), inputs=("examples", "out"), fixed=_SPLIT, taken=_SERVING),
    "gate": Task(GateConfig, ("gate",), inputs=("evaluations", "serving", "out")),
    "package": Task(
        PackageConfig, ("package",), inputs=("model", "examples", "decision", "out"), taken={"name": "deploy.name"}
    ),
    "deploy": Task(DeployConfig, ("deploy",), inputs=("package", "out"), fixed={"dry_run": False, "reason": ""}),
}

_HEADLINES = {
    "data": Headline(
        ("assemble.data",),
        SAMPLE,
        "Folder of class folders, local or in a bucket, DIR/<class>/* or DIR/{train,valid,test}/<class>/*, or 'sample' "
        "for the synthetic sample, which is ignored if data_labels is given.",
    ),
    "data_imagery": Headline(("assemble.imagery",)),
    "data_labels": Headline(("assemble.labels",)),
    "data_positive_label": Headline(("assemble.positive_label",)),
    "data_seed": Headline(
        ("assemble.seed", "train.seed"), help="Seed of the split, and of weights and shuffling in training."
    ),
    "data_zoom": Headline(("assemble.zoom",)),
    "deploy_endpoint": Headline(
        ("deploy.endpoint",),
        help="Address of the server that watches the model root: http://, https:// or grpc://, host and port. Empty: a "
        "temporary server is started for the check. With deploy_target 'kserve', the http:// or https:// address that "
        "users call; by default that of the HTTPRoute's Gateway.",
    ),
    "deploy_model_name": Headline(("deploy.name",)),
    "deploy_model_root": Headline(
        ("deploy.model_root",),
        "",
        "Folder, local or in a bucket, that the endpoint's server watches; the model is written to its "
        "<name>/<version>, with deploy_target 'kserve' to its <name>-releases/<version>/<version>. Empty: the object "
        f"store of Kubeflow Pipelines with 'kserve', else {LOCAL_ROOT}.",
    ),
    "deploy_namespace": Headline(("deploy.namespace",)),
    "deploy_strategy": Headline(("deploy.strategy",)),
    "deploy_target": Headline(
        ("deploy.target",),
        "auto",
        "Deployment target: 'kserve', KServe on the cluster; 'local', a model root that `sat_xception serve` watches; "
        "'none', the package is only checked. 'auto': on a cluster 'kserve' if KServe and the manifests are there, "
        "else 'none', with the reason; 'local' on this machine.",
    ),
    "gate_max_loss": Headline(("gate.max_loss",)),
    "gate_min_accuracy": Headline(("gate.min_accuracy",)),
    "gate_min_precision": Headline(("gate.min_precision",)),
    "gate_min_recall": Headline(("gate.min_recall",)),
    "train_checkpoints": Headline(
        ("train.checkpoints",),
        help="Folder or bucket address for training checkpoints, so that a training resumes after its node was taken "
        "away. Empty: checkpoints are lost with the pod, and a retry starts from the beginning.",
    ),
    "train_fine_tune_epochs": Headline(("train.fine_tune_epochs",)),
    **{
        f"{name}_weights": Headline(
            (f"{name}.weights",),
            help=f"Initial weights of {get_backbone(name).title}: 'imagenet' (downloaded), a path or bucket address of "
            "a .h5 file, or 'none'.",
        )
        for name in TRAINED_BACKBONES
    },
    **{f"{name}_alpha": Headline((f"{name}.alpha",)) for name in TRAINED_BACKBONES if get_backbone(name).has_alpha},
}
# Settings with paths that one task writes and another task, or the next run, reads.
_KEPT = {
    "assemble": ("tile_cache",),
    **{backbone: ("checkpoints", "tensorboard") for backbone in TRAINED_BACKBONES},
}


def set_model_root(resolved: Resolved, root: str) -> None:
    """Set the model root of the tasks that write and read it."""
    for task in ("deploy", "evaluate_serving"):
        resolved.tasks[task].values["model_root"] = root


def _set_dependent_defaults(resolved: Resolved) -> None:
    """Set the model root, if none is given or as the tasks reach it; leave out the sample if other data is given."""
    deploy = resolved.tasks["deploy"]
    target = deploy.get("target")
    on_kserve = target == "kserve" or (target == "auto" and in_pod())
    if not deploy.get("model_root"):
        set_model_root(resolved, INSTALLATION_ROOT if on_kserve else LOCAL_ROOT)
    _use_mounted_model_root(resolved, on_kserve)
    _take_one_source(resolved)


def _use_mounted_model_root(resolved: Resolved, on_kserve: bool) -> None:
    """Write a model root on a volume through its mount, and have KServe's pods read it from the claim."""
    deploy = resolved.tasks["deploy"]
    root = str(deploy.get("model_root"))
    if mounted := mounted_path(root):
        set_model_root(resolved, mounted)
    address = claim_address(mounted or root)
    if address and on_kserve and not deploy.get("storage_uri"):
        deploy.values["storage_uri"] = address


def _take_one_source(resolved: Resolved) -> None:
    """Leave out the sample, the default of `data`, if labels or folders of splits are given instead."""
    assemble = resolved.tasks["assemble"]
    if assemble.get("data") == SAMPLE and (assemble.get("labels") or assemble.get("train")):
        assemble.values["data"] = ""


def _find_problems(resolved: Resolved) -> list[str]:
    deploy = resolved.tasks["deploy"]
    problems = find_unmounted({deploy.names["model_root"]: str(deploy.get("model_root"))})
    return problems + (_find_problems_in_a_pod(resolved) if in_pod() else [])


def _find_problems_in_a_pod(resolved: Resolved) -> list[str]:
    """Return the problems on a cluster, where each task has its own pod, and so its own disk."""
    kept = {name: str(resolved.parameters[name] or "") for name in ("data_baseline", "data_store")}
    for task, settings in _KEPT.items():
        given = resolved.tasks[task]
        kept |= {given.names[name]: str(given.get(name) or "") for name in settings}
    problems = find_volume_problems() + find_lost(kept)
    deploy = resolved.tasks["deploy"]
    root, target = str(deploy.get("model_root")), deploy.get("target")
    if target != "none" and not is_lost(root):
        problems += find_lost({deploy.names["model_root"]: root})
    elif target != "none":
        problems.append(
            f"{deploy.names['model_root']}: {root!r} is lost with its pod, and nothing could serve it; give an "
            f"address in a bucket that the endpoint's pods can read, or {where_to()}; or set deploy_target to 'none' "
            "to end with a packaged model"
        )
    if target == "local" and not deploy.get("endpoint"):
        problems.append(
            f"{deploy.names['target']}: 'local' needs deploy_endpoint on a cluster, the address of a server that "
            "follows deploy_model_root; set deploy_target to 'kserve' to deploy to KServe, or to 'none' to end with a "
            "packaged model"
        )
    return problems


TRAINING = PipelineSettings(
    name="school-classifier-training",
    tasks=_TASKS,
    headlines=_HEADLINES,
    parameters=TrainingParameters,
    adjust=_set_dependent_defaults,
    find_problems=_find_problems,
    flat_key="backbone",
    moved_from={"data": ("assemble", "validate")},
    renamed={"data_accept_anomalies": "validate.accept"},
)
