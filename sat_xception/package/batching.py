"""TensorFlow Serving's batching parameters of a packaged model: one file for online clients, one for bulk scoring.

The values don't depend on the hardware. `num_batch_threads` is left out: TensorFlow Serving reads it only from
`--batching_parameters_file`, and its default is the number of cores. `allowed_batch_sizes` is left out too: it pads
each batch to the next size, which is only worth it if each new shape is compiled, on a GPU with XLA. There, add sizes
of which the last equals `max_batch_size`.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["BULK_FILE", "ONLINE_FILE", "write_batching"]

# The file name that `--enable_per_model_batching_parameters` reads, next to saved_model.pb.
ONLINE_FILE = "batching_params.pbtxt"
BULK_FILE = "batching_params_bulk.pbtxt"

# On two cores MobileNetV2 scores 55 tiles/s one by one and 99 in batches of 8; 32 gains nothing more (2026-08), and 64
# keep a GPU busy. A wait of 2 ms is short compared with scoring one tile. With more than a few batches in the queue, it
# is better to refuse requests (UNAVAILABLE), so that clients retry later.
_ONLINE = """\
# For clients that wait. Use with --enable_batching --enable_per_model_batching_parameters, or as
# --batching_parameters_file. A request of more than max_batch_size images is refused.
max_batch_size { value: 64 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 16 }
"""
# Bulk clients send batches that are nearly full. A wait of 50 ms fills them up, and a long queue keeps the device busy
# while the clients read their next images.
_BULK = """\
# For throughput. Use as --batching_parameters_file, without --enable_per_model_batching_parameters.
max_batch_size { value: 256 }
batch_timeout_micros { value: 50000 }
max_enqueued_batches { value: 1000 }
"""


def write_batching(folder: Path) -> None:
    """Write both files next to a SavedModel; TensorFlow Serving reads them only if its flags are set."""
    (folder / ONLINE_FILE).write_text(_ONLINE, encoding="utf-8")
    (folder / BULK_FILE).write_text(_BULK, encoding="utf-8")
