"""Compile the pipelines to YAML that the kfp command line, the Kubeflow UI, the API and kubectl take."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from components.images import unbuilt_images
from pipelines import bulk_inference, training
from sat_xception import __version__

__all__ = ["compile_pipelines"]

# By the name of the file: the pipeline, its name on the server, and the one that people see.
_PIPELINES = {
    "training": (training.training, training.PIPELINE_NAME, "School classifier: training"),
    "bulk-inference": (bulk_inference.bulk_inference, bulk_inference.PIPELINE_NAME, "Tiles: bulk inference"),
}


def compile_pipelines(folder: Path) -> list[Path]:
    """Write `training.yaml` and `bulk-inference.yaml`, and each as Kubernetes objects, `…-pipeline.yaml`; return all.

    The same code gives the same bytes. A version is named after a digest of the first file: what is applied again
    unchanged changes nothing, and what has changed is a version beside the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [path for name in _PIPELINES for path in _compile(name, folder)]


def _compile(file_name: str, folder: Path) -> tuple[Path, Path]:
    pipeline, name, display_name = _PIPELINES[file_name]
    spec, manifests = folder / f"{file_name}.yaml", folder / f"{file_name}-pipeline.yaml"
    compiler.Compiler().compile(pipeline, str(spec))
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
    for written in compile_pipelines(Path("build")):
        print(f"wrote     {written}")
    if missing := unbuilt_images():
        print(
            f"note      {len(missing)} of its images aren't built from this code yet ({missing[0]} is one): make images"
        )
