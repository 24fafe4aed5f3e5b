"""Backbones: what they start from, what learns, and that nothing is ever replaced in silence."""

import shutil
import subprocess
import sys
import time

import h5py
import keras
import numpy as np
import pytest
from pydantic import ValidationError

from sat_xception.errors import ConfigError, ModelError, ServiceError
from sat_xception.evaluate.gate import NO_WINNER
from sat_xception.model.backbones import BACKBONES, backbone_names, get_backbone
from sat_xception.model.head import head_layers
from sat_xception.model.network import add_head, build_backbone, freeze_before
from sat_xception.model.settings import TrainConfig
from sat_xception.model.weights import IMAGENET_DIR_ENV, find_weights
from sat_xception.package.settings import PackageConfig
from tests.small_models import SMALL_MOBILENET, small_backbone

RANDOM = find_weights("none", "mobilenetv2", 0.35)
NORMALISATIONS = keras.layers.BatchNormalization


@pytest.fixture(scope="module")
def features():
    keras.utils.set_random_seed(0)
    return build_backbone("mobilenetv2", 32, 0.35, RANDOM)


@pytest.fixture(scope="module")
def mobilenet():
    return keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.35)


@pytest.fixture
def network(mobilenet):
    """MobileNetV2, of which every layer learns."""
    mobilenet.trainable = True
    return mobilenet


@pytest.fixture
def small_network(monkeypatch):
    """A network of a few layers, which is mobilenetv2 to the package."""
    monkeypatch.setitem(BACKBONES, "mobilenetv2", SMALL_MOBILENET)
    return small_backbone(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.35)


@pytest.fixture
def no_network(monkeypatch):
    """Send every download to a port where nobody listens."""
    monkeypatch.delenv(IMAGENET_DIR_ENV, raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


def head(classes, **settings):
    return head_layers(TrainConfig(examples="e", out="o", **settings), classes)


def random_images(count, size=32):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ConfigError, match="unknown backbone 'resnet50'; there are xception, mobilenetv2"):
        get_backbone("resnet50")


@pytest.mark.parametrize(("name", "smallest"), [("xception", 71), ("mobilenetv2", 32)])
def test_too_small_an_input_is_refused(name, smallest):
    with pytest.raises(ValidationError, match=f"{name} takes {smallest} pixels or more"):
        TrainConfig(examples="e", out="o", backbone=name, input_size=smallest - 1)
    assert TrainConfig(examples="e", out="o", backbone=name, input_size=smallest).input_size == smallest
    with pytest.raises(ConfigError, match=f"--input-size {smallest - 1} is too small for {name}; it takes {smallest}"):
        build_backbone(name, smallest - 1, 1.0, RANDOM)


def test_features_are_pooled_from_raw_pixels(features):
    assert features.input_shape == (None, 32, 32, 3)
    assert features.inputs[0].dtype == "uint8"
    assert features(random_images(2)).shape == (2, 1280)


def test_pixels_reach_the_network_as_its_imagenet_weights_expect(features):
    pixels = np.array([0, 127.5, 255], dtype=np.float32).reshape(1, 1, 3, 1).repeat(3, axis=3)
    normalised = features.get_layer("normalisation")(pixels).numpy()[0, 0, :, 0]
    np.testing.assert_allclose(normalised, [-1, 0, 1], atol=1e-6)


def test_a_head_gives_probabilities_that_sum_to_one(features):
    model = add_head(features, head(5, dropout=0.5))
    probabilities = model(random_images(4), training=False).numpy()
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (4, 5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert model.name == "mobilenetv2"


def test_a_head_sits_on_the_features_that_were_built(features):
    model = add_head(features, head(2, dropout=0.5))
    images = random_images(3)
    kernel, bias = model.get_layer("head").get_weights()
    logits = features(images).numpy() @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model(images, training=False), expected, atol=1e-5)


@pytest.mark.parametrize("trains", [False, True])
def test_batch_norm_updates_its_statistics_only_where_it_is_told_to(features, trains):
    model = add_head(features, head(2), batch_norm_trains=trains)
    layer = next(layer for layer in model.get_layer("mobilenetv2").layers if isinstance(layer, NORMALISATIONS))
    before = layer.get_weights()
    model(random_images(8), training=True)  # as fit() calls it
    moved = [not np.array_equal(old, new) for old, new in zip(before, layer.get_weights(), strict=True)]
    assert any(moved) is trains
    layer.set_weights(before)


def test_only_layers_from_the_named_one_on_learn_and_batch_norm_never_does(network):
    learning = freeze_before(network, "block_16_expand")
    position = [layer.name for layer in network.layers].index("block_16_expand")
    assert not any(layer.trainable_weights for layer in network.layers[:position])
    late = network.layers[position:]
    assert not any(layer.trainable_weights for layer in late if isinstance(layer, NORMALISATIONS))
    others = [layer for layer in late if not isinstance(layer, NORMALISATIONS)]
    assert all(layer.trainable_weights == layer.weights for layer in others)
    assert learning == sum(layer.count_params() for layer in others) > 0


