"""Run the components of a compiled pipeline through kfp's own executor, on inputs as the real driver writes them.

Read in kubeflow/pipelines 2.17.0 (backend/src/v2), and as far as the driver goes seen by running it:

- Input artifacts are made from ML Metadata (metadata/converter.go, `toRuntimeArtifact`): `name` is the id of the
  artifact as a text, beside `uri` and `metadata`. One that a task of the same group made has an empty type,
  `{"instanceSchema": ""}`; one that comes from outside of the group has no `type` at all. Neither has a schema title,
  so kfp's executor makes an instance of the annotation.
- `metadata` of inputs holds `display_name`, the producer's name of the output, and `store_session_info`, beside what
  the component wrote. There a bool is 1 or 0, a list is `{"list": […]}` and a dict is `{"struct": {…}}`
  (metadata.StructValueToMLMDValue).
- Parameters are values of `google.protobuf.Struct` in protojson: a whole number is written without a point whatever its
  type, and a float parameter of 2.0 arrives as 2; empty lists and structs are `[]` and `{}`.
- Output artifacts have `name`, `uri`, `type` and `metadata` (driver/driver.go, `provisionOutputs`); parameters have the
  file /tmp/kfp/outputs/<name>, and the executor's output goes to `output_metadata.json` in the task's folder of the
  store.
- The launcher (component/launcher_v2.go) downloads inputs to where kfp's `Artifact.path` looks for them, and uploads
  what is at the outputs' paths. A component may leave an output unwritten.
- A final status has `state`, `pipelineTaskName` and `pipelineJobResourceName`; `error` is always empty
  (driver/resolve.go). The states are those of ML Metadata: COMPLETE, FAILED, RUNNING, CANCELED.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from google.protobuf import json_format, struct_pb2
from kfp import dsl
from kfp.dsl import executor_main
from kfp.dsl.types import artifact_types

__all__ = ["Launcher", "Output"]

_ROOT = "minio://mlpipeline/v2/artifacts"
_SESSION = '{"Provider":"minio","Params":{"fromEnv":"false"}}'
_CLASSES = {"system.Artifact": dsl.Artifact, "system.Dataset": dsl.Dataset, "system.Model": dsl.Model}
_CLASSES |= {"system.HTML": dsl.HTML, "system.Markdown": dsl.Markdown, "system.Metrics": dsl.Metrics}


class Output:
    """An output artifact of a task, as the launcher records it."""

    def __init__(self, number: int, name: str, runtime: dict[str, Any]) -> None:
        self.id = str(number)
        self.name = name
        self.uri = runtime["uri"]
        self.kind = _CLASSES[runtime["type"]["schemaTitle"]]
        self.metadata: dict[str, Any] = runtime.get("metadata", {})

    @property
    def path(self) -> Path:
        return Path(dsl.Artifact(uri=self.uri).path)

    def as_input(self, in_group: bool) -> dict[str, Any]:
        """Return it as the driver gives it to a task, of the same group or from outside of it."""
        metadata = {key: _as_in_mlmd(value) for key, value in self.metadata.items()}
        metadata |= {"display_name": self.name, "store_session_info": _SESSION}
        made = {"name": self.id, "uri": self.uri, "metadata": metadata}
        return made if in_group else {**made, "type": {"instanceSchema": ""}}


class Launcher:
    """Runs tasks of a compiled pipeline one by one; what they store goes below a folder."""

    def __init__(self, spec: dict[str, Any], folder: Path, monkeypatch: Any) -> None:
        self._spec = spec
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._numbers = itertools.count(17)
        self.outputs: dict[str, Output] = {}
        # kfp looks for what the launcher downloaded at /minio/…; here it is below a folder of the test.
        monkeypatch.setattr(artifact_types, "_MINIO_LOCAL_MOUNT_PREFIX", f"{folder}/minio/")

    def run(self, component: str, task: str = "", in_group: bool = False, **inputs: object) -> dict[str, Any]:
        """Run a component; return its output parameters. Its artifacts are in `outputs`, as `<task>/<name>`."""
        task = task or component
        executor_input = self.executor_input(component, task, in_group, inputs)
        executor = self._spec["deploymentSpec"]["executors"][f"exec-{component}"]["container"]
        module = self.folder / task / "ephemeral_component.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(executor["command"][-1])
        arguments = ["--component_module_path", str(module), "--executor_input", json.dumps(executor_input)]
        function = executor["args"][executor["args"].index("--function_to_execute") + 1]
        self._monkeypatch.setattr(sys, "argv", ["executor", *arguments, "--function_to_execute", function])
        sys.modules.pop("ephemeral_component", None)
        executor_main.executor_main()
        return self._collect(task, executor_input)

    def store(self, name: str, folder: Path) -> None:
        """Put a folder into the store as the output `<task>/<name>` of a task that isn't run here."""
        task, _, output = name.partition("/")
        definitions = self._spec["components"].get(f"comp-{task}", {}).get("outputDefinitions", {}).get("artifacts", {})
        kind = definitions.get(output, {"artifactType": {"schemaTitle": "system.Artifact"}})["artifactType"]
        number = next(self._numbers)
        made = Output(number, output, {"uri": f"{_ROOT}/pipeline/run/{task}/{number}/{output}", "type": kind})
        shutil.copytree(folder, made.path)
        self.outputs[name] = made

    def run_as_process(self, component: str, **inputs: object) -> dict[str, Any]:
        """Run a component as a pod does: by the command of the compiled pipeline, in a process of its own."""
        executor_input = self.executor_input(component, component, False, inputs)
        for artifacts in executor_input["outputs"]["artifacts"].values():
            # The launcher's own folders, which no process here may write to.
            artifacts["artifacts"][0]["uri"] = str(self.folder / component / artifacts["artifacts"][0]["name"])
        executor = self._spec["deploymentSpec"]["executors"][f"exec-{component}"]["container"]
        given = [json.dumps(executor_input) if part == "{{$}}" else part for part in executor["args"]]
        command = [part.replace("python3", sys.executable) for part in executor["command"][:-1]]
        command += [executor["command"][-1], *given]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return self._collect(component, executor_input)

    def executor_input(self, component: str, task: str, in_group: bool, inputs: dict[str, object]) -> dict[str, Any]:
        """Return the input of kfp's executor as the real driver and launcher write it."""
        definition = self._spec["components"][f"comp-{component}"]
        wanted = definition.get("inputDefinitions", {})
        artifacts = {name: value for name, value in inputs.items() if isinstance(value, Output)}
        assert set(inputs) == {*wanted.get("parameters", {}), *wanted.get("artifacts", {})}
        values = struct_pb2.Struct()
        values.update({name: value for name, value in inputs.items() if name not in artifacts})
        root = f"{_ROOT}/pipeline/run/{task}/{next(self._numbers)}"
        local = Path(dsl.Artifact(uri=root).path)
        local.mkdir(parents=True)
        made = definition.get("outputDefinitions", {})
        return {
            "inputs": {
                "parameterValues": _as_protojson(json_format.MessageToDict(values)),
                "artifacts": {name: {"artifacts": [item.as_input(in_group)]} for name, item in artifacts.items()},
            },
            "outputs": {
                "parameters": {
                    name: {"outputFile": str(local / "parameters" / name)} for name in made.get("parameters", {})
                },
                "artifacts": {
                    name: {"artifacts": [{"name": name, "uri": f"{root}/{name}", "type": output["artifactType"]}]}
                    for name, output in made.get("artifacts", {}).items()
                },
                "outputFile": str(local / "output_metadata.json"),
            },
        }

    def _collect(self, task: str, executor_input: dict[str, Any]) -> dict[str, Any]:
        written = Path(executor_input["outputs"]["outputFile"])
        output = json.loads(written.read_text()) if written.is_file() else {}
        for name, given in executor_input["outputs"]["artifacts"].items():
            runtime = {**given["artifacts"][0]}
            if found := output.get("artifacts", {}).get(name):
                runtime |= {key: value for key, value in found["artifacts"][0].items() if key in ("uri", "metadata")}
            self.outputs[f"{task}/{name}"] = Output(next(self._numbers), name, runtime)
        return output.get("parameterValues", {})


def _as_protojson(value: Any) -> Any:
    """Write whole numbers as Go's protojson does, without a point."""
    if isinstance(value, dict):
        return {key: _as_protojson(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_protojson(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_in_mlmd(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        return {"list": value}
    return {"struct": value} if isinstance(value, dict) else value
