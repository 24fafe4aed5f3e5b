"""Wrong parameters of the pipeline are refused at once, all together, by their own names."""

import inspect

import pytest

from pipelines.training import training
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.errors import ConfigError
from sat_xception.kubeflow.training_parameters import check_parameters

DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(training.pipeline_func).parameters.items()}


def message(**changes):
    """Return what is said of these parameters, the others at their defaults."""
    assert not set(changes) - set(DEFAULTS)
    with pytest.raises(ConfigError) as refused:
        check_parameters({**DEFAULTS, **changes})
    return str(refused.value)


def test_the_defaults_are_right_and_give_assemble_its_settings():
    settings = check_parameters({**DEFAULTS, "dataset": "an output"})
    assert AssembleConfig(**settings, out="o") == AssembleConfig(data="sample", out="o")


LABELS = {"data_labels": "gs://bucket/schools.geojson", "data_imagery": "https://tiles.example/{z}/{x}/{y}.jpg"}


def test_labels_take_the_place_of_the_sample_with_all_that_says_how():
    more = {"data_zoom": 17, "data_negatives_ratio": 1.5, "data_slice_columns": ["setting"], "data_label": "school"}
    settings = check_parameters({**DEFAULTS, **LABELS, **more})
    config = AssembleConfig(**settings, out="o")
    assert (str(config.labels), config.data, config.zoom) == (LABELS["data_labels"], "", 17)
    assert (config.negatives_ratio, config.slice_columns, config.label) == (1.5, ("setting",), "school")
    assert check_parameters({**DEFAULTS, **LABELS, **more, "data": ""}) == settings


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({**LABELS, "data": "gs://bucket/tiles"}, "data, data_labels: give one of them; got 'gs://bucket/tiles' and"),
        ({"data_labels": "l.geojson"}, "data_labels and data_imagery go together"),
        ({"data_imagery": "u"}, "data_labels and data_imagery go together"),
        ({"data_zoom": 17}, "data_zoom goes with data_labels, which isn't given"),
        ({"data": "tiles", "data_zoom": 17, "data_negatives_ratio": 1.0}, "data_zoom, data_negatives_ratio go with"),
        ({"data": "", "data_zoom": 17}, "data: give a folder, 'sample', or data_labels instead; got ''"),
        ({**LABELS, "data_block_zoom": 20}, "data_block_zoom 20 is above data_zoom 18"),
        ({**LABELS, "data_negatives_buffer_m": 2e4}, "data_negatives_distance_m must be more than data_negatives_buf"),
    ],
)
def test_parameters_that_do_not_go_together_are_told_by_their_names(changes, told):
    text = message(**changes)
    assert told in text
    assert "--" not in text


CLUSTER = {"deploy_target": "kserve", "deploy_model_root": "gs://bucket/models", "deploy_endpoint": "http://gateway"}


@pytest.fixture
def in_a_pod(monkeypatch):
    monkeypatch.setenv("KFP_POD_NAME", "run-abc-system-container-impl-123")


@pytest.mark.usefixtures("in_a_pod")
def test_in_a_pod_the_defaults_are_refused_with_what_to_set():
    text = message()
    assert "deploy_model_root: 'models/serving' is lost with its pod, and nothing could serve it; give a gs://" in text
    assert "deploy_target: 'local' needs deploy_endpoint on a cluster" in text
    assert "set deploy_target to 'kserve' to deploy to KServe, or to 'none' to end with a packaged model" in text


@pytest.mark.usefixtures("in_a_pod")
@pytest.mark.parametrize(
    "changes",
    [
        CLUSTER,
        {"deploy_target": "none"},
        {"deploy_endpoint": "http://server:8501", "deploy_model_root": "gs://bucket/models"},
        {**CLUSTER, "data_store": "gs://bucket/datasets", "data_baseline": "gs://bucket/baseline"},
    ],
)
def test_in_a_pod_what_can_work_there_is_accepted(changes):
    check_parameters({**DEFAULTS, **changes})


@pytest.mark.usefixtures("in_a_pod")
def test_in_a_pod_a_mounted_folder_is_accepted(tmp_path):
    changes = {"deploy_model_root": str(tmp_path), "deploy_storage_uri": "pvc://models/serving"}
    check_parameters({**DEFAULTS, **CLUSTER, **changes, "data_store": str(tmp_path)})


