"""Resources of each kind of task on the cluster: size, timeout, retries, identity, Secrets, GPUs; and caching.

The local runner ignores them. Retries are for what a cluster does to a task, such as taking its node away, and for
services that are temporarily down. Kubeflow can't distinguish these from an error in the data, so a task has retries
only where another try can help, and a run on one machine has none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from kfp import dsl, kubernetes
from kfp.dsl import structures

from sat_xception.errors import ConfigError
from sat_xception.kubeflow.volumes import find_volumes
from sat_xception.storage.object_store import INSTALLATION_KEYS, VARIABLES

__all__ = [
    "DATA",
    "ROLLOUT",
    "SCORING",
    "SMALL",
    "TRAINING",
    "ResourceProfile",
    "add_imagery_token",
    "add_webhook",
    "configure",
    "disable_caching",
    "mount_endpoint_token",
    "mount_storage_key",
    "mount_volumes",
    "retention",
    "retry",
    "use_gpus",
]

_HOUR = 3600
_DAY = 24 * _HOUR
# The user of the images. A number, because Kubernetes can't check that a user with a name isn't root.
_USER = 65532
_STORAGE_KEY_FOLDER = "/var/run/secrets/sat-xception-storage"
_ENDPOINT_FOLDER = "/var/run/secrets/sat-xception-endpoint"


@dataclass(frozen=True)
class ResourceProfile:
    """A kind of task.

    Attributes:
        cpus: Request and limit.
        memory: Request and limit.
        timeout_s: Timeout of one try, in seconds, from when its pod is on a node; waiting for a node isn't counted.
    """

    cpus: tuple[str, str]
    memory: tuple[str, str]
    timeout_s: int


# Peaks of memory were measured on the synthetic sample, on 2 cores, 2026-11-24.
# Reads and writes a few files, or asks a server for a few tiles: the gate takes 0.1 GiB.
SMALL = ResourceProfile(("200m", "1"), ("512Mi", "2Gi"), timeout_s=_HOUR // 2)
# As small, but it watches traffic for the configured time.
ROLLOUT = ResourceProfile(("200m", "1"), ("512Mi", "2Gi"), timeout_s=6 * _HOUR)
# Goes through all the tiles: assemble takes 0.1 GiB, convert and validate 0.7, evaluate and package 1.5 with a small
# input. The manifest is held in memory, a few hundred bytes per tile; images never are.
DATA = ResourceProfile(("2", "4"), ("4Gi", "8Gi"), timeout_s=6 * _HOUR)
# Cores to decode and augment as fast as a GPU learns. The frozen features of 100,000 tiles in four views, 2,048 numbers
# each, are 3.3 GB and are held up to three times while they are handed to TensorFlow.
TRAINING = ResourceProfile(("4", "8"), ("12Gi", "24Gi"), timeout_s=_DAY)

# Fetches, decodes and scores: the model has the cores, and memory is that of a batch and of TensorFlow.
SCORING = ResourceProfile(("4", "8"), ("4Gi", "8Gi"), timeout_s=2 * _DAY)


def retention() -> dsl.PipelineConfig:
    """Return the retention time of a run's Kubernetes objects and the timeout of a run.

    Kubeflow Pipelines 2.17 supports these settings. 2.16, which the Kubeflow distribution 26.03 has, doesn't know them:
    its API server then drops all Kubernetes settings of the pipeline, Secrets, nodes and deadlines, without an error.
    So they are left out unless $KFP_VERSION is 2.17 or newer; it is 2.16 by default.

    Raises:
        ConfigError: $KFP_VERSION is no version, or one that is older than 2.16.
    """
    text = os.environ.get("KFP_VERSION", "2.16")
    parts = text.split(".")
    version = tuple(int(part) for part in parts[:2]) if all(part.isdecimal() for part in parts) else (0,)
    if version < (2, 16):
        raise ConfigError(f"KFP_VERSION={text}: expected the version of Kubeflow Pipelines, 2.16 or newer, as 2.17.0")
    if version < (2, 17):
        return dsl.PipelineConfig()
    # Kubernetes objects of a finished run are of use while somebody looks into it. The run itself, its parameters,
    # metrics and artifacts stay in Kubeflow. The deadline ends a run that waits for a node that never comes.
    return dsl.PipelineConfig(
        ttl_seconds_after_success=3 * _DAY, ttl_seconds_after_failure=14 * _DAY, active_deadline_seconds=5 * _DAY
    )


def configure(task: dsl.PipelineTask, kind: ResourceProfile, name: str) -> dsl.PipelineTask:
    """Set a task's resources, timeout, user, labels, and display name."""
    # As the four setters of kfp 2.17 do, each of which first walks all modules for a name that its error would have:
    # `inspect.stack` while a module is imported. That took 2 s of CPU time for the 13 tasks of the training pipeline.
    task.container_spec.resources = structures.ResourceSpec(
        cpu_request=kind.cpus[0], cpu_limit=kind.cpus[1], memory_request=kind.memory[0], memory_limit=kind.memory[1]
    )
    kubernetes.set_timeout(task, kind.timeout_s)
    kubernetes.set_security_context(task, run_as_user=_USER, run_as_group=_USER, run_as_non_root=True)
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "sat-xception")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", task.component_spec.name)
    return task.set_display_name(name)


