"""Build the walk through KFP's own code inside a checkout of kubeflow/pipelines, and take pipelines through it.

The Go files in `walk` are a command of ours. Go lays them over the checkout while it builds (`go build -overlay`), so
that they can use KFP's packages; the checkout itself stays as it is.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["VERSIONS", "Run", "Walk", "build"]

VERSIONS = ("2.17",)
_HERE = Path(__file__).parent
# Where Go shall see our files, in the checkout.
_COMMAND = "backend/src/v2/cmd/sat-xception-walk"
_IMPORTER = "backend/src/v2/component/sat_xception_importer.go"


def build(source: Path, folder: Path) -> Path:
    """Build the command in a checkout of kubeflow/pipelines and return its path, in `folder`.

    The first build downloads some 200 Go modules and takes minutes; after that, Go's caches make it seconds.

    Raises:
        ValueError: It is no checkout of a version that the walk knows, there is no Go, or the build fails.
    """
    source = source.resolve()
    version = source / "VERSION"
    if not (source / "backend/src/v2/driver").is_dir() or not version.is_file():
        raise ValueError(f"KFP_SOURCE: {source} is no checkout of kubeflow/pipelines")
    if version.read_text("utf-8").rpartition(".")[0] not in VERSIONS:
        known = " or ".join(f"{known}.x" for known in VERSIONS)
        raise ValueError(f"KFP_SOURCE: {source} is KFP {version.read_text('utf-8').strip()}; check out {known}")
    overlay, binary = folder / "overlay.json", folder / "walk"
    overlay.write_text(json.dumps({"Replace": _overlay(source, folder)}), "utf-8")
    command = ["go", "build", "-ldflags=-s -w", "-overlay", str(overlay), "-o", str(binary), f"./{_COMMAND}"]
    try:
        done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError("KFP_SOURCE is set, but there is no `go` to build with") from None
    if done.returncode:
        raise ValueError(f"go build in {source} failed:\n{done.stderr[-4000:]}")
    return binary


def _overlay(source: Path, folder: Path) -> dict[str, str]:
    """Return the files that Go shall see in the checkout, made for the Argo of its version."""
    argo = re.search(r"argo-workflows/v\d+", (source / "go.mod").read_text("utf-8"))
    if not argo:
        raise ValueError(f"KFP_SOURCE: {source}/go.mod names no Argo")
    files = {source / _COMMAND / path.name: path for path in (_HERE / "walk").glob("*.go")}
    files[source / _IMPORTER] = _HERE / "overlay" / "importer.go"
    replace = {}
    for place, path in files.items():
        made = folder / f"{path.parent.name}-{path.name}"
        made.write_text(path.read_text("utf-8").replace("argo-workflows/v4", argo[0]), "utf-8")
        replace[str(place)] = str(made)
    return replace


@dataclass(frozen=True)
class Run:
    """How a run ended.

    Attributes:
        phase: "Succeeded" or "Failed", as Argo would say; "" where the API server refused the run.
        problem: Why it refused.
        tasks: By path, such as "exit-handler-1/for-loop-2[0]/predict". Each with a `state`: "ran", "cached", "failed",
            "lost", "driver failed", "skipped" (a condition said no), "omitted" (what it waits for didn't succeed) or
            "group"; `error`; `times` that its driver ran; and what the driver wrote: `executor_input`, `pod_spec`,
            `fingerprint`, `iterations`; `component` and `container` are what it was given; `metadata` is the state
            that ML Metadata has of it in the end.
    """

    phase: str
    problem: str
    tasks: dict[str, dict[str, Any]]

    def __getitem__(self, name: str) -> dict[str, Any]:
        """Return a task by its path, or by the end of it."""
        found = [task for path, task in self.tasks.items() if f"/{path}".endswith(f"/{name}")]
        if len(found) != 1:
            raise KeyError(f"{len(found)} tasks are called {name!r}; there are {', '.join(sorted(self.tasks))}")
        return found[0]

    def states(self) -> dict[str, str]:
        """Return what became of each task that isn't a group, by its name without the groups that it is in."""
        groups = {path.rpartition("/")[0] for path in self.tasks}
        groups |= {group.rpartition("[")[0] for group in groups if group.endswith("]")}
        tasks = {path: task for path, task in self.tasks.items() if task["state"] != "group" and path not in groups}
        return {_short(path): task["state"] for path, task in tasks.items()}

    def errors(self) -> dict[str, str]:
        """Return why drivers and importers failed, by path."""
        return {path: task["error"] for path, task in self.tasks.items() if task.get("error")}


@dataclass(frozen=True)
class Walk:
    """Take compiled pipelines through KFP's code."""

    binary: Path

    def __call__(self, pipeline: Path, *runs: dict[str, Any]) -> list[Run]:
        """Return how runs of a pipeline end, one after the other, with one store of metadata and one cache.

        Args:
            pipeline: Compiled YAML.
            runs: Each with `parameters`; `outputs`, output parameters by task and name; `fail` and `lost`, names of
                tasks whose component fails, or whose pod is lost.

        Raises:
            ValueError: The API server's parser refuses the pipeline.
        """
        asked = json.dumps({"pipeline": str(pipeline), "runs": list(runs)})
        done = subprocess.run([self.binary], input=asked, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the walk broke off:\n{done.stderr[-4000:]}")
        answer = json.loads(done.stdout)
        if problem := answer.get("problem"):
            raise ValueError(problem)
        return [Run(run.get("phase", ""), run.get("problem", ""), run.get("tasks", {})) for run in answer["runs"]]


def _short(path: str) -> str:
    parent, _, name = path.rpartition("/")
    return f"{name}[{parent.rpartition('[')[2]}" if parent.endswith("]") else name
