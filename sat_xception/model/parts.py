"""Parts of the documents that train and search write: an epoch, and the weights that a network started from."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from sat_xception.storage.document import Part

__all__ = ["Epoch", "Weights"]


class Weights(Part):
    """Weights that a training started from; without a file, `sha256` is left out of the JSON."""

    kind: str
    description: str
    sha256: str | None = None

    @model_serializer(mode="wrap")
    def _leave_out_an_absent_digest(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        return {key: value for key, value in content.items() if value is not None}


class Epoch(Part):
    """One epoch of the history. A figure is None where it isn't finite.

    Attributes:
        phase: "head", "fine-tune" or "scratch".
        epoch: Number in its phase, from 1.
        seconds: Time of the epoch.
        loss: Loss on the training split.
        accuracy: Accuracy on the training split.
        val_loss: Loss on the validation split.
        val_accuracy: Accuracy on the validation split.
        learning_rate: Learning rate at the end of the epoch.
    """

    phase: str
    epoch: int
    seconds: float | None = None
    loss: float | None
    accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float | None = None

    @property
    def score(self) -> float:
        """Validation accuracy, by which epochs are compared; below 0 where it isn't finite."""
        return -1.0 if self.val_accuracy is None else self.val_accuracy

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_known(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        return {key: value for key, value in content.items() if key in self.model_fields_set}
