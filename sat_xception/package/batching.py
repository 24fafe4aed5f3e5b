"""TensorFlow Serving's batching parameters of a packaged model: one file for people who wait, one for bulk work.

The values say how much is merged, not how fast the hardware is: `num_batch_threads` isn't among them, which TensorFlow
Serving takes from `--batching_parameters_file` alone, and by default is the number of cores. Nor is
`allowed_batch_sizes`: it pads a batch with copies up to the next size, work that is only worth it where each new shape
is compiled, on a GPU with XLA. There, add sizes of which the last equals `max_batch_size`.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["BULK_FILE", "ONLINE_FILE", "write_batching"]

# The name that `--enable_per_model_batching_parameters` looks for beside saved_model.pb.
ONLINE_FILE = "batching_params.pbtxt"
BULK_FILE = "batching_params_bulk.pbtxt"

# On two cores MobileNetV2 does 55 tiles/s alone and 99 by 8; by 32 it gains nothing more (2026-08), and a GPU is busy
# with 64. A client that waits feels 2 ms less than one that asks alone for its tile. Beyond a few batches in the queue
# it is better told to come back: UNAVAILABLE.
_ONLINE = """\
# For clients that wait. Use with --enable_batching --enable_per_model_batching_parameters, or as
# --batching_parameters_file. A request of more than max_batch_size images is refused.
max_batch_size { value: 64 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 16 }
"""
# Clients of bulk work send batches that are nearly full; a wait of 50 ms fills the last ones, and a long queue keeps
# the device busy while theirs are read.
_BULK = """\
# For throughput. Use as --batching_parameters_file, without --enable_per_model_batching_parameters.
max_batch_size { value: 256 }
batch_timeout_micros { value: 50000 }
max_enqueued_batches { value: 1000 }
"""


def write_batching(folder: Path) -> None:
    """Write both files beside a SavedModel; TensorFlow Serving reads them only when its flags say so."""
    (folder / ONLINE_FILE).write_text(_ONLINE, encoding="utf-8")
    (folder / BULK_FILE).write_text(_BULK, encoding="utf-8")
