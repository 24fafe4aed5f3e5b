"""The examples in docstrings: they parse, and the names, settings and attributes in them exist."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import pkgutil
import re
import textwrap
import typing
from pathlib import Path

import pytest

import sat_xception
from sat_xception.settings.config import StepConfig
from sat_xception.steps.registry import BULK_VERBS, DATASET_VERBS, MODELS_VERBS, STEPS

ROOT = Path(sat_xception.__file__).parent
# Values that an example may use without making them.
_GIVEN = {"jpeg", "root", "client", "out", "write"}
_MODULES = {"np", "Path"}
# Verbs that a notebook doesn't call: they block, or are for the command line alone.
_NOT_IN_NOTEBOOKS = {
    "serve", "review", "notify", "deployments", "train-folders", "show", "gc", "retry-failed",
}  # fmt: skip


def _examples() -> dict[str, str]:
    """Return the example of each docstring in the package, by `module:qualified.name`."""
    found = {}
    for info in pkgutil.walk_packages([str(ROOT)], "sat_xception."):
        path = ROOT.parent / Path(*info.name.split("."))
        path = path / "__init__.py" if info.ispkg else path.with_suffix(".py")
        for name, docstring in _docstrings(ast.parse(path.read_text()), ""):
            if "\nExample:\n" in docstring:
                text = docstring.split("\nExample:\n", 1)[1].split("\n\n")[0]
                found[f"{info.name}:{name}"] = textwrap.dedent(text)
    return found


def _docstrings(node: ast.AST, outer: str) -> typing.Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            name = f"{outer}{child.name}"
            yield name, ast.get_docstring(child) or ""
            yield from _docstrings(child, f"{name}.")


EXAMPLES = _examples()


@functools.cache
def _public() -> dict[str, str]:
    """Return the module of each public class and function that a module of the package defines."""
    names: dict[str, str] = {}
    for info in pkgutil.walk_packages([str(ROOT)], "sat_xception."):
        if not info.ispkg:
            tree = ast.parse((ROOT.parent / Path(*info.name.split("."))).with_suffix(".py").read_text())
            defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
            names |= {name: info.name for name in defined if not name.startswith("_")}
    return names


def _resolve(module: str, name: str) -> object:
    own = vars(importlib.import_module(module))
    if name in own:
        return own[name]
    return getattr(importlib.import_module(_public()[name]), name)


def _check_call(call: ast.Call, target: typing.Any) -> None:
    """Compare a call's arguments with the signature, or with the fields of a settings class."""
    keywords = [str(keyword.arg) for keyword in call.keywords]
    if isinstance(target, type) and issubclass(target, StepConfig):
        fields = target.model_fields
        assert set(keywords) <= set(fields), f"{target.__name__} has no setting {set(keywords) - set(fields)}"
        missing = {name for name, field in fields.items() if field.is_required()} - set(keywords)
        assert not missing, f"{target.__name__} needs {missing}"
    else:
        inspect.signature(target).bind(*call.args, **dict.fromkeys(keywords))


def _type_of(node: ast.expr, known: dict[str, typing.Any], module: str) -> typing.Any:
    """Return the class of an expression; None if it isn't one of ours."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in vars(builtins):
        if node.func.id in _MODULES:
            return None
        target = _resolve(module, node.func.id)
        if isinstance(target, type):
            return target
        return _ours(typing.get_type_hints(target).get("return"))
    if isinstance(node, ast.Attribute):
        owner = _type_of(node.value, known, module)
        if owner is None:
            return None
        assert node.attr in _attributes(owner), f"{owner.__name__} has no {node.attr}"
        member = inspect.getattr_static(owner, node.attr, None)
        if isinstance(member, property | functools.cached_property):
            getter = member.fget if isinstance(member, property) else member.func
            return _ours(typing.get_type_hints(getter).get("return"))
        return _ours(typing.get_type_hints(owner).get(node.attr))
    return None


def _attributes(owner: type) -> set[str]:
    return set(dir(owner)) | set(typing.get_type_hints(owner)) | set(getattr(owner, "model_fields", {}))


def _ours(hint: object) -> type | None:
    """Return the one class of the package in a type hint: `Metrics` of `Metrics | None`."""
    parts = [hint] if isinstance(hint, type) else [part for part in typing.get_args(hint) if isinstance(part, type)]
    found = [part for part in parts if part.__module__.startswith("sat_xception.")]
    return found[0] if len(found) == 1 else None


def check(module: str, text: str) -> None:
    """Check that an example parses, and that what it names exists."""
    tree = ast.parse(text)
    known: dict[str, typing.Any] = {}
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    stored |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = _type_of(node.value, known, module)
        if isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name):
            known[node.optional_vars.id] = _type_of(node.context_expr, known, module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in stored | _GIVEN | _MODULES | set(vars(builtins)):
            _resolve(module, node.id)
        if isinstance(node, ast.Attribute):
            _type_of(node, known, module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id not in _GIVEN | _MODULES | set(vars(builtins)):
                target: typing.Any = _resolve(module, node.func.id)
                if target.__module__.startswith("sat_xception."):
                    _check_call(node, target)


@pytest.mark.parametrize("where", EXAMPLES)
def test_what_an_example_names_exists(where):
    text = EXAMPLES[where]
    if text.startswith(">>>"):
        text = "\n".join(line[4:] for line in text.splitlines() if line.startswith(">>>"))
    check(where.split(":")[0], text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("assemble(AssembleConfig(data='tiles'", SyntaxError),
        ("assemble(AssembleConfig(data='tiles'))", AssertionError),
        ("assemble(AssembleConfig(data='tiles', out='dataset', folder='x'))", AssertionError),
        ("assemble()", TypeError),
        ("assembled(AssembleConfig(data='tiles', out='dataset'))", KeyError),
        ("result = assemble(AssembleConfig(data='tiles', out='dataset'))\nprint(result.tiles)", AssertionError),
        ("print(result.tiles)", KeyError),
    ],
)
def test_an_example_that_is_wrong_is_found(text, error):
    with pytest.raises(error):
        check("sat_xception.dataset.assemble", text)


@pytest.mark.parametrize(
    "function",
    [
        step.function
        for table in (STEPS, DATASET_VERBS, BULK_VERBS, MODELS_VERBS)
        for verb, step in table.items()
        if verb not in _NOT_IN_NOTEBOOKS
    ],
)
def test_functions_that_a_notebook_calls_have_an_example(function):
    assert function in EXAMPLES


def _raises() -> dict[str, list[str]]:
    """Return the errors that docstrings list under `Raises`, by `module:qualified.name`."""
    found = {}
    for info in pkgutil.walk_packages([str(ROOT)], "sat_xception."):
        path = ROOT.parent / Path(*info.name.split("."))
        path = path / "__init__.py" if info.ispkg else path.with_suffix(".py")
        for name, docstring in _docstrings(ast.parse(path.read_text()), ""):
            if "\nRaises:\n" in docstring:
                section = docstring.split("\nRaises:\n", 1)[1].split("\n\n")[0]
                found[f"{info.name}:{name}"] = re.findall(r"^    ([\w.]+):", section, re.MULTILINE)
    return found


def test_errors_that_docstrings_list_exist():
    known = set(_public()) | set(vars(builtins)) | {"struct.error", "httpx.ConnectTimeout", "httpx.ReadTimeout"}
    known |= {"httpx.HTTPError"}
    unknown = {where: set(names) - known for where, names in _raises().items()}
    assert len(unknown) > 300
    assert {where: names for where, names in unknown.items() if names} == {}
