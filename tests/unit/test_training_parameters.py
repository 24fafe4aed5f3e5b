"""Wrong parameters of the pipeline are refused at once, all together, by their own names."""

import inspect

import pytest

from pipelines.training import training
from sat_xception.errors import ConfigError
from sat_xception.training_parameters import check_parameters

DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(training.pipeline_func).parameters.items()}


def message(**changes):
    """Return what is said of these parameters, the others at their defaults."""
    assert not set(changes) - set(DEFAULTS)
    with pytest.raises(ConfigError) as refused:
        check_parameters({**DEFAULTS, **changes})
    return str(refused.value)


def test_the_defaults_are_right_and_give_assemble_its_settings():
    settings = check_parameters({**DEFAULTS, "dataset": "an output"})
    assert settings == {
        "data": "sample",
        "positive_label": "",
        "fractions": [0.7, 0.15, 0.15],
        "max_failed": 0.05,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("data", ""),
        ("data_fractions", [0.7, 0.7, 0.1]),
        ("data_fractions", [1.0]),
        ("data_max_failed", 2.0),
        ("data_max_skew", 0.0),
        ("data_seed", "no"),
        ("deploy_endpoint", "example.org:8501"),
        ("deploy_model_name", "School Classifier"),
        ("gate_max_calibration_error", -0.1),
        ("gate_min_accuracy", 1.5),
        ("gate_min_precision", 85),
        ("gate_min_recall", float("nan")),
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