def retry(task: dsl.PipelineTask, kind: ResourceProfile, pause_s: int) -> dsl.PipelineTask:
    """Retry a task up to twice, after a pause and then after twice the pause."""
    # Argo counts this from the start of the first try; after it, no other try starts and a running one is ended
    # (argoproj/argo-workflows#13044), so it must cover all tries.
    longest = 3 * (kind.timeout_s + pause_s)
    return task.set_retry(2, backoff_duration=f"{pause_s}s", backoff_factor=2, backoff_max_duration=f"{longest}s")


def disable_caching(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Disable caching, for a task with results outside its outputs or inputs that Kubeflow can't see."""
    return task.set_caching_options(False)


def use_gpus(
    task: dsl.PipelineTask, kind: str, count: str, node_selector: dict[str, str], tolerations: list[dict[str, object]]
) -> dsl.PipelineTask:
    """Request GPUs, with every value taken from the pipeline's parameters.

    Args:
        task: A training.
        kind: Parameter with the resource name, such as "nvidia.com/gpu".
        count: Parameter with the number in digits. Kubeflow's driver reads only strings here: for a number it makes
            no request, without an error. With "0" it writes a limit of 0, which Kubernetes accepts and
            schedules on any node.
        node_selector: Labels that a node must have.
        tolerations: Tolerations as Kubernetes writes them.
    """
    task.set_accelerator_type(kind).set_accelerator_limit(count)
    # The compiler passes to a group the parameters that are registered with its tasks. The setters above write theirs
    # only into the container, so Kubeflow's driver would not find them among the inputs of the group.
    task.register_pipeline_channels([kind, count])
    kubernetes.add_node_selector_json(task, node_selector)
    return kubernetes.add_toleration_json(task, tolerations)


def add_imagery_token(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Give the task the imagery's token from the Secret `sat-xception-imagery`, key `token`, if there is one."""
    return kubernetes.use_secret_as_env(task, "sat-xception-imagery", {"token": "IMAGERY_TOKEN"}, optional=True)


def mount_storage_key(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Give the task the volumes, and the Secret `sat-xception-storage`, if there is one, with the keys of buckets.

    The Secret's key `path` is the path of Google's key file, in the folder that it is mounted at. Without the Secret
    the variable isn't set, and Google's libraries use workload identity; set but naming no file, they would refuse to
    work. Keys for S3 and Azure have the names of their variables.

    The keys of the store that Kubeflow Pipelines brings, for minio://, are in a Secret of its own, in the namespace of
    each run.
    """
    secret = "sat-xception-storage"
    kubernetes.use_secret_as_volume(task, secret, mount_path=_STORAGE_KEY_FOLDER, optional=True)
    variables = {"path": "GOOGLE_APPLICATION_CREDENTIALS", **{name: name for name in VARIABLES}}
    kubernetes.use_secret_as_env(task, secret, variables, optional=True)
    kubernetes.use_secret_as_env(task, "mlpipeline-minio-artifact", INSTALLATION_KEYS, optional=True)
    return mount_volumes(task)


def mount_volumes(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Mount the claims of $DATA_VOLUME and $RESULTS_VOLUME, and give the task these variables."""
    for volume in find_volumes():
        kubernetes.mount_pvc(task, volume.claim, volume.folder, volume.sub_path)
        task.set_env_variable(volume.variable, str(volume))
    return task


def mount_endpoint_token(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Give the task the endpoint's token and authorities from the Secret `sat-xception-endpoint`, if there is one.

    Its keys `token-path` and `ca-path` are the paths of these files, in the folder that it is mounted at. As with the
    storage key, a variable that names a missing file would be an error.
    """
    secret = "sat-xception-endpoint"
    kubernetes.use_secret_as_volume(task, secret, mount_path=_ENDPOINT_FOLDER, optional=True)
    variables = {"token-path": "SAT_XCEPTION_TOKEN_FILE", "ca-path": "SAT_XCEPTION_CA_FILE"}
    return kubernetes.use_secret_as_env(task, secret, variables, optional=True)


def add_webhook(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Give the task the webhook's address from the Secret `sat-xception-webhook`, key `url`, if there is one."""
    return kubernetes.use_secret_as_env(task, "sat-xception-webhook", {"url": "SAT_XCEPTION_WEBHOOK"}, optional=True)
