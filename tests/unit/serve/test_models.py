from __future__ import annotations

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from sat_xception.errors import ConfigError, ModelError
from sat_xception.serve.models import SavedModelSession
from sat_xception.serve.protocol import Code, RequestError
from sat_xception.serve.tensor_protos import array_to_proto, proto_to_array
from sat_xception.serve.warmup import WARMUP_FILE, warm_up
from sat_xception.served_model.model_root import find_versions, resolve_version
from tests.serving_fixtures import CLASSES, NAME, expected, pixels_of, pngs, tiny_keras_model, write_version

pytest_plugins = ["tests.serving_fixtures"]


def images(data: list[bytes]) -> dict[str, np.ndarray]:
    return {"image_bytes": np.array(data, dtype=object)}


@pytest.fixture(scope="module")
def model(tiny_root):
    with SavedModelSession(tiny_root / NAME / "1") as model:
        yield model


@pytest.mark.parametrize("count", [1, 5])
def test_every_signature_answers_as_keras_does(model, count):
    pixels, wanted = pixels_of(count), expected(pixels_of(count))
    by_bytes = model.predict("serving_default", images(pngs(count)))
    by_pixels = model.predict("images", {"images": pixels})
    classified = model.predict("classify", images(pngs(count)))
    for answer in (by_bytes, by_pixels, classified):
        np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-5)
    assert classified["label"].tolist() == [CLASSES[i].encode() for i in wanted.argmax(axis=1)]
    assert by_bytes.keys() == {"probabilities"}


def test_input_infos_describe_the_inputs(model):
    assert model.input_infos("images")["images"].dtype == tf.uint8.as_datatype_enum
    with pytest.raises(RequestError, match=r'"detect" not found .* known: classify, images, serving_default'):
        model.input_infos("detect")


def test_a_filter_chooses_outputs(model):
    assert list(model.predict("classify", images(pngs(1)), ["score", "label"])) == ["score", "label"]
    for wrong in (["boxes"], ["score", "score"]):
        with pytest.raises(RequestError) as caught:
            model.predict("classify", images(pngs(1)), wrong)
        assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({}, r"missing \['images'\]"),
        ({"images": pixels_of(1), "extra": pixels_of(1)}, r"unknown \['extra'\]"),
        ({"images": pixels_of(1).astype(np.float32)}, "is float32, the signature takes uint8"),
        ({"images": pixels_of(1)[0]}, r"has shape \[32, 32, 3\], the signature takes \[None, None, None, 3\]"),
    ],
)
def test_inputs_that_do_not_fit_are_named(model, inputs, reason):
    with pytest.raises(RequestError, match=reason) as caught:
        model.predict("images", inputs)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_an_undecodable_image_is_an_invalid_argument_without_graph_noise(model):
    with pytest.raises(RequestError) as caught:
        model.predict("serving_default", images([b"junk"]))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert str(caught.value).startswith("Unknown image file format.")
    assert "node" not in str(caught.value)


def test_a_model_that_only_tf_saved_model_load_accepts_fails_as_it_does_in_production(tmp_path):
    """A Keras 3 model in a plain tf.Module hides its variables from the session loader, as from TensorFlow Serving."""
    keras_model = tiny_keras_model(0)
    module = tf.Module()
    module.model = keras_model
    spec = tf.TensorSpec((None, 32, 32, 3), tf.float32)
    module.score = tf.function(lambda pixels: {"probabilities": keras_model(pixels)}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.score})
    assert tf.saved_model.load(str(tmp_path)).signatures
    with SavedModelSession(tmp_path) as model, pytest.raises(RequestError, match="Could not find variable") as caught:
        model.predict("serving_default", {"pixels": np.zeros((1, 32, 32, 3), np.float32)})
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert "{{" not in str(caught.value)


@pytest.mark.parametrize("damage", ["no folder", "no variables", "half the variables", "half the graph", "empty graph"])
def test_a_damaged_model_says_where_it_is(tmp_path, damage):
    folder = tmp_path / "7"
    if damage != "no folder":
        write_version(folder)
        data = next(folder.glob("variables/*.data*"))
        graph = folder / "saved_model.pb"
        if damage == "no variables":
            shutil.rmtree(folder / "variables")
        if damage == "half the variables":
            data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
        if damage == "half the graph":
            graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
        if damage == "empty graph":
            graph.write_bytes(b"")
    with pytest.raises(ModelError, match=str(folder)):
        SavedModelSession(folder)


def warmup_log(data: bytes, signature: str = "") -> bytes:
    request = PredictRequest()
    request.model_spec.signature_name = signature
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([data]))
    log = PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return log.SerializeToString()


def write_warmup(version, records: list[bytes]) -> None:
    (version / WARMUP_FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(version / WARMUP_FILE)) as writer:
        for record in records:
            writer.write(record)


def test_warm_up_runs_the_requests_that_the_model_brings(tmp_path):
    version = write_version(tmp_path / "1")
    with SavedModelSession(version) as model:
        assert warm_up(model) == 0
        write_warmup(version, [warmup_log(pngs(1)[0]), warmup_log(pngs(1)[0], "classify")])
        assert warm_up(model) == 2


