"""Compile the pipelines to YAML that the kfp command line, the Kubeflow UI, the API and kubectl take."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from components.images import unbuilt_images
from pipelines.training import PIPELINE_NAME, training
from sat_xception import __version__

__all__ = ["compile_pipelines"]

_DISPLAY_NAME = "School classifier: training"


def compile_pipelines(folder: Path) -> list[Path]:
    """Write `training.yaml`, and `training-pipeline.yaml` with the same as Kubernetes objects; return both paths.

    The same code gives the same bytes. The version is named after a digest of `training.yaml`: what is applied again
    unchanged changes nothing, and what has changed is a version beside the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec, manifests = folder / "training.yaml", folder / "training-pipeline.yaml"
    compiler.Compiler().compile(training, str(spec))
    digest = hashlib.sha256(spec.read_bytes()).hexdigest()[:12]
    options = KubernetesManifestOptions(
        pipeline_name=PIPELINE_NAME,
        pipeline_display_name=_DISPLAY_NAME,
        pipeline_version_name=f"{PIPELINE_NAME}-{digest}",
        pipeline_version_display_name=f"{__version__}-{digest}",
        include_pipeline_manifest=True,
    )
    compiler.Compiler().compile(
        training, str(manifests), kubernetes_manifest_options=options, kubernetes_manifest_format=True
    )
    return [spec, manifests]


if __name__ == "__main__":
    for written in compile_pipelines(Path("build")):
        print(f"wrote     {written}")
    if missing := unbuilt_images():
        print(
            f"note      {len(missing)} of its images aren't built from this code yet ({missing[0]} is one): make images"
        )
