"""Every component is a thin contract of the verb of its name, and its folder holds what an image is built from."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from components import images
from components.images import image
from sat_xception.steps import step_named

ROOT = Path(__file__).parents[2]
# Components without an image of their own, and the step whose image they run in.
SHARING = {component: step for step, components in images._SHARING.items() for component in components}
COMPONENTS = sorted(path.parent.name for path in (ROOT / "components").glob("*/component.py"))


def load(name):
    return getattr(importlib.import_module(f"components.{name}.component"), name)


def function_node(name):
    tree = ast.parse((ROOT / "components" / name / "component.py").read_text())
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef))


def test_there_is_a_component_for_every_step_of_the_pipeline():
    training = {"check", "assemble", "convert", "validate", "train", "evaluate", "evaluate_serving", "gate", "package"}
    training |= {"deploy", "notify"}
    assert training | {"bulk_plan", "bulk_predict", "bulk_publish"} == set(COMPONENTS)


@pytest.mark.parametrize("name", sorted(set(COMPONENTS) - SHARING.keys()))
def test_folder_holds_everything_its_image_needs(name):
    folder = ROOT / "components" / name
    dockerfile = (folder / "Dockerfile").read_text()
    assert f"components/{name}/{'${REQUIREMENTS}' if name == 'train' else 'requirements.txt'}" in dockerfile
    assert "USER 65532" in dockerfile
    assert 'ENTRYPOINT ["sat_xception"]' in dockerfile
    assert "--hash=sha256:" in (folder / "requirements.txt").read_text()


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_has_a_readme(name):
    assert (ROOT / "components" / name / "README.md").read_text().startswith(f"# {name}\n")


@pytest.mark.parametrize("name", COMPONENTS)
def test_component_runs_on_its_own_image_or_on_that_of_the_step_it_shares(name):
    container = load(name).component_spec.implementation.container
    assert container.image == image(SHARING.get(name, name))
    assert "pip install" not in " ".join(container.command)


@pytest.mark.parametrize("name", COMPONENTS)
def test_no_component_has_an_optional_artifact(name):
    """Real input artifacts have no schema title, and kfp's executor can't make an instance of `Optional[…]`."""
    inputs = load(name).component_spec.inputs or {}
    assert not [key for key, item in inputs.items() if item.optional and item.type.startswith("system.")]


@pytest.mark.parametrize("name", sorted(set(COMPONENTS) - {"check", "assemble"}))
def test_component_runs_one_verb(name):
    called = [
        node.args[0].value
        for node in ast.walk(function_node(name))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run_step"
    ]
    assert called == [SHARING.get(name, name)]
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
