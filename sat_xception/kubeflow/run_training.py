"""Run the training pipeline on this machine, with its steps as processes or in their containers."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sat_xception.clock import run_stamp
from sat_xception.deploy.deployment import Deployment
from sat_xception.evaluate.decision import NO_WINNER, Decision
from sat_xception.kubeflow.checkout import local_images, pipeline_function
from sat_xception.kubeflow.local_runner import FAILURE, StepFailedError, check_path, check_steps_ran, run_pipeline
from sat_xception.kubeflow.run_arguments import RunArguments, run_arguments
from sat_xception.kubeflow.run_result import RunResult
from sat_xception.kubeflow.run_settings import RunConfig
from sat_xception.log import get_logger
from sat_xception.notify.settings import NotifyConfig
from sat_xception.served_model.packaged_model import PackagedModel
from sat_xception.settings.step import TERMINATION_LOG_ENV

__all__ = ["StepFailedError", "run"]

_log = get_logger(__name__)
_EVALUATIONS = ("evaluate", "evaluate-2", "evaluate-serving")
_STEPS = ("check", "assemble", "convert", "validate", "train", "train-2", *_EVALUATIONS, "gate")
_STEPS_OF_A_WINNER = ("package", "deploy")
_WEBHOOK_ENV = NotifyConfig.model_fields["webhook_env"].default
# Cache of kfp's local runner, in the folder of all runs: outputs by a task's inputs and code.
_CACHE = ".cache"


def run(config: RunConfig) -> RunResult:
    """Run the pipeline and check that all expected steps ran.

    Raises:
        ConfigError: A weights file or a path can't be used.
        StepFailedError: A step failed; the message is the step's.
    """
    started = time.monotonic()
    run_id = run_stamp()
    folder = (config.out / run_id).resolve()
    _log.info("run       school-classifier-training on this machine; everything goes to %s", config.out / run_id)
    check_path(folder)
    arguments = run_arguments(config)
    folder.mkdir(parents=True)
    with _step_runner(config, folder, arguments) as runner:
        cache = (config.out / _CACHE).resolve() if config.store else None
        outputs = run_pipeline(pipeline_function("training"), runner, folder, arguments.for_pipeline(), cache)
    check_steps_ran(outputs, _STEPS)
    decision = Decision.read(outputs / "gate" / "decision")
    served = deployment = None
    report = outputs / "gate" / "decision" / "report.html"
    if decision.to_deploy != NO_WINNER:
        check_steps_ran(outputs, _STEPS_OF_A_WINNER)
        deployment = Deployment.read(outputs / "deploy" / "deployment")
        version = outputs / "package" / "served_model" / deployment.name / str(deployment.version)
        served, report = PackagedModel.read(version), version / "report.html"
    shutil.copyfile(report, folder / "report.html")
    return RunResult(config.out / run_id, decision, served, deployment, time.monotonic() - started)


@contextlib.contextmanager
def _step_runner(config: RunConfig, folder: Path, arguments: RunArguments) -> Iterator[Any]:
    """Yield kfp's runner; with containers, start the server and add its address to the settings of deploy."""
    from kfp import local

    failure = {TERMINATION_LOG_ENV: str(folder / FAILURE)}
    if config.runner == "subprocess":
        os.environ.update(failure)
        yield local.SubprocessRunner(use_venv=False)
        return
    # Use the images built on this machine, and no GPU. The components read this when they are imported.
    images = local_images()
    os.environ |= {"IMAGE_REGISTRY": images.LOCAL_REGISTRY, "TRAIN_DEVICE": "cpu"}
    from sat_xception.kubeflow.docker_runner import Server, check_images, step_containers

    executors = pipeline_function("training").pipeline_spec.deployment_spec["executors"].values()
    check_images({executor["container"]["image"] for executor in executors} | {images.image("score")})
    deploy, assemble = arguments.sections["deploy"], arguments.sections["assemble"]
    model_root, token = Path(deploy["model_root"]).resolve(), assemble.get("imagery_token_env", "")
    secrets = {name: os.environ[name] for name in (_WEBHOOK_ENV, token) if name in os.environ}
    server = Server(images.image("score"), model_root, deploy["name"])
    read, write = arguments.paths(read=True), arguments.paths(read=False)
    with step_containers(folder, server, read, write, failure | secrets) as (runner, endpoint):
        deploy |= {"model_root": str(model_root), "endpoint": endpoint}
        yield runner
