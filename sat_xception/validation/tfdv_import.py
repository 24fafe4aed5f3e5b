"""Import TensorFlow Data Validation and its dependencies, without their log output and without `farmhash`.

The import takes about ten seconds. Generated protocol buffer code and these libraries have no type annotations.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn, TypeAlias

__all__ = [
    "Anomalies",
    "FnApiRunner",
    "Schema",
    "SlicedStatistics",
    "Statistics",
    "anomalies_pb2",
    "beam",
    "pyarrow",
    "schema_pb2",
    "text_format",
    "tfdv",
    "tfxio",
]

Schema: TypeAlias = Any
"""`tensorflow_metadata.proto.v0.schema_pb2.Schema`."""
Statistics: TypeAlias = Any
"""`tensorflow_metadata.proto.v0.statistics_pb2.DatasetFeatureStatisticsList`, with one data set."""
Anomalies: TypeAlias = Any
"""`tensorflow_metadata.proto.v0.anomalies_pb2.Anomalies`."""


def _stand_in_for_farmhash() -> None:
    """Make TFDV importable without `farmhash`, which has no wheel and needs a compiler to build.

    TFDV imports it for two features that aren't used here: row-level skew detection and feature partitioning. Calling
    either raises an error that names the missing library.
    """
    if "farmhash" in sys.modules or importlib.util.find_spec("farmhash") is not None:
        return

    def missing(*_: object) -> NoReturn:
        raise NotImplementedError(
            "TFDV's row-level skew detector and its feature partitioning need farmhash: pip install pyfarmhash "
            "(it has no wheel, so that takes a compiler)"
        )

    module = types.ModuleType("farmhash", "Stands in for a library that isn't installed.")
    for name in ("fingerprint32", "fingerprint64"):
        setattr(module, name, missing)
    sys.modules["farmhash"] = module


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what the libraries print and warn of during import, and undo their changes to logging."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    root.handlers[:] = handlers


with _quiet():
    _stand_in_for_farmhash()
    tfdv: Any = importlib.import_module("tensorflow_data_validation")
    beam: Any = importlib.import_module("apache_beam")
    FnApiRunner: Any = importlib.import_module("apache_beam.runners.portability.fn_api_runner").FnApiRunner
    # `tfdv.GenerateStatistics` is this with slices of its own, and with those of all data together.
    SlicedStatistics: Any = importlib.import_module(
        "tensorflow_data_validation.statistics.stats_impl"
    ).GenerateSlicedStatisticsImpl
    tfxio: Any = importlib.import_module("tfx_bsl.public.tfxio")
    pyarrow: Any = importlib.import_module("pyarrow")
    schema_pb2: Any = importlib.import_module("tensorflow_metadata.proto.v0.schema_pb2")
    text_format: Any = importlib.import_module("google.protobuf.text_format")
    anomalies_pb2: Any = importlib.import_module("tensorflow_metadata.proto.v0.anomalies_pb2")
