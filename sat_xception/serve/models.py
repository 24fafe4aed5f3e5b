"""Load a SavedModel as TensorFlow Serving does, through the session loader, and run its signatures.

`tf.saved_model.load` accepts models that TensorFlow Serving can't load (with variables that only Python objects
reference), so it can't show whether a model will work in production; this loader can. Nothing here depends on HTTP or
gRPC: the export check, the command line and the server share it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo

from sat_xception.errors import ModelError
from sat_xception.serve.protocol import CLASSIFY_SIGNATURE, DEFAULT_SIGNATURE, Classification, Code, RequestError

__all__ = ["Array", "SavedModelSession"]

Array = npt.NDArray[Any]
_MAX_MESSAGE = 600
_NODES = re.compile(r"\[\[\{\{.*?\]\]", re.DOTALL)


class SavedModelSession:
    """One SavedModel in a TensorFlow session; thread-safe.

    Attributes:
        path: Folder of the SavedModel.
        signatures: SignatureDef of each signature, by name.

    Example:
        with SavedModelSession(Path("models/serving/school-classifier/20260101120000")) as model:
            model.probabilities([jpeg])  # float32 [1, classes]
    """

    def __init__(self, path: Path) -> None:
        """Load the model.

        Args:
            path: Folder that holds `saved_model.pb`.

        Raises:
            ModelError: The model is missing, damaged, without the tag `serve`, or uses unknown operations.
        """
        self.path = path
        if not (path / "saved_model.pb").is_file():
            raise ModelError(f"no saved_model.pb in {path}: name a version's folder, as <model root>/<name>/<version>")
        # Two versions are in memory during a swap, so neither may allocate the whole GPU.
        options = tf.compat.v1.ConfigProto(gpu_options=tf.compat.v1.GPUOptions(allow_growth=True))
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=options)
        try:
            with _quiet_tensorflow():
                meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
            self.signatures: Mapping[str, SignatureDef] = dict(meta_graph.signature_def)
            self._runs = {
                name: self._make_run(signature) for name, signature in self.signatures.items() if signature.inputs
            }
            self._in_rows = {name for name in self._runs if _is_in_rows(self.signatures[name])}
        except Exception as error:  # a damaged model raises any of these, and all mean the same to the caller
            self._session.close()
            raise ModelError(
                f"{path} doesn't load as TensorFlow Serving loads it: {type(error).__name__}: {_brief(error)}"
            ) from error

    def __enter__(self) -> SavedModelSession:
        """Return the loaded model."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unload the model."""
        self.close()

    def close(self) -> None:
        """Unload the model. No call may be in progress."""
        self._session.close()

    def input_infos(self, signature: str) -> Mapping[str, TensorInfo]:
        """Return the TensorInfo of each input of a signature, by name.

        Raises:
            RequestError: FAILED_PRECONDITION: the model has no such signature.
        """
        return dict(self._signature(signature).inputs)

    def predict(
        self, signature: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()
    ) -> dict[str, Array]:
        """Run a signature.

        Args:
            signature: Name of the signature.
            inputs: One array per input; strings as object arrays of bytes.
            output_filter: Names of the outputs to return. Default: all.

        Returns:
            One array per output.

        Raises:
            RequestError: FAILED_PRECONDITION for an unknown signature; INVALID_ARGUMENT for inputs that don't fit the
                signature or can't be decoded; otherwise the code that TensorFlow gave.
        """
        return self.run(signature, self.checked(signature, inputs, output_filter), output_filter)

    def probabilities(self, images: Sequence[bytes] | Array) -> npt.NDArray[np.float32]:
        """Return the probabilities of encoded images, float32 [n, classes], by the default signature.

        Raises:
            RequestError: As `predict`.
        """
        outputs = self.predict(DEFAULT_SIGNATURE, {"image_bytes": _encoded(images)}, ["probabilities"])
        found: npt.NDArray[np.float32] = outputs["probabilities"]
        return found

    def classify(self, images: Sequence[bytes] | Array) -> Classification:
        """Return the probabilities, the most probable label and its score of encoded images.

        Raises:
            RequestError: As `predict`.
        """
        names = ["probabilities", "label", "score"]
        outputs = self.predict(CLASSIFY_SIGNATURE, {"image_bytes": _encoded(images)}, names)
        probabilities, labels, scores = (outputs[name] for name in names)
        return Classification(probabilities, [label.decode() for label in labels], scores)

    def checked(
        self, signature: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()
    ) -> dict[str, Array]:
        """Check a call's inputs, and return them in the form that `run` takes.

        Args:
            signature: Name of the signature.
            inputs: One array per input.
            output_filter: Names of the outputs that will be requested.

        Raises:
            RequestError: FAILED_PRECONDITION for an unknown signature; INVALID_ARGUMENT for inputs that don't fit it.
        """
        definition = self._signature(signature)
        _check_names(signature, definition, inputs, output_filter)
        return {name: _checked(name, info, inputs[name]) for name, info in definition.inputs.items()}

    def run(self, signature: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()) -> dict[str, Array]:
        """Run a signature on inputs that `checked` returned.

        Raises:
            RequestError: INVALID_ARGUMENT for inputs that can't be decoded; otherwise the code that TensorFlow gave.
        """
        try:
            values = self._runs[signature](*(inputs[name] for name in sorted(inputs)))
        except tf.errors.OpError as error:
            raise RequestError(Code(error.error_code), _brief(error)) from error
        except (TypeError, ValueError) as error:
            raise RequestError(Code.INVALID_ARGUMENT, _brief(error)) from error
        outputs = dict(zip(sorted(self.signatures[signature].outputs), map(_as_array, values), strict=True))
        return {name: outputs[name] for name in output_filter or outputs}

    def rows(self, signature: str, inputs: Mapping[str, Array]) -> int | None:
        """Return the number of rows of a call; None if it can't be merged with others.

        Calls can be merged if every input and output of the signature has an open first dimension, and the inputs agree
        on its length.
        """
        if signature not in self._in_rows or any(array.ndim == 0 for array in inputs.values()):
            return None
        lengths = {len(array) for array in inputs.values()}
        return lengths.pop() if len(lengths) == 1 else None

    def _signature(self, name: str) -> SignatureDef:
        if name not in self._runs:
            known = ", ".join(sorted(self._runs))
            raise RequestError(
                Code.FAILED_PRECONDITION, f'Serving signature name: "{name}" not found in signature def; known: {known}'
            )
        return self.signatures[name]

    def _make_run(self, signature: SignatureDef) -> Callable[..., list[Array | np.generic | bytes]]:
        fetches = [signature.outputs[name].name for name in sorted(signature.outputs)]
        feeds = [signature.inputs[name].name for name in sorted(signature.inputs)]
        run: Callable[..., list[Array | np.generic | bytes]] = self._session.make_callable(fetches, feeds)
        return run


