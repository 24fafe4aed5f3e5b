"""Compile the pipelines to YAML that the kfp command line, the Kubeflow UI and the API take."""

from __future__ import annotations

from pathlib import Path

from kfp import compiler

from pipelines.training import training

__all__ = ["compile_pipelines"]


def compile_pipelines(folder: Path) -> list[Path]:
    """Write `training.yaml`; the same code gives the same bytes. Return what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "training.yaml"
    compiler.Compiler().compile(training, str(path))
    return [path]


if __name__ == "__main__":
    for written in compile_pipelines(Path("build")):
        print(f"wrote     {written}")
