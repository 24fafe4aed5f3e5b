"""Freeze a SavedModel: its weights become constants, which engines fold and fuse. This alone is faster on CPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from sat_xception.errors import ModelError

__all__ = ["freeze", "network_of"]

_SIGNATURE = "images"


def freeze(version: Path) -> Any:  # noqa: ANN401 - a ConcreteFunction
    """Return the signature `images` as a function of `uint8 [n, h, w, 3]` without variables.

    Raises:
        ModelError: The version has no such signature, or can't be loaded.
    """
    try:
        # The variables exist as long as the model object.
        loaded = tf.saved_model.load(str(version))
        return convert_variables_to_constants_v2(loaded.signatures[_SIGNATURE], lower_control_flow=False)
    except KeyError:
        raise ModelError(f"{version} has no signature {_SIGNATURE!r}; run `sat_xception package` again") from None
    except Exception as error:  # a damaged model raises various errors
        raise ModelError(f"{version} can't be loaded: {type(error).__name__}: {str(error)[:300]}") from error


def network_of(version: Path) -> tuple[bytes, int]:
    """Return the part after the resizing in a version's signature `images`, as a GraphDef, and its input size.

    The graph's input is `pixels`, `uint8 [n, size, size, 3]`; its output is `probabilities`.

    Raises:
        ModelError: The version can't be loaded, or has no resized input.
    """
    frozen = freeze(version)
    pixels = _resized_pixels(frozen.graph)
    if pixels is None:
        raise ModelError(f"no input of one size was found in {version}; score it with --engine tensorflow")
    size = int(pixels.shape[1])
    with tf.Graph().as_default() as graph:
        taken = tf.compat.v1.placeholder(tf.uint8, [None, size, size, 3], name="pixels")
        (found,) = tf.import_graph_def(
            frozen.graph.as_graph_def(),
            input_map={pixels.name: taken},
            return_elements=[frozen.outputs[0].name],
            name="model",
        )
        needed = _behind(tf.identity(found, name="probabilities").op)
    definition = graph.as_graph_def()
    kept = [node for node in definition.node if node.name in needed]
    definition.ClearField("node")
    definition.node.extend(kept)
    return definition.SerializeToString(deterministic=True), size


def _behind(last: Any) -> set[str]:  # noqa: ANN401 - an Operation
    """Return the names of all operations that an operation depends on."""
    found, waiting = set(), [last]
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return found


def _resized_pixels(graph: Any) -> Any:  # noqa: ANN401 - a Graph, and a Tensor or None
    """Return the network's input: the last tensor of pixels with a fixed size before they are scaled."""
    found = None
    for operation in graph.get_operations():
        for tensor in operation.outputs:
            sized = tensor.dtype == tf.uint8 and tensor.shape.rank == 4 and None not in tensor.shape.as_list()[1:]
            if sized and any(consumer.type == "Cast" for consumer in tensor.consumers()):
                found = tensor
    return found
