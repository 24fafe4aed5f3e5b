"""Score with OpenVINO in this process: the SavedModel's own network, converted once; scoring needs no TensorFlow.

OpenVINO lacks TensorFlow's antialiased resizing, so the network is taken from behind it, and tiles of another size are
resized before it, to the same bytes (see `resampling`). Whether all of it answers as the package does is proven on its
golden tiles before anything is scored (see `engines`).
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
# Tiles that a core works on together: 400 tiles/s of MobileNetV2 0.35 on 2 cores with 8, 366 with 16, 364 with 32, as
# more of what a layer hands to the next one stays in the cache.
_PART = 8
_HINTS = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "int8": ov.Type.f32}


class OpenVinoEngine:
    """A converted network, compiled for this machine's processor. See `Engine`."""

    def __init__(self, network: Path, precision: str, threads: int = 0) -> None:
        """Read what `write_network` wrote.

        Args:
            network: Its folder.
            precision: "fp32", "bf16" or "int8".
            threads: Cores to use; 0 is all.

        Raises:
            ConfigError: This processor can't calculate with such numbers.
            ModelError: The network is damaged.
        """
        check_precision(precision)
        try:
            model = _core().read_model(network / NETWORK_FILE)
        except RuntimeError as error:
            raise ModelError(f"{network / NETWORK_FILE} is damaged: {error}; remove {network}") from None
        # As many batches at once as cores, each on one of them: no core waits for another's share of a layer.
        self.at_once = threads or usable_cores()
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "NUM_STREAMS": self.at_once,
            "INFERENCE_NUM_THREADS": self.at_once,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = _core().compile_model(model, "CPU", settings)
        self._side = int(model.inputs[0].partial_shape[1].get_length())
        # A request isn't to be used by two threads.
        self._idle: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        for _ in range(self.at_once):
            self._idle.put(compiled.create_infer_request())

    def fit(self, pixels: Pixels) -> Pixels:
        """Return a tile in the network's size."""
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
        """Let the network go."""
        del self._idle


@functools.cache
def _core() -> ov.Core:
    """Return this process's one OpenVINO runtime.

    Its CPU plugin changes the stack that signals are handled on, and puts the earlier one back when it goes: where
    several go in another order than they came, that one is gone already, and the next SIGTERM a segmentation fault.
    """
    return ov.Core()


def check_precision(precision: str) -> None:
    """Refuse numbers that this processor would quietly replace by others.

    Raises:
        ConfigError: It can't calculate with them.
    """
    able = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}[precision] not in able:
        raise ConfigError(
            f"--precision {precision}: this processor can't, it has {', '.join(sorted(able))}; give another --precision"
        )


def write_network(graph: bytes, folder: Path, calibration: Pixels | None = None) -> None:
    """Convert a network and write it to a folder, in 32-bit floating-point numbers or, calibrated, in 8-bit ones.

    Args:
        graph: What `frozen.network_of` returned.
        folder: Where to.
        calibration: Tiles `uint8 [n, size, size, 3]` as the network takes them, to fit 8-bit numbers on; None for none.

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
