"""Which network a weights file belongs to, and what `--weights` stands for."""

import hashlib

import h5py
import numpy as np
import pytest

from sat_xception.errors import ConfigError, ModelError
from sat_xception.model.backbones import BACKBONES
from sat_xception.model.weights import IMAGENET_DIR_ENV, find_weights, identify_weights

# Of each backbone, the first width in every run of the tests.
NETWORKS = [
    pytest.param(name, alpha, marks=[pytest.mark.slow] if place else [])
    for name, backbone in BACKBONES.items()
    for place, alpha in enumerate(backbone.weight_counts)
]
SMALLEST = 410_208  # values of MobileNetV2 with alpha 0.35


def write_values(path, count, counters=0):
    """Write an HDF5 file of so many floats; the file itself stays small, as HDF5 stores no values that nobody wrote."""
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/a/vars/0", shape=(count - 1,), dtype="float32")
        file.create_dataset("layers/b/vars/0", data=np.float32(1))
        if counters:
            file.create_dataset("optimizer/iterations", shape=(counters,), dtype="int64")
    return path


@pytest.fixture(autouse=True)
def no_imagenet_folder(monkeypatch):
    monkeypatch.delenv(IMAGENET_DIR_ENV, raising=False)


@pytest.mark.parametrize(("backbone", "alpha"), NETWORKS)
def test_a_file_is_told_by_the_number_of_values_that_keras_gives_the_network(tmp_path, backbone, alpha):
    entry = BACKBONES[backbone]
    size = entry.smallest_input
    width = {"alpha": alpha} if entry.has_alpha else {}
    network = entry.build(include_top=False, weights=None, input_shape=(size, size, 3), **width)
    path = write_values(tmp_path / "weights.h5", network.count_params())
    assert identify_weights(path) == (backbone, alpha)


def test_counters_of_an_optimizer_are_no_weights(tmp_path):
    assert identify_weights(write_values(tmp_path / "w.h5", SMALLEST, counters=3)) == ("mobilenetv2", 0.35)


@pytest.mark.parametrize("count", [SMALLEST - 1, SMALLEST + 1, 22_910_480])  # the last is Xception with its top
def test_a_network_that_we_dont_know_is_refused_with_what_we_do(tmp_path, count):
    with pytest.raises(ModelError, match=f"{count:,} values.*mobilenetv2 with alpha 0.35.*include_top=False"):
        identify_weights(write_values(tmp_path / "w.h5", count))


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n cut short"])
def test_a_file_that_is_no_hdf5_is_refused(tmp_path, content):
    path = tmp_path / "w.h5"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"w\.h5 is not a readable HDF5 weights file"):
        find_weights(str(path), "xception", 1.0)


def test_the_message_says_which_network_a_wrong_file_fits(tmp_path):
    path = str(write_values(tmp_path / "w.h5", SMALLEST))
    with pytest.raises(
        ModelError, match=r"holds weights of mobilenetv2 with alpha 0\.35, but xception is to be trained"
    ):
        find_weights(path, "xception", 1.0)
    with pytest.raises(ModelError, match=r"of mobilenetv2 with alpha 0\.35, but mobilenetv2 with alpha 0\.5 is"):
        find_weights(path, "mobilenetv2", 0.5)


def test_a_fitting_file_is_found_and_described_with_its_digest(tmp_path):
    path = write_values(tmp_path / "w.h5", SMALLEST)
    origin = find_weights(str(path), "mobilenetv2", 0.35)
    assert (origin.kind, origin.path) == ("file", path)
    described = origin.record()
    assert "w.h5" in described.description
    assert described.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_alpha_means_nothing_to_a_network_that_has_none(tmp_path):
    path = write_values(tmp_path / "w.h5", 20_861_480)
    assert find_weights(str(path), "xception", 0.35).path == path


def test_no_file_is_an_error_and_no_reason_to_start_from_something_else(tmp_path):
    with pytest.raises(ConfigError, match=r"no file at .*absent\.h5"):
        find_weights(str(tmp_path / "absent.h5"), "xception", 1.0)
    with pytest.raises(ConfigError, match="no file at imagent"):
        find_weights("imagent", "xception", 1.0)


def test_none_is_random_weights_and_imagenet_without_a_folder_is_a_download():
    assert find_weights("none", "xception", 1.0).record().content() == {"kind": "none", "description": "random weights"}
    origin = find_weights("imagenet", "xception", 1.0)
    assert (origin.kind, origin.path) == ("imagenet", None)
    assert "sha256" not in origin.record().content()


def test_a_folder_of_imagenet_weights_is_looked_in_by_content_not_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv(IMAGENET_DIR_ENV, str(tmp_path))
    write_values(tmp_path / "a.h5", 22_910_480)  # with its top, for something else
    write_values(tmp_path / "b.h5", SMALLEST)
    write_values(tmp_path / "c.weights.h5", 20_861_480)
    (tmp_path / "README.md").write_text("not HDF5")
    assert find_weights("imagenet", "mobilenetv2", 0.35).path == tmp_path / "b.h5"
    origin = find_weights("imagenet", "xception", 1.0)
    assert (origin.kind, origin.path) == ("file", tmp_path / "c.weights.h5")
    assert IMAGENET_DIR_ENV in origin.description


@pytest.mark.parametrize("alpha", [1.0, 0.9])
def test_a_folder_that_lacks_the_weights_is_an_error_not_a_download(tmp_path, monkeypatch, alpha):
    write_values(tmp_path / "b.h5", SMALLEST)
    for folder in (tmp_path, tmp_path / "absent"):
        monkeypatch.setenv(IMAGENET_DIR_ENV, str(folder))
        with pytest.raises(
            ConfigError, match=rf"no \.h5 file for mobilenetv2 with alpha {alpha:g}; add it, or unset it"
        ):
            find_weights("imagenet", "mobilenetv2", alpha)


def test_a_file_is_taken_as_given_whatever_the_folder_holds(tmp_path, monkeypatch):
    monkeypatch.setenv(IMAGENET_DIR_ENV, str(tmp_path / "absent"))
    path = write_values(tmp_path / "w.h5", SMALLEST)
    assert find_weights(str(path), "mobilenetv2", 0.35).path == path
    assert find_weights("none", "mobilenetv2", 0.35).kind == "none"


def test_real_weights_are_recognised(mobilenet_weights):
    assert identify_weights(mobilenet_weights) == ("mobilenetv2", 0.35)
