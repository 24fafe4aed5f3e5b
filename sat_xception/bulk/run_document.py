"""`run.json`, written when a run begins, and `scores.json`, written when every tile is accounted for."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import AliasChoices, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from sat_xception.bulk.plan_document import ModelId, with_present_names
from sat_xception.imagery.settings import PixelSettings
from sat_xception.storage.document import Document, Part

__all__ = ["BulkRun", "BulkScores", "EngineId", "PreparedEngine", "ScoredImagery"]


class EngineId(Part):
    """An engine, with everything besides the model that affects its results. Absent fields are left out of the file.

    Attributes:
        name: "tensorflow", "openvino", or "endpoint" of a server.
        precision: "fp32", "bf16" or "int8"; "the server's" of a server.
        made_by: Name and version of the library; None of a server.
        calibrated_on: Digest of the examples; None without calibration.
    """

    name: str
    precision: str
    made_by: str | None = None
    calibrated_on: str | None = None

    @model_serializer(mode="wrap")
    def _leave_out_what_is_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        return {key: value for key, value in content.items() if value is not None}


class PreparedEngine(EngineId):
    """A prepared engine.

    Attributes:
        accuracy_loss: Loss of accuracy due to the precision, measured on validation tiles; 0 without a loss.
        accuracy: Accuracy on those tiles; None if it wasn't measured.
        validation_tiles: Number of those tiles; None if it wasn't measured.
    """

    accuracy_loss: float = 0.0
    accuracy: float | None = None
    validation_tiles: int | None = None


class ScoredImagery(PixelSettings):
    """Imagery that was scored.

    Attributes:
        url: Address, without keys; "" where it isn't known.
        attribution: Attribution required by its licence.
        tile_size: Required width and height, in pixels; 0 is any.
        max_pixels: Maximum number of pixels of an image.
        tms: Whether rows are numbered from the south; None of a dataset, like the next two.
        bands: Red, green and blue band of a GeoTIFF.
        scale: Pixel values that are mapped to black and white.
        file: State of a local file of imagery: size and time of the last change; None of other imagery.
        retried_with_file: States of the file when failed tiles were scored again.
    """

    url: str = ""
    attribution: str = ""
    tile_size: int | None = None  # type: ignore[assignment]
    max_pixels: int | None = None
    tms: bool | None = None  # type: ignore[assignment]
    bands: tuple[int, ...] | None = None  # type: ignore[assignment]
    scale: tuple[float, ...] | None = None  # type: ignore[assignment]
    file: str | None = None
    retried_with_file: tuple[str, ...] = Field(
        (), validation_alias=AliasChoices("retried_with_file", "retried with file")
    )


class _Scoring(Part):
    """Keys that `run.json` and `scores.json` share.

    Attributes:
        classes: Names in index order.
        positive_label: The positive class; None without one.
        threshold: Decision threshold of its probability; None without one.
        model: Model that scores.
        engine: Engine that runs it.
        planned: Tiles of the plan.
        tile_ids_digest: Digest of the plan's tile ids.
        imagery: Imagery that is scored.
        zoom: Zoom of the tiles; None where they aren't in the grid.
        run: Digest of the identity.
    """

    classes: tuple[str, ...]
    positive_label: str | None
    threshold: float | None
    model: ModelId
    engine: PreparedEngine
    planned: int
    tile_ids_digest: str = Field(validation_alias=AliasChoices("tile_ids_digest", "digest of tile ids"))
    imagery: ScoredImagery
    zoom: int | None
    run: str = ""


class BulkRun(_Scoring, Document):
    """Content of `run.json`.

    Attributes:
        shards: Shards of the plan.
        identity: All that a byte of the scores depends on; None in files of versions that didn't record it.
    """

    file_name: ClassVar[str] = "run.json"
    made_by: ClassVar[str] = "bulk predict"

    shards: int
    identity: dict[str, Any] | None = None

    @field_validator("identity")
    @classmethod
    def _rename_keys(cls, identity: dict[str, Any] | None) -> dict[str, Any] | None:
        return identity and with_present_names(identity)


class BulkScores(_Scoring, Document):
    """Content of `scores.json`: planned = scored + failed.

    Attributes:
        scored: Tiles with probabilities.
        failed: Tiles with a reason instead.
        reasons: The most common reasons, with their numbers.
    """

    file_name: ClassVar[str] = "scores.json"
    made_by: ClassVar[str] = "bulk predict"

    scored: int
    failed: int
    reasons: dict[str, int]
