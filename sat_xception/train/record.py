"""`train.json` and `history.json`: how a model was trained, and its figures by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from sat_xception.model.parts import Epoch, Weights
from sat_xception.search.record import SearchCounts
from sat_xception.storage.document import Document, Part

__all__ = ["Devices", "Hardware", "SearchSummary", "TrainingHistory", "TrainingRecord"]


class Hardware(Part):
    """Machine that a model was trained on."""

    machine: str = ""
    cores: int | None = None
    gpus: tuple[str, ...] = ()


class Devices(Part):
    """How a training used the machine; see `DevicePlan`."""

    precision: str
    xla: bool
    replicas: int
    deterministic: bool


class SearchSummary(Part):
    """The search that a training began with.

    Attributes:
        counts: Numbers of trials.
        valid_accuracy: Validation accuracy of the best one.
        best: Settings that the best one had and others hadn't.
    """

    counts: SearchCounts
    valid_accuracy: float
    best: Mapping[str, Any]


class TrainingRecord(Document):
    """Content of `train.json`.

    Where the training failed, there is no model: `failed` has the reason, and `model`, `weights_digest`, `kept_phase`
    and `valid_accuracy` are None.

    Attributes:
        backbone: Name of the backbone.
        input_size: Width and height of the model's input, in pixels.
        weights: Weights that it started from.
        classes: Names in index order.
        positive_label: The positive class; "" without one.
        source: Name of the data.
        synthetic: Whether the data is the synthetic sample.
        dataset_digest: Digest of the dataset.
        class_weight: Weight of each class in the loss, by its index; None where classes aren't weighted.
        failed: Why there is no model.
        model: SHA-256 of `model.keras`.
        weights_digest: Digest of the weights alone: `model.keras` also holds the time.
        kept_phase: Phase whose weights were kept.
        valid_accuracy: Validation accuracy of these.
        seconds: By phase, and of `all`.
        hardware: Machine.
        devices: How the training used it; None in files of earlier versions.
        versions: Versions of the libraries that change the result.
        config: Settings of train.
        search: The search that it began with; None, and left out of the file, without one.
    """

    file_name: ClassVar[str] = "train.json"
    made_by: ClassVar[str] = "train"

    backbone: str
    input_size: int
    weights: Weights
    classes: tuple[str, ...]
    positive_label: str
    source: str
    synthetic: bool
    dataset_digest: str
    class_weight: Mapping[int, float] | None = None
    failed: str | None = None
    model: str | None
    weights_digest: str | None = None
    kept_phase: str | None
    valid_accuracy: float | None
    seconds: Mapping[str, float]
    hardware: Hardware
    devices: Devices | None = None
    versions: Mapping[str, str] = Field(default_factory=dict)
    config: Mapping[str, Any] = Field(default_factory=dict)
    search: SearchSummary | None = None

    @property
    def total_seconds(self) -> float:
        """Whole time of the training."""
        return self.seconds["all"]

    @model_serializer(mode="wrap")
    def _leave_out_an_absent_search(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        if self.search is None:
            del content["search"]
        return content


class TrainingHistory(Document):
    """Content of `history.json`.

    Attributes:
        epochs: Epochs of all phases, in order.
    """

    file_name: ClassVar[str] = "history.json"
    made_by: ClassVar[str] = "train"

    epochs: tuple[Epoch, ...]

    @classmethod
    def _converted(cls, content: Any) -> Any:  # noqa: ANN401 - any JSON type
        # Earlier versions wrote the list of epochs alone.
        return {"epochs": content} if isinstance(content, list) else content
