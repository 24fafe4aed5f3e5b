"""Parameters: held against the pipeline's definitions, and told in the docs."""

from pathlib import Path

import pytest

from sat_xception.errors import ConfigError
from sat_xception.kubeflow.checkout import compile_pipeline
from sat_xception.kubeflow.parameters import parameter_table, read_parameters, typed_parameters, write_table
from sat_xception.kubeflow.spec import read_pipeline

DOCS = Path(__file__).parents[2] / "docs"


def test_a_parameter_without_default_must_have_a_value():
    definitions = {"a": {"parameterType": "STRING"}, "b": {"parameterType": "STRING", "isOptional": True}}
    with pytest.raises(ConfigError, match="no default and no value in here: a"):
        typed_parameters(definitions, {}, "here")
    assert typed_parameters(definitions, {"a": ""}, "here") == {"a": ""}


@pytest.mark.parametrize(("content", "message"), [("- a", "must hold a mapping"), ("a: [", "not valid YAML")])
def test_a_parameter_file_that_is_none_is_refused(tmp_path, content, message):
    path = tmp_path / "p.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_parameters(path)
    with pytest.raises(ConfigError, match="can't read"):
        read_parameters(tmp_path / "absent.yaml")


def test_the_table_has_a_row_for_each_parameter_with_type_and_default(small_yaml):
    table = parameter_table(read_pipeline(small_yaml).parameters)
    assert "| `seed` | whole number | `0` | Seed. |" in table
    assert "| `augment` | true or false | `true` | Whether to turn and flip. |" in table
    assert '| `data` | text | `"sample"` | Where the &lt;class&gt;/\\* \\| folders are. |' in table
    assert len(table.splitlines()) == 2 + 8


def test_writing_the_table_leaves_the_rest_of_the_document_alone(tmp_path, small_yaml):
    definitions = read_pipeline(small_yaml).parameters
    path = tmp_path / "d.md"
    path.write_text("before\n\n<!-- parameters -->\nstale\n<!-- end of parameters -->\n\nafter\n")
    write_table(path, definitions)
    first = path.read_text()
    assert first.startswith("before\n\n") and first.endswith("\n\nafter\n") and "stale" not in first
    write_table(path, definitions)
    assert path.read_text() == first
    path.write_text("no marks")
    with pytest.raises(ConfigError, match="has no"):
        write_table(path, definitions)


@pytest.mark.parametrize(("name", "page"), [("training", "kubeflow.md"), ("bulk-inference", "bulk-pipeline.md")])
def test_the_documented_parameters_are_those_of_the_pipeline(name, page):
    assert parameter_table(compile_pipeline(name).parameters) in (DOCS / page).read_text(), (
        "python -m sat_xception.kubeflow.parameters"
    )


def test_a_number_that_isnt_finite_is_refused_within_a_list_too():
    definitions = {"a": {"parameterType": "LIST"}, "b": {"parameterType": "STRUCT"}}
    for values in ({"a": [0.5, float("nan")], "b": {}}, {"a": [], "b": {"x": {"y": float("inf")}}}):
        with pytest.raises(ConfigError, match="holds a number that isn't finite"):
            typed_parameters(definitions, values, "here")
