"""The launcher of the tests shows the faults that a real driver and launcher show."""

from typing import Optional

import pytest
from google.protobuf import json_format
from kfp import dsl

from tests.components.launcher import Launcher


@dsl.component(base_image="python:3.13", install_kfp_package=False)
def make(text: str, number: int, made: dsl.Output[dsl.Model]) -> None:
    with open(made.path, "w") as file:
        file.write(text * number)
    made.metadata.update({"yes": True, "names": ["a"]})


@dsl.component(base_image="python:3.13", install_kfp_package=False)
def take(given: dsl.Input[dsl.Model]) -> str:
    with open(given.path) as file:
        return f"{given.name} {given.metadata['yes']} {given.metadata['names']} {file.read()}"


@dsl.component(base_image="python:3.13", install_kfp_package=False)
def take_or_leave(given: Optional[dsl.Input[dsl.Model]] = None) -> str:  # noqa: UP045 - kfp reads the annotation
    return "none" if given is None else given.path


@dsl.pipeline(name="small")
def small(text: str, number: int = 2):
    made = make(text=text, number=number)
    take(given=made.outputs["made"])
    take_or_leave(given=made.outputs["made"])


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    made = Launcher(json_format.MessageToDict(small.pipeline_spec), tmp_path, monkeypatch)
    made.run("make", text="ab", number=2)
    return made


def test_a_task_finds_what_another_one_made_under_its_id(launcher):
    made = launcher.outputs["make/made"]
    assert launcher.run("take", given=made)["Output"] == f"{made.id} 1 {{'list': ['a']}} abab"


def test_an_optional_artifact_ends_the_task_as_it_does_on_a_cluster(launcher):
    """Without a schema title the executor makes an instance of the annotation, which can't be made of `Optional`."""
    with pytest.raises(TypeError, match=r"Cannot instantiate typing\.(Union|Optional)"):
        launcher.run("take-or-leave", given=launcher.outputs["make/made"])
