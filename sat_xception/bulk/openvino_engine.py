"""Score with OpenVINO in this process. The SavedModel's network is converted once; scoring needs no TensorFlow.

OpenVINO lacks TensorFlow's antialiased resizing, so only the network after the resizing is converted, and tiles of
another size are resized in front of it, to the same bytes (see `resampling`). The results are checked against the
package's golden tiles before anything is scored (see `engines`).
"""

from __future__ import annotations

import contextlib
import functools
import queue
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from sat_xception.bulk.resampling import resized
from sat_xception.bulk.scorer import Probabilities
from sat_xception.bulk.tiles import Pixels
from sat_xception.errors import ConfigError, ModelError
from sat_xception.process import usable_cores

__all__ = ["NETWORK_FILE", "OpenVinoEngine", "check_precision", "write_network"]

NETWORK_FILE = "network.xml"
# Number of tiles per inference of a core. MobileNetV2 0.35 on 2 cores scored 400 tiles/s with 8, 366 with 16, 364 with
# 32: with fewer tiles, more of the activations stay in the cache.
_PART = 8
_HINTS = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "int8": ov.Type.f32}


class OpenVinoEngine:
    """A converted network, compiled for this machine's processor; see `Engine`."""

    def __init__(self, network: Path, precision: str, threads: int = 0) -> None:
        """Load a network that `write_network` wrote.

        Args:
            network: Folder of the network.
            precision: "fp32", "bf16" or "int8".
            threads: Number of cores to use; 0 uses all.

        Raises:
            ConfigError: The processor doesn't support the precision.
            ModelError: The network is damaged.
        """
        check_precision(precision)
        try:
            model = _core().read_model(network / NETWORK_FILE)
        except RuntimeError as error:
            raise ModelError(f"{network / NETWORK_FILE} is damaged: {error}; remove {network}") from None
        # One batch per core at a time, so that cores don't wait for each other within a layer.
        self.at_once = threads or usable_cores()
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "NUM_STREAMS": self.at_once,
            "INFERENCE_NUM_THREADS": self.at_once,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = _core().compile_model(model, "CPU", settings)
        self._side = int(model.inputs[0].partial_shape[1].get_length())
        # An inference request must not be used by two threads at once.
        self._idle: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        for _ in range(self.at_once):
            self._idle.put(compiled.create_infer_request())

    def fit(self, pixels: Pixels) -> Pixels:
        """Resize a tile to the network's input size."""
        return resized(pixels, self._side)

    def run(self, pixels: Pixels) -> Probabilities:
        """Return the probabilities of tiles that `fit` returned."""
        request = self._idle.get()
        try:
            parts = [pixels[at : at + _PART] for at in range(0, len(pixels), _PART)]
            return np.concatenate([request.infer([part])[0] for part in parts])
        finally:
            self._idle.put(request)

    def close(self) -> None:
        """Release the network."""
        del self._idle


@functools.cache
def _core() -> ov.Core:
    """Return this process's only OpenVINO runtime.

    Its CPU plugin replaces the stack for signal handlers, and restores the previous one when it is destroyed. If
    several were destroyed in another order, the restored stack might be freed already, and the next SIGTERM would
    crash.
    """
    return ov.Core()


def check_precision(precision: str) -> None:
    """Refuse a precision that OpenVINO would silently replace on this processor.

    Raises:
        ConfigError: The processor doesn't support the precision.
    """
    able = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}[precision] not in able:
        raise ConfigError(
            f"--precision {precision}: this processor can't, it has {', '.join(sorted(able))}; give another --precision"
        )


def write_network(graph: bytes, folder: Path, calibration: Pixels | None = None) -> None:
    """Convert a network and write it to a folder, in fp32 or, with calibration tiles, in int8.

    Args:
        graph: GraphDef from `frozen.network_of`.
        folder: Folder to write.
        calibration: Tiles `uint8 [n, size, size, 3]` for int8; None for fp32.

    Raises:
        ModelError: OpenVINO lacks an operation of the network.
    """
    source = folder / "network.pb"
    source.write_bytes(graph)
    try:
        network = ov.convert_model(str(source))
    except (RuntimeError, ov.frontend.OpConversionFailure) as error:
        raise ModelError(f"OpenVINO can't convert this model: {error}; score it with --engine tensorflow") from None
    finally:
        source.unlink()
    if calibration is not None:
        network = _quantised(network, calibration)
    ov.save_model(network, folder / NETWORK_FILE, compress_to_fp16=False)


def _quantised(network: Any, calibration: Pixels) -> Any:  # noqa: ANN401 - an OpenVINO model
    with contextlib.redirect_stdout(None):
        import nncf

        tiles = nncf.Dataset(list(calibration), lambda tile: tile[np.newaxis])
        return nncf.quantize(
            network,
            tiles,
            subset_size=len(calibration),
            preset=nncf.QuantizationPreset.MIXED,
        )