def test_freezing_again_at_another_layer_thaws_what_was_frozen(network):
    few, all_but_norms = freeze_before(network, "Conv_1"), freeze_before(network, network.layers[0].name)
    norms = sum(layer.count_params() for layer in network.layers if isinstance(layer, NORMALISATIONS))
    assert few < all_but_norms == network.count_params() - norms


def test_an_unknown_layer_is_an_error_that_names_one(network):
    with pytest.raises(ConfigError, match=r"--fine-tune-from 'block_99' is no layer of .*; for instance 'out_relu'"):
        freeze_before(network, "block_99")


def test_settings_accept_the_names_of_the_registry_alone():
    for name in BACKBONES:
        assert TrainConfig(examples="e", out="o", backbone=name).backbone == name
    with pytest.raises(ValidationError, match=f"expected {backbone_names()}"):
        TrainConfig(examples="e", out="o", backbone="resnet50", input_size=8)


def test_each_name_can_be_served_and_each_number_of_values_belongs_to_one_network():
    counts = [count for backbone in BACKBONES.values() for count in backbone.weight_counts.values()]
    assert len(set(counts)) == len(counts)
    for name, backbone in BACKBONES.items():
        assert PackageConfig(model="m", examples="e", out="o", name=name).name == name != NO_WINNER
        assert backbone.smallest_input <= min(backbone.input_size, backbone.local_scratch_input_size)


def test_the_registry_is_read_without_tensorflow():
    modules = "sat_xception.model.backbones, sat_xception.model.settings, sat_xception.model.weights"
    code = f"import sys, {modules}; sys.exit(bool({{'keras', 'tensorflow'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", BACKBONES)
def test_the_layer_that_fine_tuning_starts_from_by_default_is_there(name):
    backbone = get_backbone(name)
    arguments = {"alpha": 0.35} if backbone.has_alpha else {}
    size = backbone.smallest_input
    built = backbone.build(weights=None, include_top=False, input_shape=(size, size, 3), **arguments)
    assert 0 < freeze_before(built, backbone.fine_tune_from) < built.count_params()


def test_weights_of_a_file_are_the_ones_in_the_network(network, tmp_path):
    network.save_weights(tmp_path / "own.weights.h5")
    built = build_backbone("mobilenetv2", 32, 0.35, find_weights(str(tmp_path / "own.weights.h5"), "mobilenetv2", 0.35))
    for expected, found in zip(network.get_weights(), built.get_layer("mobilenetv2").get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_real_weights_are_the_ones_in_the_network(mobilenet_weights):
    built = build_backbone("mobilenetv2", 32, 0.35, find_weights(str(mobilenet_weights), "mobilenetv2", 0.35))
    kernel = built.get_layer("mobilenetv2").get_layer("Conv1").get_weights()[0]
    with h5py.File(mobilenet_weights) as file:
        np.testing.assert_array_equal(kernel, file["layers/conv2d/vars/0"])


@pytest.mark.parametrize("name", ["w.h5", "w.weights.h5"])
def test_a_file_of_the_right_size_but_another_form_never_leaves_random_weights(small_network, tmp_path, name):
    with h5py.File(tmp_path / name, "w") as file:
        file["x"] = np.zeros(small_network.count_params(), dtype=np.float32)
    origin = find_weights(str(tmp_path / name), "mobilenetv2", 0.35)
    with pytest.raises(ModelError, match=rf"{name} doesn't fit mobilenetv2"):
        build_backbone("mobilenetv2", 32, 0.35, origin)


def test_a_file_that_lacks_a_single_layer_never_leaves_that_one_random(small_network, tmp_path):
    path = tmp_path / "part.weights.h5"
    small_network.save_weights(path)
    with h5py.File(path, "a") as file:
        file.move("layers/conv2d", "layers/elsewhere")
    with pytest.raises(ModelError, match="1 objects could not be loaded") as refused:
        build_backbone("mobilenetv2", 32, 0.35, find_weights(str(path), "mobilenetv2", 0.35))
    assert "\n" not in str(refused.value)


def test_a_file_that_changed_after_it_was_found_is_refused(small_network, tmp_path):
    path = tmp_path / "w.weights.h5"
    small_network.save_weights(path)
    origin = find_weights(str(path), "mobilenetv2", 0.35)
    shutil.copy(__file__, path)
    with pytest.raises(ModelError, match="doesn't fit"):
        build_backbone("mobilenetv2", 32, 0.35, origin)


def test_a_download_that_fails_is_told_at_once_with_what_to_do_instead(no_network, capsys):
    started = time.monotonic()
    with pytest.raises(
        ServiceError, match=rf"can't be downloaded.*--weights PATH.*\${IMAGENET_DIR_ENV}.*--weights none"
    ):
        build_backbone("mobilenetv2", 96, 1.3, find_weights("imagenet", "mobilenetv2", 1.3))
    assert time.monotonic() - started < 30
    assert capsys.readouterr().out == ""


def test_imagenet_weights_that_were_never_published_are_a_mistake_of_the_caller(no_network):
    with pytest.raises(ConfigError, match=r"Keras has no ImageNet weights.*alpha"):
        build_backbone("mobilenetv2", 96, 0.9, find_weights("imagenet", "mobilenetv2", 0.9))
