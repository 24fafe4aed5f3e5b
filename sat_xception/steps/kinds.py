"""Kinds of settings that several steps have: shares, addresses, and paths that may be in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from sat_xception.storage import Stored

__all__ = [
    "Address",
    "Dataset",
    "DatasetRecords",
    "Examples",
    "FileOrNone",
    "Folder",
    "FolderOrNone",
    "Fraction",
    "Fractions",
    "LocalFolderOrNone",
    "Place",
    "PlaceOrNone",
    "Result",
    "ResultOrNone",
    "TrainedModel",
    "Weights",
]


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


Fraction = Annotated[float, Field(ge=0, le=1)]
# A pipeline's parameter can't be left out: there an empty text says that there is none.
_MaybePath = Annotated[Path | None, BeforeValidator(_none_if_empty)]
# Paths that may be gs:// addresses; see docs/storage.md. What is read is local by the time a step's function is called.
Folder = Annotated[Path, Stored("folder")]
FolderOrNone = Annotated[_MaybePath, Stored("folder")]
FileOrNone = Annotated[_MaybePath, Stored("file")]
LocalFolderOrNone = _MaybePath
Dataset = Annotated[Path, Stored("folder", "dataset.json")]
DatasetRecords = Annotated[Path, Stored("folder", "dataset.json", only=("dataset.json", "manifest.parquet"))]
Examples = Annotated[Path, Stored("folder", "examples.json")]
TrainedModel = Annotated[Path, Stored("folder", "train.json")]
Result = Annotated[Path, Stored("result")]
ResultOrNone = Annotated[_MaybePath, Stored("result")]
Place = Annotated[Path, Stored("place")]
PlaceOrNone = Annotated[_MaybePath, Stored("place")]


def _fractions_sum_to_one(fractions: tuple[float, float, float]) -> tuple[float, float, float]:
    if abs(sum(fractions) - 1.0) > 1e-6:
        raise ValueError(f"fractions sum to {sum(fractions):g}, expected 1")
    return fractions


def _names_weights(weights: str) -> str:
    if weights not in ("imagenet", "none") and not weights.endswith((".h5", ".hdf5")):
        raise ValueError("expected 'imagenet', 'none', or a path or gs:// address of a .h5 file")
    return weights


def _is_address(address: str) -> str:
    if address and not address.startswith(("http://", "https://", "grpc://")):
        raise ValueError("expected http://host:port, https://host:port or grpc://host:port")
    return address


Fractions = Annotated[tuple[Fraction, Fraction, Fraction], AfterValidator(_fractions_sum_to_one)]
Address = Annotated[str, AfterValidator(_is_address)]
Weights = Annotated[str, AfterValidator(_names_weights)]
