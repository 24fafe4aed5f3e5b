"""Parameters: held against the pipeline's definitions, and told in the docs."""

import json
from pathlib import Path

import pytest

from sat_xception.errors import ConfigError
from sat_xception.kubeflow.checkout import compile_pipeline
from sat_xception.kubeflow.parameters import parameter_table, read_parameters, typed_parameters, write_table
from sat_xception.kubeflow.spec import read_pipeline
from sat_xception.kubeflow.training_settings import TRAINING

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


# Parameters of version 3, when every setting of the pipeline was one.
BEFORE = """
    data data_accept_anomalies data_baseline data_block_zoom data_fractions data_imagery
    data_imagery_attribution data_imagery_bands data_imagery_contact data_imagery_scale data_imagery_tms
    data_imagery_token_env data_keep_near_duplicates data_label data_label_column data_labels data_labels_layer
    data_max_drift data_max_failed data_max_skew data_max_unplaced data_near_duplicate_bits data_negative_label
    data_negatives_buffer_m data_negatives_distance_m data_negatives_lookalikes data_negatives_lookalikes_layer
    data_negatives_ratio data_negatives_review data_negatives_review_layer data_negatives_review_weight
    data_negatives_within data_negatives_within_layer data_positive_label data_rate_per_s data_seed
    data_slice_columns data_split_column data_store data_tile_cache data_tile_size data_workers data_zoom
    deploy_endpoint deploy_endpoint_host deploy_max_slowdown deploy_min_agreement deploy_model_name
    deploy_model_root deploy_namespace deploy_start_minutes deploy_step_minutes deploy_storage_uri
    deploy_strategy deploy_target deploy_traffic_steps evaluate_goal gate_max_calibration_error gate_max_loss
    gate_min_accuracy gate_min_gain gate_min_precision gate_min_recall gate_min_slice_accuracy
    gate_min_slice_recall gate_min_slice_tiles gpu_count gpu_node_selector gpu_tolerations gpu_type
    mobilenetv2_alpha mobilenetv2_input_size mobilenetv2_scratch_epochs mobilenetv2_weights train_batch_size
    train_checkpoints train_fine_tune_epochs train_head_epochs train_search_trials xception_input_size
    xception_scratch_epochs xception_weights
""".split()


@pytest.fixture(scope="module")
def training():
    return compile_pipeline("training")


def test_settings_are_written_as_a_mapping_and_sent_as_text(training):
    given = {"settings": {"gate": {"min_gain": -1.0}, "train": {"xla": "off", "fine_tune_learning_rate": 1e-5}}}
    sent = typed_parameters(training.parameters, given, "here", training.name)
    assert isinstance(sent["settings"], str)
    assert sent == typed_parameters(training.parameters, given, "here", training.name)
    texts = TRAINING.check(sent)
    assert json.loads(texts["gate"]) == {"min_gain": -1.0}
    assert json.loads(texts["xception"])["fine_tune_learning_rate"] == 1e-5
    text = {"settings": "gate: {min_gain: -1}"}
    assert typed_parameters(training.parameters, text, "here", training.name) == text
    with pytest.raises(ConfigError, match="parameter 'settings' in here must be a text, got 3"):
        typed_parameters(training.parameters, {"settings": 3}, "here", training.name)


def test_every_parameter_of_before_is_one_still_or_has_an_address_in_settings(training):
    assert len(BEFORE) == 82
    moved = [name for name in BEFORE if name not in training.parameters]
    assert len(moved) > 50
    for name in moved:
        section, _, setting = TRAINING.moved(name).partition(".")
        assert setting in TRAINING.sections[section], name
        with pytest.raises(
            ConfigError, match=f"'{name}' in p.yaml is no parameter any more: it is now `{section}.{setting}`"
        ):
            typed_parameters(training.parameters, {name: 1}, "p.yaml", training.name)
    assert TRAINING.moved("data_block_zoom") == "assemble.block_zoom"
    assert TRAINING.moved("data_accept_anomalies") == "validate.accept"
    assert TRAINING.moved("mobilenetv2_input_size") == "mobilenetv2.input_size"
    assert TRAINING.moved("train_search_trials") == "train.search_trials"


def test_every_parameter_that_is_wrong_is_named_at_once(training):
    with pytest.raises(ConfigError) as refused:
        typed_parameters(training.parameters, {"gate_min_acuracy": 1, "data_block_zoom": 9}, "p.yaml", training.name)
    assert "unknown parameter 'gate_min_acuracy' in p.yaml; did you mean 'gate_min_accuracy'?" in str(refused.value)
    assert "`assemble.block_zoom` in the parameter `settings`" in str(refused.value)


def test_a_parameter_of_another_pipeline_has_no_address():
    with pytest.raises(ConfigError, match=r"unknown parameter 'data_block_zoom' in p\.yaml; known ones: a"):
        typed_parameters({"a": {"parameterType": "STRING"}}, {"data_block_zoom": 9}, "p.yaml", "another")