def _encoded(images: Sequence[bytes] | Array) -> Array:
    encoded = np.empty(len(images), dtype=object)
    encoded[:] = list(images)
    return encoded


@contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """Hide TensorFlow's deprecation warning for its session loader; no other loads as TensorFlow Serving does."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _as_array(value: Array | np.generic | bytes) -> Array:
    """Return an output as an array: a session returns a scalar as a NumPy scalar, and a scalar string as bytes."""
    if not isinstance(value, bytes):
        return np.asarray(value)
    array = np.empty((), dtype=object)  # np.asarray would strip trailing zero bytes
    array[()] = value
    return array


def _is_in_rows(signature: SignatureDef) -> bool:
    shapes = [info.tensor_shape for info in (*signature.inputs.values(), *signature.outputs.values())]
    return all(not shape.unknown_rank and len(shape.dim) > 0 and shape.dim[0].size == -1 for shape in shapes)


def _check_names(
    signature: str, definition: SignatureDef, inputs: Mapping[str, Array], output_filter: Sequence[str]
) -> None:
    wanted, given = set(definition.inputs), set(inputs)
    if wanted != given:
        raise RequestError(
            Code.INVALID_ARGUMENT,
            f"inputs don't match signature {signature!r}, which takes {sorted(wanted)}: "
            f"missing {sorted(wanted - given)}, unknown {sorted(given - wanted)}",
        )
    outputs = set(definition.outputs)
    if not set(output_filter) <= outputs:
        unknown = sorted(set(output_filter) - outputs)
        raise RequestError(
            Code.INVALID_ARGUMENT, f"unknown outputs {unknown}; signature {signature!r} has {sorted(outputs)}"
        )
    if len(set(output_filter)) != len(output_filter):
        raise RequestError(Code.INVALID_ARGUMENT, f"an output is asked for twice: {list(output_filter)}")


def _checked(name: str, info: TensorInfo, value: Array) -> Array:
    """Return an input in the form to feed, or raise an error with its difference from the signature."""
    dtype = tf.dtypes.as_dtype(info.dtype)
    if dtype == tf.string and value.dtype.kind == "S":
        value = value.astype(object)
    if not dtype.is_numpy_compatible:
        raise RequestError(Code.INVALID_ARGUMENT, f"input {name!r} takes {dtype.name}, which no request can carry")
    if value.dtype != dtype.as_numpy_dtype:
        raise RequestError(Code.INVALID_ARGUMENT, f"input {name!r} is {value.dtype}, the signature takes {dtype.name}")
    shape = tf.TensorShape(info.tensor_shape)
    if not shape.is_compatible_with(value.shape):
        raise RequestError(
            Code.INVALID_ARGUMENT,
            f"input {name!r} has shape {list(value.shape)}, the signature takes {shape.as_list()}",
        )
    return value


def _brief(error: Exception) -> str:
    """Return TensorFlow's message without the names of its graph's nodes."""
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    text = _NODES.sub("", text.split("Original stack trace")[0].removeprefix("Graph execution error:"))
    return " ".join(text.split())[:_MAX_MESSAGE] or type(error).__name__
