"""Every setting of every step is reachable through the first component of the pipeline."""

import itertools
import json
import os
from types import SimpleNamespace

import pytest
import yaml

from components.check.component import check
from sat_xception.kubeflow.training_settings import TRAINING
from tests.setting_values import candidates, settings_of

# Settings that others need beside them.
CONTEXTS = (
    {},
    {"assemble": {"labels": "l.geojson", "imagery": "tiles"}},
    {"assemble": {"labels": "l.geojson", "imagery": "tiles", "negatives_within": "a", "negatives_lookalikes": "b"}},
    {"assemble": {"labels": "l.geojson", "imagery": "tiles", "negatives_review": "r"}},
    {"assemble": {"train": "train", "data": ""}},
    {"convert": {"runner": "FlinkRunner"}},
    {"deploy": {"target": "kserve", "endpoint": "http://gateway", "model_root": "gs://bucket/models"}},
)
# The page that the component writes.
SUMMARY = SimpleNamespace(uri="", path=os.devnull)


@pytest.fixture(autouse=True)
def library_logs_are_shown(monkeypatch):
    """The component's process that would filter them takes longer to start than the check."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")


def run_check(sections):
    """Return the settings of every task that the component returns for a YAML text."""
    parameters = (*TRAINING.headlines, *TRAINING.parameters.model_fields)
    given = {name: TRAINING.default_of(name) for name in parameters}
    returned = check.python_func(**given, settings=yaml.safe_dump(sections), run="run-1", summary=SUMMARY)
    names = [name for name in check.component_spec.outputs if name != "summary"]
    outputs = dict(zip(names, returned, strict=True))
    source = json.loads(outputs.pop("source"))
    assert source["run"] == "run-1"
    assert outputs.pop("baseline_run") == outputs.pop("deploy_reason") == ""
    return {task: json.loads(text) for task, text in outputs.items()} | {"assemble": source["settings"]}


def test_the_outputs_of_the_component_are_in_the_order_of_the_tasks():
    """It returns the texts in that order, so an output at another position would be the settings of another task."""
    outputs = [name for name in check.component_spec.outputs if name != "summary"]  # artifacts come first
    assert outputs == [
        "source",
        "baseline_run",
        "deploy_reason",
        *(task for task in TRAINING.tasks if task != "assemble"),
    ]


def test_the_component_returns_the_text_of_each_task():
    texts = TRAINING.check({"deploy_target": "local"})  # what "auto" is on this machine
    assert run_check({}) == {task: json.loads(text) for task, text in texts.items()}


@pytest.mark.parametrize(("section", "name"), settings_of(TRAINING))
def test_every_setting_of_every_section_reaches_its_tasks(section, name):
    field = TRAINING.sections[section][name].model_fields[name]
    tasks = [task for task, each in TRAINING.tasks.items() if section in each.sections]
    for value, context in itertools.product(candidates(field.annotation, field.default), CONTEXTS):
        given = {**context, section: {**context.get(section, {}), name: value}}
        try:
            checked = run_check(given)
        except SystemExit:
            continue
        if all(checked[task].get(name) == value for task in tasks):
            return
    pytest.fail(f"no value of {section}.{name} reaches {tasks}")