@pytest.mark.parametrize("record", [warmup_log(b"junk"), warmup_log(pngs(1)[0], "detect"), b"\xff\xff"])
def test_a_warm_up_that_fails_is_an_error(tmp_path, record):
    version = write_version(tmp_path / "1")
    write_warmup(version, [warmup_log(pngs(1)[0]), record])
    with SavedModelSession(version) as model, pytest.raises(ModelError, match="warm-up request 2"):
        warm_up(model)


def test_a_damaged_warm_up_file_is_an_error(tmp_path):
    version = write_version(tmp_path / "1")
    write_warmup(version, [warmup_log(pngs(1)[0])])
    (version / WARMUP_FILE).write_bytes((version / WARMUP_FILE).read_bytes()[:-9])
    with SavedModelSession(version) as model, pytest.raises(ModelError, match="warm-up request 1"):
        warm_up(model)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0.25, -1.5]], np.float32),
        np.array([0.1], np.float64),
        np.array([[1], [255]], np.uint8),
        np.array([65535], np.uint16),
        np.array([-5], np.int32),
        np.array([2**40], np.int64),
        np.array([2**63], np.uint64),
        np.array([True, False]),
        np.array([b"a\0", b""], dtype=object),
        np.array([0.5], np.float16),
        np.zeros((0, 3), np.float32),
        np.array(3.0, np.float32),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_protos_carry_arrays_both_ways(array):
    back = proto_to_array(array_to_proto(array), max_bytes=1000)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def string_content(strings: list[bytes], shape: list[int]) -> TensorProto:
    """Return strings shorter than 16,384 bytes as TensorFlow packs them: all lengths, then all strings."""
    lengths = b"".join(
        bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7]) for data in strings
    )
    proto = TensorProto(dtype=tf.string.as_datatype_enum, tensor_shape=tf.TensorShape(shape).as_proto())
    proto.tensor_content = lengths + b"".join(strings)
    return proto


@pytest.mark.parametrize(
    ("strings", "shape"),
    [
        ([b"a\0", b"", bytes(range(256)), b"x" * 5000], [2, 2]),
        ([b"one"], []),
        ([b"", b""], [2]),
        ([b"x" * 127, b"y" * 128], [2, 1]),
    ],
)
def test_strings_sent_as_content_are_what_tensorflow_reads(strings, shape):
    proto = string_content(strings, shape)
    array = proto_to_array(proto, max_bytes=100)
    assert array.shape == tuple(shape)
    assert array.ravel().tolist() == strings
    np.testing.assert_array_equal(array, tf.io.parse_tensor(proto.SerializeToString(), tf.string).numpy())


@pytest.mark.parametrize("shape", [[1], [3], [90]])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_strings_whose_content_is_cut_are_refused(shape, cut):
    proto = string_content([b"one", b"two"], shape)
    proto.tensor_content = proto.tensor_content[: len(proto.tensor_content) - cut]
    for content in (proto.tensor_content, b"\xff" * 9, b"\xff\xff\xff\xff\x0f"):
        proto.tensor_content = content
        with pytest.raises(RequestError, match="a tensor can't be read") as caught:
            proto_to_array(proto, max_bytes=1000)
        assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("number", sorted({*types_pb2.DataType.values(), 34, 999}))
def test_every_type_of_a_proto_is_an_array_or_an_invalid_argument(number):
    for content in (b"", b"\1"):
        proto = TensorProto(dtype=number, tensor_content=content)
        proto.tensor_shape.dim.add(size=1)
        try:
            array = proto_to_array(proto, max_bytes=1000)
        except RequestError as error:
            assert error.code is Code.INVALID_ARGUMENT
        else:
            assert number < 100 and array.shape == (1,)


def test_a_proto_that_contradicts_itself_or_is_too_large_is_refused():
    lying = array_to_proto(np.arange(6, dtype=np.float32))
    lying.tensor_shape.dim[0].size = 5
    unknown = array_to_proto(np.arange(6, dtype=np.float32))
    unknown.tensor_shape.dim[0].size = -1
    untyped = array_to_proto(np.arange(6, dtype=np.float32))
    untyped.dtype = 0
    large = array_to_proto(np.zeros(300, np.float32))
    for proto in (lying, unknown, untyped, large):
        with pytest.raises(RequestError) as caught:
            proto_to_array(proto, max_bytes=1000)
        assert caught.value.code is Code.INVALID_ARGUMENT


def test_versions_are_whole_numbers_with_a_graph(tmp_path):
    for name in ("10", "9", "x", "1.5", "-1", "²", "99999999999999999999", ".11"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    (tmp_path / "12").mkdir()
    assert list(find_versions(tmp_path)) == [9, 10]


def test_a_version_is_found_from_any_of_its_folders(tmp_path):
    newest = tmp_path / "root" / NAME / "20260102030405"
    for version in (newest, newest.with_name("3")):
        version.mkdir(parents=True)
        (version / "saved_model.pb").touch()
    for path in (newest, newest.parent, tmp_path / "root"):
        assert resolve_version(path, NAME) == newest
    for path, name in ((tmp_path / "root", "other"), (tmp_path / "nowhere", NAME), (tmp_path, NAME)):
        with pytest.raises(ConfigError, match="no packaged model at"):
            resolve_version(path, name)


def test_keras_is_the_reference_that_the_fixture_claims():
    """Guard the guard: another seed must give other answers, or the swap tests prove nothing."""
    assert not np.allclose(expected(pixels_of(2)), expected(pixels_of(2), seed=1), atol=1e-3)
    assert isinstance(tiny_keras_model(0), keras.Model)
