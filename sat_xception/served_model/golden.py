"""`golden.json`: tiles with their expected probabilities, to verify that the packaged model is the one that answers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from sat_xception.errors import ModelError
from sat_xception.storage.document import Document, Part

__all__ = ["EncodedImage", "GoldenTile", "GoldenTiles", "check_answers", "check_golden"]


class _Endpoint(Protocol):
    """A client that scores golden tiles, such as `EndpointClient`."""

    @property
    def address(self) -> str:
        """Address of the endpoint."""

    def predict(self, images: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Return probabilities `float32 [n, classes]` of encoded images."""


class EncodedImage(Part):
    """An encoded image in base64, in the form of TensorFlow Serving's REST interface."""

    b64: str

    @classmethod
    def of(cls, data: bytes) -> EncodedImage:
        """Return the image of a file's bytes."""
        return cls(b64=base64.b64encode(data).decode())

    @property
    def data(self) -> bytes:
        """Bytes of the file."""
        return base64.b64decode(self.b64)

    @field_validator("b64")
    @classmethod
    def _is_base64(cls, value: str) -> str:
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"isn't base64: {error}") from None
        return value


class GoldenTile(Part):
    """A tile, its class, and its calibrated probabilities by Keras."""

    tile_id: str = Field(alias="id")
    label: str
    image_bytes: EncodedImage
    probabilities: tuple[float, ...]


class GoldenTiles(Document):
    """Content of `golden.json`.

    Attributes:
        signature_name: Signature of the model to call.
        classes: Names in the order of the probabilities.
        tolerance: Maximum difference of a probability.
        tiles: At least one tile.

    Example:
        golden = GoldenTiles.read(Path("models/serving/school-classifier/20260101120000"))
        client.predict(golden.images) - golden.expected  # float32 [n, classes], each within golden.tolerance
    """

    file_name: ClassVar[str] = "golden.json"
    made_by: ClassVar[str] = "package"

    signature_name: str
    classes: tuple[str, ...]
    tolerance: float
    tiles: tuple[GoldenTile, ...]

    @cached_property
    def images(self) -> list[bytes]:
        """Encoded images of the tiles."""
        return [tile.image_bytes.data for tile in self.tiles]

    @cached_property
    def expected(self) -> npt.NDArray[np.float32]:
        """Expected probabilities, `float32 [n, classes]`."""
        return np.array([tile.probabilities for tile in self.tiles], dtype=np.float32)

    @field_validator("tiles")
    @classmethod
    def _has_tiles(cls, tiles: tuple[GoldenTile, ...]) -> tuple[GoldenTile, ...]:
        if not tiles:
            raise ValueError(
                "there are none, so nothing could prove that this model answers; give package examples with a "
                "validation split"
            )
        return tiles

    @model_validator(mode="after")
    def _has_a_probability_of_each_class(self) -> GoldenTiles:
        for tile in self.tiles:
            if len(tile.probabilities) != len(self.classes):
                raise ValueError(
                    f"tile {tile.tile_id} has {len(tile.probabilities)} probabilities, expected {len(self.classes)}, "
                    "one of each class"
                )
        return self


def check_golden(version: Path, client: _Endpoint) -> float:
    """Return the largest difference of a probability between the golden tiles and the endpoint's answers.

    Args:
        version: Packaged version, with `golden.json`.
        client: Client of the endpoint, pinned to the version.

    Raises:
        DataError: There is no `golden.json`, or it is damaged.
        ModelError: A difference is larger than the tolerance: another model answers, or it answers wrongly.
        ServiceError: The endpoint doesn't answer.
    """
    return check_answers(version, client.predict, client.address)


def check_answers(
    version: Path,
    predict: Callable[[list[bytes]], npt.NDArray[np.float32]],
    who: str,
    tolerance: float | None = None,
) -> float:
    """Return the largest difference of a probability between the golden tiles and a model's answers.

    Args:
        version: Packaged version, with `golden.json`.
        predict: Returns probabilities `float32 [n, classes]` of encoded images.
        who: Name of the endpoint or engine, for messages.
        tolerance: Maximum difference. Default: the package's own.

    Raises:
        DataError: There is no `golden.json`, or it is damaged.
        ModelError: A difference is larger than the tolerance.
    """
    golden = GoldenTiles.read(version)
    answered = predict(golden.images)
    if answered.shape != golden.expected.shape:
        raise ModelError(
            f"{who} answers golden tiles with {answered.shape[1]} classes, {version} has {len(golden.classes)}"
            ": another model is behind this address"
        )
    differences = np.abs(answered - golden.expected).max(axis=1)
    worst = int(differences.argmax())
    allowed = golden.tolerance if tolerance is None else tolerance
    if not differences[worst] <= allowed:
        found, right = (array[worst].round(4).tolist() for array in (answered, golden.expected))
        raise ModelError(
            f"{who} answers golden tile {golden.tiles[worst].tile_id} with {found}, expected {right} "
            f"within {allowed:g}: it isn't the model in {version}"
        )
    return float(differences[worst])
