"""Every component is a thin contract of the verb of its name, in the image that has the verb's libraries."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from components.images import IMAGES, image
from sat_xception.steps import step_named

ROOT = Path(__file__).parents[2]
# Components that run the verb of another name.
VERBS = {"check": "assemble", "evaluate_serving": "evaluate", "bulk_check": "bulk_publish"}
COMPONENTS = sorted(path.parent.name for path in (ROOT / "components").glob("*/component.py"))


def load(name):
    return getattr(importlib.import_module(f"components.{name}.component"), name)


def function_node(name):
    tree = ast.parse((ROOT / "components" / name / "component.py").read_text())
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef))


def test_there_is_a_component_for_every_step_of_the_pipeline():
    training = {"check", "assemble", "convert", "validate", "train", "evaluate", "evaluate_serving", "gate", "package"}
    training |= {"deploy", "notify"}
    assert training | {"bulk_check", "bulk_plan", "bulk_predict", "bulk_publish"} == set(COMPONENTS)


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_has_a_readme(name):
    assert (ROOT / "components" / name / "README.md").read_text().startswith(f"# {name}\n")


@pytest.mark.parametrize("name", COMPONENTS)
def test_component_runs_in_the_image_that_has_the_libraries_of_its_step(name):
    container = load(name).component_spec.implementation.container
    step = step_named(VERBS.get(name, name))
    assert step.image in IMAGES
    assert container.image == image(step.image)
    assert "pip install" not in " ".join(container.command)


@pytest.mark.parametrize("name", COMPONENTS)
def test_no_component_has_an_optional_artifact(name):
    """Real input artifacts have no schema title, and kfp's executor can't make an instance of `Optional[…]`."""
    inputs = load(name).component_spec.inputs or {}
    assert not [key for key, item in inputs.items() if item.optional and item.type.startswith("system.")]


@pytest.mark.parametrize("name", sorted(set(COMPONENTS) - {"check", "assemble", "bulk_check"}))
def test_component_runs_one_verb(name):
    called = [
        node.args[0].value
        for node in ast.walk(function_node(name))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run_step"
    ]
    assert called == [VERBS.get(name, name)]
    assert step_named(called[0])


@pytest.mark.parametrize("name", COMPONENTS)
def test_body_is_short_and_imports_only_inside(name):
    node = function_node(name)
    statements = [
        item for item in node.body if not isinstance(item, ast.Expr) or not isinstance(item.value, ast.Constant)
    ]
    lines = statements[-1].end_lineno - statements[0].lineno + 1
    assert lines <= 15
    source = (ROOT / "components" / name / "component.py").read_text()
    assert "from __future__" not in source  # kfp can't read annotations that are strings


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_parameter_is_described(name):
    function = load(name).python_func
    documented = inspect.getdoc(function)
    for parameter in inspect.signature(function).parameters:
        assert f"{parameter}: " in documented
