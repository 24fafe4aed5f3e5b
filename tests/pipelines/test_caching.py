"""What Kubeflow's cache finds done in a run on data that hasn't changed, by the real cache's own key.

The inputs of each task are resolved here as the driver resolves them; its cache looks a task up by the key that
`tests/kfp_cache_key.py` computes as the backend does, and a task that it finds hands on the artifacts of
the run before.
"""

import inspect
import itertools
import re

import pytest
from google.protobuf import json_format

from pipelines.training import training
from sat_xception.kubeflow.training_settings import TRAINING
from tests.kfp_cache_key import fingerprint

DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(training.pipeline_func).parameters.items()}
ADDRESS = "gs://bucket/datasets/" + "a" * 64
OTHER = "gs://bucket/datasets/" + "b" * 64
KSERVE = {"deploy_target": "kserve", "deploy_model_root": "gs://bucket/models", "deploy_endpoint": "http://gateway"}
ORDER = [
    "check",
    "assemble",
    "convert",
    "validate",
    "train",
    "train-2",
    "evaluate",
    "evaluate-2",
    "evaluate-serving",
    "gate",
]
DATA = {"assemble", "convert", "validate", "train", "train-2", "evaluate", "evaluate-2"}


class Kubeflow:
    """The driver's resolving of inputs, and the cache, over several runs of one pipeline."""

    def __init__(self):
        self.spec = json_format.MessageToDict(training.pipeline_spec)
        self._known = {}
        self._ids = itertools.count(1)

    def run(self, returned, **changes):
        """Run the tasks up to the gate; return the keys of those that may be cached, and the tasks that were.

        Args:
            returned: What check and the gate return, by task.
            changes: Parameters of the pipeline that aren't at their defaults.
        """
        given = {**DEFAULTS, **changes}
        outputs, keys, cached = {}, {}, set()
        for task in ORDER:
            key = self.key_of(task, outputs, returned, given)
            spec = self._tasks()[task]
            if not spec.get("cachingOptions", {}).get("enableCache"):
                outputs[task] = self._new_artifacts(task)
                continue
            keys[task] = key
            if key in self._known:
                cached.add(task)
            else:
                self._known[key] = self._new_artifacts(task)
            outputs[task] = self._known[key]
        return keys, cached

    def key_of(self, task, outputs, returned, given):
        spec = self._tasks()[task]
        component = self.spec["components"][spec["componentRef"]["name"]]
        inputs = {"parameterValues": {}, "artifacts": {}}
        for name, source in spec.get("inputs", {}).get("parameters", {}).items():
            inputs["parameterValues"][name] = self._parameter(source, returned, given)
        for name, source in spec.get("inputs", {}).get("artifacts", {}).items():
            made = source["taskOutputArtifact"]
            inputs["artifacts"][name] = {
                "artifacts": [{"name": outputs[made["producerTask"]][made["outputArtifactKey"]]}]
            }
        definitions = component.get("outputDefinitions", {})
        made = {
            name: {"artifacts": [{"name": name, "type": output["artifactType"], "uri": "minio://…"}]}
            for name, output in definitions.get("artifacts", {}).items()
        }
        parameters = {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in definitions.get("parameters", {})}
        executor_input = {"inputs": inputs, "outputs": {"artifacts": made, "parameters": parameters}}
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        return fingerprint(executor_input, component, container)

    def _parameter(self, source, returned, given):
        if "componentInputParameter" in source:
            return given[source["componentInputParameter"].removeprefix("pipelinechannel--")]
        if "taskOutputParameter" in source:
            made = source["taskOutputParameter"]
            return returned[made["producerTask"]][made["outputParameterKey"]]
        value = source["runtimeValue"]["constant"]
        if isinstance(value, str) and (
            named := re.fullmatch(r"\{\{\$\.inputs\.parameters\['pipelinechannel--(.+)'\]\}\}", value)
        ):
            return given[named[1]]
        return value

    def _tasks(self):
        return self.spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]

    def _new_artifacts(self, task):
        component = self.spec["components"][self._tasks()[task]["componentRef"]["name"]]
        return {name: str(next(self._ids)) for name in component.get("outputDefinitions", {}).get("artifacts", {})}


