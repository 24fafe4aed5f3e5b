"""`model.json`: the description of a packaged model, with the fields that readers use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import ConfigDict, Field

from sat_xception.storage.document import Document, Part

__all__ = ["PackagedModel", "SplitAccuracy"]


class SplitAccuracy(Part):
    """Number of tiles of a split, and the accuracy on them."""

    # Figures that only the writer needs by name stay in the JSON that `models list` prints.
    model_config = ConfigDict(extra="allow")

    count: int
    accuracy: float


class PackagedModel(Document):
    """The fields of `model.json` that readers use, whichever version of sat-xception wrote it.

    `package` writes more, see `ModelRecord`; other fields are kept in `model_extra`.

    Attributes:
        name: Name of the served model.
        version: Number of the version.
        backbone: Name of the backbone.
        model: Digest of the Keras model.
        classes: Names in the order of the probabilities.
        positive_label: The positive class; "" without one.
        threshold: Decision threshold of the positive class; None without one, and in files of the first versions.
        dataset_digest: Digest of the dataset.
        tiles: Number of tiles by split.
        metrics: Figures by split: "valid" with a gate's decision, "test" if the data has a test split.
        failed_candidates: Why other candidates of the run have no model, by backbone.

    Example:
        model = PackagedModel.read(Path("models/serving/school-classifier/20260101120000"))
        model.classes  # ("not-school", "school")
    """

    model_config = ConfigDict(extra="allow")

    file_name: ClassVar[str] = "model.json"
    made_by: ClassVar[str] = "package"

    name: str
    version: int
    backbone: str
    model: str
    classes: tuple[str, ...] = Field(min_length=1)
    positive_label: str
    threshold: float | None = None
    dataset_digest: str
    tiles: dict[str, int]
    metrics: Mapping[str, SplitAccuracy]
    failed_candidates: dict[str, str] = Field(default_factory=dict)
