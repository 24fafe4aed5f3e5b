"""Export a Keras model as a SavedModel for TensorFlow Serving, and check that its outputs equal Keras's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from sat_xception.errors import ModelError
from sat_xception.evaluate.calibrate import SMALLEST_PROBABILITY, apply_temperature
from sat_xception.model.preprocess import decode_and_resize, resize
from sat_xception.serve.models import SavedModelSession
from sat_xception.serve.protocol import Classification, RequestError

__all__ = ["EXPORT_TOLERANCE", "check_export", "export_model", "write_warmup"]

# Maximum difference of a probability between the export and Keras: float32 rounding of the same operations in another
# order.
EXPORT_TOLERANCE = 1e-5
_WARMUP_BATCHES = (1, 8)


def export_model(model: keras.Model, classes: Sequence[str], folder: Path, temperature: float = 1.0) -> None:
    """Write the SavedModel with its three signatures.

    - `serving_default`: `image_bytes` string `[n]`, encoded images of any size, to `probabilities`
      `float32 [n, classes]`.
    - `classify`: the same input to `probabilities`, `label` string `[n]` and `score` `float32 [n]`.
    - `images`: `images` `uint8 [n, h, w, 3]` to `probabilities`.

    Args:
        model: Takes `uint8 [n, size, size, 3]`, returns probabilities.
        classes: Names in index order.
        folder: Folder to write; it must not exist.
        temperature: Temperature that calibrates the probabilities; see `apply_temperature`.
    """
    size = int(model.input_shape[1])
    names = tf.constant(list(classes))

    def pixels(image_bytes: tf.Tensor) -> tf.Tensor:
        spec = tf.TensorSpec((size, size, 3), tf.uint8)
        return tf.map_fn(lambda data: decode_and_resize(data, size), image_bytes, fn_output_signature=spec)

    def score(pixels: tf.Tensor) -> tf.Tensor:
        probabilities = model(pixels, training=False)
        return tf.nn.softmax(tf.math.log(tf.maximum(probabilities, SMALLEST_PROBABILITY)) / temperature)

    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": score(pixels(image_bytes))}

    def classify(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = score(pixels(image_bytes))
        best = tf.argmax(probabilities, axis=1)
        return {
            "probabilities": probabilities,
            "label": tf.gather(names, best),
            "score": tf.reduce_max(probabilities, axis=1),
        }

    def images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": score(resize(images, size))}

    # Not tf.saved_model.save: with a Keras 3 model it writes a SavedModel that TensorFlow Serving can't load.
    archive = keras.export.ExportArchive()
    archive.track(model)
    encoded = [tf.TensorSpec([None], tf.string, name="image_bytes")]
    archive.add_endpoint("serving_default", serving_default, input_signature=encoded)
    archive.add_endpoint("classify", classify, input_signature=encoded)
    archive.add_endpoint(
        "images", images, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")]
    )
    archive.write_out(str(folder), verbose=False)


def check_export(
    model: keras.Model, classes: Sequence[str], folder: Path, images: Sequence[bytes], temperature: float = 1.0
) -> npt.NDArray[np.float32]:
    """Load the SavedModel as TensorFlow Serving does and compare every signature with Keras.

    Args:
        model: The Keras model that was exported.
        classes: Names in index order.
        folder: Folder of the SavedModel.
        images: Encoded images to compare on.
        temperature: Temperature of the export.

    Returns:
        Keras's probabilities of the images, calibrated, `float32 [n, classes]`.

    Raises:
        ModelError: A signature is missing, or its outputs differ.
    """
    size = int(model.input_shape[1])
    pixels = np.stack([decode_and_resize(tf.constant(data), size).numpy() for data in images])
    expected = apply_temperature(model(pixels, training=False).numpy(), temperature)
    with SavedModelSession(folder) as session:
        try:
            of_bytes, classified = session.probabilities(images), session.classify(images)
            of_pixels = session.predict("images", {"images": pixels}, ["probabilities"])["probabilities"]
        except RequestError as error:
            raise ModelError(f"the exported model in {folder} doesn't answer as it must: {error}") from None
    _compare("serving_default", of_bytes, expected)
    _compare("classify", classified.probabilities, expected)
    _compare("images", of_pixels, expected)
    _check_classified(classified, classes)
    return expected


def _compare(signature: str, found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    if found.shape != expected.shape:
        raise ModelError(
            f"the exported signature {signature!r} answers with shape {found.shape}, expected {expected.shape}"
        )
    worst = float(np.abs(found - expected).max())
    if not worst <= EXPORT_TOLERANCE:
        raise ModelError(
            f"the exported signature {signature!r} differs from Keras by {worst:.2g} (limit {EXPORT_TOLERANCE:g}); "
            "the model must not be served. Please report this with the model"
        )


def _check_classified(found: Classification, classes: Sequence[str]) -> None:
    best = found.probabilities.max(axis=1)
    if not np.array_equal(found.scores, best):
        raise ModelError(f"the exported signature 'classify' scores {found.scores}, expected {best}")
    named = [classes[index] for index in found.probabilities.argmax(axis=1)]
    if found.labels != named:
        raise ModelError(f"the exported signature 'classify' names {found.labels!r}, expected {named}")


def write_warmup(folder: Path, name: str, images: Sequence[bytes]) -> None:
    """Write the warm-up requests, which TensorFlow Serving runs before it reports a version as available.

    Args:
        folder: Folder of the SavedModel.
        name: Name of the served model.
        images: Encoded images to send.
    """
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for batch in _WARMUP_BATCHES:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = "serving_default"
            encoded = [images[index % len(images)] for index in range(batch)]
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(encoded, dtype=tf.string))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString(deterministic=True))