@pytest.fixture
def kubeflow():
    return Kubeflow()


def found(source, run="", **parameters):
    """Return what check returns for parameters of the pipeline."""
    settings = TRAINING.check(parameters)
    settings.pop("assemble")
    return {"check": {"source": source, "baseline_run": run, **settings}}


def test_a_first_run_takes_nothing_from_the_cache(kubeflow):
    keys, cached = kubeflow.run(found(ADDRESS))
    assert set(keys) == DATA
    assert not cached


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gate_min_accuracy": 0.95, "gate_min_recall": 0.5, "gate_max_loss": 0.2},
        {"settings": "gate: {min_slice_recall: 0.7, min_accuracy: 0.5}"},
        {"settings": "train: {optimizer: adam, batch_size: 32}\nevaluate: {goal: f1}\nconvert: {shard_mb: 128}"},
        {**KSERVE, "deploy_strategy": "canary"},
        {"settings": "assemble: {max_pixels: 10000}", "data_store": "gs://bucket/datasets"},
        {"gpu_node_selector": {"pool": "gpu"}, "gpu_tolerations": [{"operator": "Exists"}]},
    ],
)
def test_on_the_same_data_nothing_is_trained_whatever_else_has_changed(kubeflow, changes):
    before, _ = kubeflow.run(found(ADDRESS))
    after, cached = kubeflow.run(found(ADDRESS, **changes), **changes)
    assert after == before
    assert cached == DATA


def test_with_one_tile_more_everything_is_computed_anew(kubeflow):
    before, _ = kubeflow.run(found(ADDRESS))
    after, cached = kubeflow.run(found(OTHER))
    assert not cached
    assert not [task for task in DATA if after[task] == before[task]]


def test_the_data_of_an_earlier_run_is_found_again(kubeflow):
    kubeflow.run(found(ADDRESS))
    kubeflow.run(found(OTHER))
    assert kubeflow.run(found(ADDRESS))[1] == DATA


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"train_fine_tune_epochs": 7}, {"train", "train-2", "evaluate", "evaluate-2"}),
        ({"settings": "train: {head_epochs: 7}"}, {"train", "train-2", "evaluate", "evaluate-2"}),
        ({"settings": "backbone: mobilenetv2\ndropout: 0.5"}, {"train-2", "evaluate-2"}),
        ({"xception_weights": "none"}, {"train", "evaluate"}),
        ({"settings": "evaluate: {goal: 'recall-at-precision:0.9'}"}, {"evaluate", "evaluate-2"}),
        ({"settings": "validate: {accept: ['*:*:*']}"}, {"validate"}),
        ({"settings": "convert: {shard_mb: 64}"}, DATA - {"assemble"}),
        ({"gpu_count": "2"}, {"train", "train-2", "evaluate", "evaluate-2"}),
    ],
)
def test_another_setting_computes_what_takes_it_and_what_follows_from_that(kubeflow, change, again):
    kubeflow.run(found(ADDRESS))
    assert kubeflow.run(found(ADDRESS, **change), **change)[1] == DATA - again


def test_validate_renews_a_baseline_in_each_run_and_nothing_is_trained_for_that(kubeflow):
    given = {"data_baseline": "gs://bucket/baseline"}
    kubeflow.run(found(ADDRESS, "run-1", **given), **given)
    assert kubeflow.run(found(ADDRESS, "run-2", **given), **given)[1] == DATA - {"validate"}


def test_without_a_store_every_run_computes_everything(kubeflow):
    kubeflow.run(found('{"run": "run-1", "settings": {}}'))
    assert not kubeflow.run(found('{"run": "run-2", "settings": {}}'))[1]


def test_new_code_of_a_step_computes_it_and_what_follows_anew(kubeflow):
    kubeflow.run(found(ADDRESS))
    for name in ("exec-evaluate", "exec-evaluate-2"):
        container = kubeflow.spec["deploymentSpec"]["executors"][name]["container"]
        container["image"] = container["image"].rpartition(":")[0] + ":0therc0de"
    assert kubeflow.run(found(ADDRESS))[1] == DATA - {"evaluate", "evaluate-2"}
