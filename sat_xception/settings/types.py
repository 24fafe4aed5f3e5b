"""Field types shared by the settings of several steps: fractions, addresses, and paths that may be in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from sat_xception.storage import Stored

__all__ = [
    "Address",
    "Dataset",
    "DatasetRecords",
    "DecisionOrNone",
    "Difference",
    "EvaluationOrNone",
    "Examples",
    "FileOrNone",
    "Folder",
    "FolderOrNone",
    "Fraction",
    "Fractions",
    "LocalFileOrNone",
    "LocalFolderOrNone",
    "Place",
    "PlaceOrNone",
    "Result",
    "ResultOrNone",
    "ThresholdGoal",
    "TrainedModel",
    "TrainedModelOrNone",
    "Weights",
    "check_layers",
    "layers_of",
    "model_name",
]

_MODEL_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


Fraction = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]
# KFP parameters can't be omitted, so "" means "not given".
_MaybePath = Annotated[Path | None, BeforeValidator(_none_if_empty)]
# Paths that may be addresses in buckets; see docs/storage.md. A step's function finds what it reads on this machine.
Folder = Annotated[Path, Stored("folder")]
FolderOrNone = Annotated[_MaybePath, Stored("folder")]
FileOrNone = Annotated[_MaybePath, Stored("file")]
LocalFolderOrNone = _MaybePath
LocalFileOrNone = _MaybePath
Dataset = Annotated[Path, Stored("folder", "dataset.json")]
DatasetRecords = Annotated[Path, Stored("folder", "dataset.json", only=("dataset.json", "manifest.parquet"))]
Examples = Annotated[Path, Stored("folder", "examples.json")]
TrainedModel = Annotated[Path, Stored("folder", "train.json")]
TrainedModelOrNone = Annotated[_MaybePath, Stored("folder", "train.json")]
DecisionOrNone = Annotated[_MaybePath, Stored("folder", "decision.json")]
EvaluationOrNone = Annotated[_MaybePath, Stored("folder", "evaluation.json")]
Result = Annotated[Path, Stored("result")]
ResultOrNone = Annotated[_MaybePath, Stored("result")]
Place = Annotated[Path, Stored("place")]
PlaceOrNone = Annotated[_MaybePath, Stored("place")]


def model_name(description: str = "Name of the served model.") -> Any:  # noqa: ANN401 - stands for a field of any type
    """Return the field of a served model's name: lower-case letters, digits and hyphens, as Kubernetes requires."""
    return Field("school-classifier", pattern=_MODEL_NAME, description=description)


def layers_of(what: str) -> Any:  # noqa: ANN401 - stands for a field of any type
    """Return the field that names the layers to read from the file of another setting."""
    return Field((), description=f"Layer of {what} to read, if that file has several; repeat for more.")


def check_layers(settings: BaseModel) -> None:
    """Reject `<file>_layer` settings without their file.

    Raises:
        ValueError: A setting `<file>_layer` is given without `<file>`.
    """
    for name in type(settings).model_fields:
        file = name.removesuffix("_layer")
        if file != name and getattr(settings, name) and not getattr(settings, file):
            flag = f"--{file.replace('_', '-')}"
            raise ValueError(f"{flag}-layer goes with {flag}, which isn't given")


def _fractions_sum_to_one(fractions: tuple[float, float, float]) -> tuple[float, float, float]:
    if abs(sum(fractions) - 1.0) > 1e-6:
        raise ValueError(f"fractions sum to {sum(fractions):g}, expected 1")
    return fractions


def _names_weights(weights: str) -> str:
    if weights not in ("imagenet", "none") and not weights.endswith((".h5", ".hdf5")):
        raise ValueError("expected 'imagenet', 'none', or a path or bucket address of a .h5 file")
    return weights


def _is_address(address: str) -> str:
    if address and not address.startswith(("http://", "https://", "grpc://", "grpcs://")):
        raise ValueError("expected http://host:port, https://host:port, grpc://host:port or grpcs://host:port")
    return address


def _is_threshold_goal(goal: str) -> str:
    kind, colon, floor = goal.partition(":")
    if goal != "f1" and not (kind in ("recall-at-precision", "precision-at-recall") and colon and _is_share(floor)):
        raise ValueError("expected f1, recall-at-precision:P or precision-at-recall:R, with P or R in (0, 1]")
    return goal


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False


Fractions = Annotated[tuple[Fraction, Fraction, Fraction], AfterValidator(_fractions_sum_to_one)]
Address = Annotated[str, AfterValidator(_is_address)]
ThresholdGoal = Annotated[str, AfterValidator(_is_threshold_goal)]
Weights = Annotated[str, AfterValidator(_names_weights)]
