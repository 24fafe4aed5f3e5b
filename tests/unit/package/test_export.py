"""The SavedModel as TensorFlow Serving sees it: three signatures, the same answers as Keras, any size of tile."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from sat_xception.errors import ModelError
from sat_xception.evaluate.calibrate import apply_temperature
from sat_xception.model.preprocess import decode_and_resize
from sat_xception.package.export import EXPORT_TOLERANCE, check_export, export_model, write_warmup
from sat_xception.serve.models import SavedModelSession
from sat_xception.serve.protocol import Code, RequestError
from tests.small_models import SIDE, small_network

CLASSES = ["field", "roof", "water"]


def encode(mode="RGB", size=(64, 40), image_format="PNG", seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1] // 4, size[0] // 4, 4), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, image_format)
    return buffer.getvalue()


TILES = [
    encode(),
    encode(image_format="JPEG", seed=1),
    encode("L", seed=2),
    encode("RGBA", seed=3),
    encode(size=(256, 256), image_format="JPEG", seed=4),
    encode(size=(8, 200), seed=5),
    encode(image_format="WEBP", seed=6),
    encode(size=(SIDE, SIDE), seed=7),
]


@pytest.fixture(scope="module")
def model():
    return small_network(len(CLASSES), seed=0)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "saved_model"
    export_model(model, CLASSES, folder)
    return folder


@pytest.fixture(scope="module")
def session(exported):
    with SavedModelSession(exported) as session:
        yield session


def keras_says(model, images):
    pixels = np.stack([decode_and_resize(tf.constant(data), SIDE) for data in images])
    return model(pixels, training=False).numpy()


def as_input(images):
    array = np.empty(len(images), dtype=object)
    array[:] = images
    return {"image_bytes": array}


def test_signatures_have_the_names_shapes_and_types_that_clients_rely_on(session):
    def shapes(infos):
        return {
            name: (tf.dtypes.as_dtype(info.dtype).name, tf.TensorShape(info.tensor_shape).as_list())
            for name, info in infos.items()
        }

    found = {
        name: (shapes(signature.inputs), shapes(signature.outputs))
        for name, signature in session.signatures.items()
        if signature.inputs
    }
    encoded, scores = {"image_bytes": ("string", [None])}, {"probabilities": ("float32", [None, 3])}
    assert found == {
        "serving_default": (encoded, scores),
        "classify": (encoded, {**scores, "label": ("string", [None]), "score": ("float32", [None])}),
        "images": ({"images": ("uint8", [None, None, None, 3])}, scores),
    }


@pytest.mark.parametrize("signature", ["serving_default", "classify"])
def test_tiles_of_any_size_and_format_are_answered_as_keras_answers_them(session, model, signature):
    found = session.predict(signature, as_input(TILES))["probabilities"]
    np.testing.assert_allclose(found, keras_says(model, TILES), atol=EXPORT_TOLERANCE)
    assert len({row.tobytes() for row in found}) == len(TILES)  # the answers say something about the tiles


def test_labels_and_scores_are_those_of_the_highest_probability(session):
    answer = session.predict("classify", as_input(TILES))
    best = answer["probabilities"].argmax(axis=1)
    assert [label.decode() for label in answer["label"]] == [CLASSES[index] for index in best]
    np.testing.assert_array_equal(answer["score"], answer["probabilities"].max(axis=1))
    assert len(set(best.tolist())) > 1


def test_pixels_of_another_size_are_resized_in_the_graph(session, model):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 64, 3), dtype=np.uint8)
    found = session.predict("images", {"images": pixels})["probabilities"]
    resized = tf.image.resize(pixels, (SIDE, SIDE), antialias=True).numpy().round().clip(0, 255).astype(np.uint8)
    np.testing.assert_allclose(found, model(resized, training=False), atol=EXPORT_TOLERANCE)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_batch_of_any_size_is_answered_tile_by_tile(session, count):
    together = session.predict("serving_default", as_input(TILES[:count]))["probabilities"]
    assert together.shape == (count, 3)
    for tile, row in zip(TILES[:count], together, strict=True):
        alone = session.predict("serving_default", as_input([tile]))["probabilities"][0]
        np.testing.assert_allclose(row, alone, atol=EXPORT_TOLERANCE)
    assert session.predict("classify", as_input(TILES[:count]))["label"].shape == (count,)
    empty = np.empty((count, 40, 64, 3), dtype=np.uint8)
    assert session.predict("images", {"images": empty})["probabilities"].shape == (count, 3)


def test_what_is_no_image_is_the_callers_mistake(session):
    animated = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(animated, "WEBP", save_all=True, append_images=frames[1:])
    for nonsense in (b"", b"no image", TILES[0][:100], animated.getvalue()):
        with pytest.raises(RequestError) as refused:
            session.predict("serving_default", as_input([TILES[0], nonsense]))
        assert refused.value.code is Code.INVALID_ARGUMENT


def test_a_true_export_passes_and_its_answers_are_keras_own(model, exported):
    np.testing.assert_allclose(check_export(model, CLASSES, exported, TILES), keras_says(model, TILES), atol=1e-7)


@pytest.mark.parametrize("temperature", [0.25, 3.0])
def test_an_export_is_calibrated_in_the_graph_and_checked_for_it(model, tmp_path, temperature):
    export_model(model, CLASSES, tmp_path / "calibrated", temperature)
    found = check_export(model, CLASSES, tmp_path / "calibrated", TILES, temperature)
    np.testing.assert_allclose(found, apply_temperature(keras_says(model, TILES), temperature), atol=1e-6)
    with pytest.raises(ModelError, match="differs from Keras"):
        check_export(model, CLASSES, tmp_path / "calibrated", TILES)


def test_the_export_of_another_model_is_refused(exported):
    with pytest.raises(ModelError, match=r"'serving_default' differs from Keras by 0\.\d+ \(limit 1e-05\)"):
        check_export(small_network(len(CLASSES), seed=1), CLASSES, exported, TILES)


def test_a_model_that_differs_by_little_more_than_rounding_is_refused(model, exported):
    near = small_network(len(CLASSES), seed=0)
    kernel, bias = near.get_layer("head").get_weights()
    near.get_layer("head").set_weights([kernel, np.add(bias, [0.001, 0, 0])])
    with pytest.raises(ModelError, match="differs from Keras"):
        check_export(near, CLASSES, exported, TILES)


def test_an_export_that_answers_no_numbers_is_refused(model, exported):
    spoilt = small_network(len(CLASSES), seed=0)
    spoilt.set_weights([weights * np.nan for weights in spoilt.get_weights()])
    with pytest.raises(ModelError, match="differs from Keras by nan"):
        check_export(spoilt, CLASSES, exported, TILES)


def test_an_export_with_other_names_is_refused(model, exported):
    with pytest.raises(ModelError, match="'classify' names"):
        check_export(model, ["roof", "field", "water"], exported, TILES)


def test_an_export_whose_scores_are_not_the_highest_probability_is_refused(model, tmp_path):
    def probabilities(image_bytes):
        spec = tf.TensorSpec((SIDE, SIDE, 3), tf.uint8)
        return model(tf.map_fn(lambda data: decode_and_resize(data, SIDE), image_bytes, fn_output_signature=spec))

    def classify(image_bytes):
        scores = probabilities(image_bytes)
        label = tf.gather(tf.constant(CLASSES), tf.argmax(scores, axis=1))
        return {"probabilities": scores, "label": label, "score": tf.reduce_min(scores, axis=1)}

    archive = keras.export.ExportArchive()
    archive.track(model)
    encoded = [tf.TensorSpec([None], tf.string, name="image_bytes")]
    pixels = [tf.TensorSpec([None, SIDE, SIDE, 3], tf.uint8, name="images")]
    archive.add_endpoint("serving_default", lambda image_bytes: {"probabilities": probabilities(image_bytes)}, encoded)
    archive.add_endpoint("classify", classify, encoded)
    archive.add_endpoint("images", lambda images: {"probabilities": model(images)}, pixels)
    archive.write_out(str(tmp_path / "scores"), verbose=False)
    with pytest.raises(ModelError, match="'classify' scores"):
        check_export(model, CLASSES, tmp_path / "scores", TILES)


def test_an_export_with_another_number_of_classes_is_refused(exported):
    with pytest.raises(ModelError, match=r"shape \(8, 3\), expected \(8, 2\)"):
        check_export(small_network(2, seed=0), CLASSES[:2], exported, TILES)


def test_an_export_that_lacks_a_signature_is_refused(model, tmp_path):
    model.export(str(tmp_path / "plain"), verbose=False)
    with pytest.raises(ModelError, match=r"doesn't answer as it must: .*image_bytes"):
        check_export(model, CLASSES, tmp_path / "plain", TILES)


def test_a_folder_that_is_no_saved_model_is_refused(model, tmp_path):
    with pytest.raises(ModelError, match=r"no saved_model\.pb"):
        check_export(model, CLASSES, tmp_path, TILES)


def test_warm_up_requests_are_what_tensorflow_serving_reads(session, tmp_path):
    write_warmup(tmp_path, "school-classifier", TILES[:3])
    path = tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    logs = [PredictionLog.FromString(data) for data in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    sizes = []
    for log in logs:
        request = log.predict_log.request
        assert (request.model_spec.name, request.model_spec.signature_name) == ("school-classifier", "serving_default")
        images = tf.make_ndarray(request.inputs["image_bytes"])
        assert set(images.tolist()) <= set(TILES[:3])
        session.predict("serving_default", {"image_bytes": images})
        sizes.append(len(images))
    assert sizes == [1, 8]
