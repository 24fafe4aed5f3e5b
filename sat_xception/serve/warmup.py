"""Run a version's warm-up requests before it gets traffic, so that no client waits for its first run."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from sat_xception.errors import ModelError
from sat_xception.serve.models import SavedModelSession
from sat_xception.serve.protocol import DEFAULT_SIGNATURE, RequestError
from sat_xception.serve.tensor_protos import proto_to_array

__all__ = ["WARMUP_FILE", "warm_up"]

WARMUP_FILE = Path("assets.extra/tf_serving_warmup_requests")
# TensorFlow Serving refuses more (saved_model_warmup_util.h).
_MAX_RECORDS = 1000
_MAX_BYTES = 2**31


def warm_up(model: SavedModelSession) -> int:
    """Run the warm-up requests of a loaded model.

    Returns:
        Number of requests; 0 if the model has none.

    Raises:
        ModelError: The file is damaged, or a request fails, as it would in production.
    """
    path = model.path / WARMUP_FILE
    if not path.is_file():
        return 0
    count = 0
    try:
        for record in tf.data.TFRecordDataset([str(path)]).take(_MAX_RECORDS).as_numpy_iterator():
            request = PredictionLog.FromString(record).predict_log.request
            inputs = {name: proto_to_array(proto, _MAX_BYTES) for name, proto in request.inputs.items()}
            model.predict(request.model_spec.signature_name or DEFAULT_SIGNATURE, inputs, list(request.output_filter))
            count += 1
    except (RequestError, DecodeError, tf.errors.OpError) as error:
        raise ModelError(f"warm-up request {count + 1} in {path} failed: {error}. Package the model again") from error
    return count
