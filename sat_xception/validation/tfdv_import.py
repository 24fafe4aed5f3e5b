"""TensorFlow Data Validation and what comes with it, imported without its noise and without `farmhash`.

The import takes about ten seconds. Generated protocol buffer code and these libraries carry no types.
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
"""`tensorflow_metadata.proto.v0.statistics_pb2.DatasetFeatureStatisticsList`, of one data set here."""
Anomalies: TypeAlias = Any
"""`tensorflow_metadata.proto.v0.anomalies_pb2.Anomalies`."""


def _stand_in_for_farmhash() -> None:
    """Let TFDV be imported where `farmhash` isn't installed: it has no wheel, and building it takes a compiler.

    TFDV imports it for two things that aren't used here: the detector of skew between single rows, and the partitioning
    of very wide data. Either would fail at its first call, saying why.
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
    """Hold back what the libraries print, warn of and do to the log while they are imported."""
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
    tfxio: Any = importlib.import_module("tfx_bsl.public.tfxio")
    pyarrow: Any = importlib.import_module("pyarrow")
    schema_pb2: Any = importlib.import_module("tensorflow_metadata.proto.v0.schema_pb2")
    text_format: Any = importlib.import_module("google.protobuf.text_format")
    anomalies_pb2: Any = importlib.import_module("tensorflow_metadata.proto.v0.anomalies_pb2")