@pytest.mark.usefixtures("in_a_pod")
@pytest.mark.parametrize("name", ["data_baseline", "data_store", "data_tile_cache", "train_checkpoints"])
@pytest.mark.parametrize("path", ["kept/here", "/not/mounted"])
def test_in_a_pod_what_would_be_lost_with_it_is_refused(name, path):
    text = message(**CLUSTER, **{name: path})
    assert f"{name}: {path!r} is lost with its pod; give a gs:// address, or a folder of a mounted volume" in text


def test_elsewhere_the_same_paths_are_accepted():
    check_parameters({**DEFAULTS, "data_baseline": "kept/here", "data_store": "store"})


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("data", ""),
        ("data_fractions", [0.7, 0.7, 0.1]),
        ("data_fractions", [1.0]),
        ("data_max_failed", 2.0),
        ("data_max_skew", 0.0),
        ("data_max_unplaced", 2.0),
        ("data_seed", "no"),
        ("deploy_endpoint", "example.org:8501"),
        ("deploy_model_name", "School Classifier"),
        ("evaluate_goal", "f2"),
        ("gate_max_calibration_error", -0.1),
        ("gate_max_loss", 1.1),
        ("gate_min_slice_accuracy", 2.0),
        ("gate_min_slice_recall", -1.0),
        ("gate_min_slice_tiles", 0),
        ("gate_min_accuracy", 1.5),
        ("gate_min_precision", 85),
        ("gate_min_recall", float("nan")),
        ("gate_min_gain", -1.1),
        ("gate_min_gain", float("nan")),
        ("gpu_count", "-1"),
        ("gpu_count", "one"),
        ("gpu_type", "a GPU"),
        ("gpu_node_selector", {"disk": 1}),
        ("mobilenetv2_alpha", 0.0),
        ("mobilenetv2_input_size", -1),
        ("mobilenetv2_input_size", 31),
        ("mobilenetv2_scratch_epochs", 0),
        ("mobilenetv2_weights", "random"),
        ("train_batch_size", 0),
        ("train_fine_tune_epochs", -1),
        ("train_head_epochs", 0),
        ("xception_input_size", 0.5),
        ("xception_input_size", 70),
        ("xception_scratch_epochs", -3),
        ("xception_weights", "imagenet21k"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value(parameter, value):
    text = message(**{parameter: value})
    assert text.startswith(f"wrong pipeline parameters: {parameter}")
    if isinstance(value, str | int) and value:
        assert repr(value) in text
    assert "No data was read" in text


def test_all_wrong_parameters_are_told_at_once_and_each_once():
    text = message(train_batch_size=0, gate_min_accuracy=1.5, xception_weights="none.zip", gpu_count="x")
    for parameter in ("train_batch_size", "gate_min_accuracy", "xception_weights", "gpu_count"):
        assert text.count(f"{parameter}:") == 1


@pytest.mark.parametrize(
    ("toleration", "place"),
    [
        ({"operator": "Equal"}, "gpu_tolerations[0]: a toleration without a key"),
        ({"key": "gpu", "operator": "Is"}, "gpu_tolerations[0].operator"),
        ({"key": "gpu", "effect": "NoRun"}, "gpu_tolerations[0].effect"),
        ({"key": "gpu", "toleration_seconds": 3}, "gpu_tolerations[0].toleration_seconds"),
    ],
)
def test_a_wrong_toleration_is_told_with_its_place(toleration, place):
    assert place in message(gpu_tolerations=[toleration])


def test_what_kubernetes_takes_is_right():
    taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    numbers = {"key": "preemptible", "operator": "Equal", "value": "true", "tolerationSeconds": 30.0}
    check_parameters({**DEFAULTS, "gpu_tolerations": [taint, numbers], "gpu_node_selector": {"pool": "gpu"}})
    check_parameters({**DEFAULTS, "gpu_count": "0", "gpu_type": "amd.com/gpu"})


@pytest.mark.parametrize("weights", ["imagenet", "none", "/data/w.h5", "gs://bucket/w.weights.h5"])
def test_weights_may_be_named_in_any_of_their_forms(weights):
    check_parameters({**DEFAULTS, "xception_weights": weights, "mobilenetv2_weights": weights})


@pytest.mark.parametrize("address", ["", "http://server:8501", "https://example.org/models", "grpc://server:8500"])
def test_an_endpoint_may_be_any_address_that_the_client_takes(address):
    check_parameters({**DEFAULTS, "deploy_endpoint": address})
