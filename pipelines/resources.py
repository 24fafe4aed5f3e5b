"""What each kind of task asks of the cluster, and what may be cached."""

from __future__ import annotations

from kfp import dsl, kubernetes

__all__ = ["acts_outside", "needs_gpu", "reads_webhook", "small", "works_on_data"]

_GPU = "nvidia.com/gpu"


def small(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Ask for what a step needs that only reads and writes a few files."""
    return task.set_cpu_request("200m").set_cpu_limit("1").set_memory_request("512Mi").set_memory_limit("2Gi")


def works_on_data(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Ask for what a step needs that goes through all the tiles on CPUs."""
    return task.set_cpu_request("2").set_cpu_limit("4").set_memory_request("4Gi").set_memory_limit("8Gi")


def needs_gpu(task: dsl.PipelineTask, gpus: int) -> dsl.PipelineTask:
    """Ask for GPUs, and the CPUs and memory that keep them busy."""
    task.set_cpu_request("4").set_cpu_limit("8").set_memory_request("12Gi").set_memory_limit("24Gi")
    return task.set_accelerator_type(_GPU).set_accelerator_limit(gpus)


def acts_outside(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Run the task every time: its result is not in its outputs alone, or its inputs can change unseen."""
    return task.set_caching_options(False)


def reads_webhook(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Give the task the webhook's address from the Secret `sat-xception-webhook`, key `url`, if there is one."""
    return kubernetes.use_secret_as_env(task, "sat-xception-webhook", {"url": "SAT_XCEPTION_WEBHOOK"}, optional=True)
