"""Compile the pipelines to YAML that the kfp command line, the Kubeflow UI, the API and kubectl take."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from pathlib import Path

import yaml
from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp.dsl.graph_component import GraphComponent

from components.images import training_note, unbuilt_images
from sat_xception import __version__
from sat_xception.errors import SatXceptionError, ServiceError
from sat_xception.kubeflow.spec import YAML_LOADER
from sat_xception.kubeflow.volumes import find_volumes
from sat_xception.kubeflow.wellformed import find_problems

__all__ = ["compile_pipelines", "compile_spec"]

# By the name of the file: the pipeline, and the name that people see.
_PIPELINES = {
    "training": ("pipelines.training:training", "School classifier: training"),
    "bulk-inference": ("pipelines.bulk_inference:bulk_inference", "Tiles: bulk inference"),
}


def compile_pipelines(folder: Path) -> list[Path]:
    """Write `training.yaml` and `bulk-inference.yaml`, and each as Kubernetes objects, `…-pipeline.yaml`; return all.

    The same code gives the same bytes. A version is named after a digest of the first file: what is applied again
    unchanged changes nothing, and what has changed is a version beside the others.

    Raises:
        ConfigError: $KFP_VERSION is no version that is supported, or $DATA_VOLUME or $RESULTS_VOLUME is wrong.
        ServiceError: The compiler wrote a pipeline that Kubeflow's driver can't run.
    """
    return [path for name in _PIPELINES for path in _compile(name, folder)]


def compile_spec(file_name: str, folder: Path) -> Path:
    """Write `training.yaml` or `bulk-inference.yaml`; return it.

    Raises:
        ConfigError: $KFP_VERSION is no version that is supported, or $DATA_VOLUME or $RESULTS_VOLUME is wrong.
        ServiceError: The compiler wrote a pipeline that Kubeflow's driver can't run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / f"{file_name}.yaml"
    compiler.Compiler().compile(_pipeline(file_name), str(spec))
    documents = list(yaml.load_all(spec.read_bytes(), YAML_LOADER))
    if problems := find_problems(documents[0], documents[1] if len(documents) > 1 else {}):
        raise ServiceError(f"Kubeflow could not run {spec}, as kfp compiled it: {'; '.join(problems)}")
    return spec


def _pipeline(file_name: str) -> GraphComponent:
    module, function = _PIPELINES[file_name][0].split(":")
    # Imported here: the pipelines read the environment, which may be wrong.
    imported = importlib.import_module(module)
    if find_volumes() != imported.VOLUMES:
        # It was made before this process was given these volumes.
        imported = importlib.reload(imported)
    pipeline: GraphComponent = getattr(imported, function)
    return pipeline


def _compile(file_name: str, folder: Path) -> tuple[Path, Path]:
    spec, manifests = compile_spec(file_name, folder), folder / f"{file_name}-pipeline.yaml"
    pipeline, display_name = _pipeline(file_name), _PIPELINES[file_name][1]
    name = pipeline.pipeline_spec.pipeline_info.name
    digest = hashlib.sha256(spec.read_bytes()).hexdigest()[:12]
    options = KubernetesManifestOptions(
        pipeline_name=name,
        pipeline_display_name=display_name,
        pipeline_version_name=f"{name}-{digest}",
        pipeline_version_display_name=f"{__version__}-{digest}",
        include_pipeline_manifest=True,
    )
    compiler.Compiler().compile(
        pipeline, str(manifests), kubernetes_manifest_options=options, kubernetes_manifest_format=True
    )
    return spec, manifests


if __name__ == "__main__":
    try:
        written = compile_pipelines(Path("build"))
    except SatXceptionError as error:
        print(f"error     {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    for path in written:
        print(f"wrote     {path}")
    if note := training_note():
        print(f"note      {note}")
    if missing := unbuilt_images():
        device = os.environ.get("TRAIN_DEVICE")
        command = f"make images TRAIN_DEVICE={device}" if device else "make images"
        count = f"{len(missing)} of the images aren't built from this code yet ({missing[0]} is one)"
        print(f"note      {count}: {command}")
