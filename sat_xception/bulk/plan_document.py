"""`plan.json`: the tiles to score, their imagery, the model they are planned for, and the estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, Field, model_validator

from sat_xception.imagery.settings import PixelSettings, StoredImagery
from sat_xception.log import duration
from sat_xception.storage.document import Document, Part
from sat_xception.storage.files import facts_digest

__all__ = [
    "BulkPlan",
    "DatasetImages",
    "Estimate",
    "GridImagery",
    "ModelId",
    "PlannedTiles",
    "identity_digest",
    "with_present_names",
]

# Settings of imagery that don't change its pixels.
_NOT_IN_THE_PIXELS = StoredImagery.model_fields.keys() - PixelSettings.model_fields.keys()
# Keys of an identity as the first version had them. Digests are of these, so that runs and folders keep their names.
_FIRST_NAMES = {"tile_ids_digest": "digest of tile ids", "dataset_digest": "dataset digest"}


class ModelId(Part):
    """A packaged version: the name it is served as, its number, and the SHA-256 of its `digests.json`."""

    name: str
    version: int
    digest: str

    def __str__(self) -> str:
        """Return name and version, for people."""
        return f"{self.name} version {self.version}"


class DatasetImages(Part):
    """Images that come with a dataset.

    Attributes:
        url: Imagery that the dataset was assembled from, without keys.
        attribution: Attribution required by its licence.
        tile_size: Required width and height, in pixels; 0 is any.
        max_pixels: Maximum number of pixels of an image.
    """

    url: str
    attribution: str
    tile_size: int
    max_pixels: int

    def identity(self) -> dict[str, Any]:
        """Return the settings that affect the pixels, as JSON types."""
        return self.model_dump(mode="json", exclude=_NOT_IN_THE_PIXELS)


class GridImagery(StoredImagery, DatasetImages):
    """Imagery that tiles are fetched from, with all settings of it that plans store.

    Attributes:
        token_env: Environment variable with the token.
        contact: E-mail address or web page, sent to the tile server.
        tms: Whether rows are numbered from the south.
        bands: Red, green and blue band of a GeoTIFF.
        scale: Pixel values that are mapped to black and white; empty without scaling.
    """

    # Required, so that the images of a dataset aren't taken for imagery.
    tms: bool

    def identity(self) -> dict[str, Any]:
        """Return the settings that affect the pixels, as JSON types."""
        return self.model_dump(mode="json", exclude={*_NOT_IN_THE_PIXELS, *self.later_at_default()})


class Estimate(Part):
    """Time, bytes and cost of a plan.

    Attributes:
        tiles: Tiles of the plan.
        machines: Number of machines.
        tiles_per_s: Rate of all machines; None where no rate is known.
        rate_source: Source of the rate.
        seconds: Time; None where no rate is known.
        bytes: Size of the images.
        bytes_source: Source of the size.
        mbit_per_s: Load on the network; None where no rate is known.
        usd: Cost of the machines, without imagery that is paid per tile; None where no rate is known.
        price_source: Source of the price.
    """

    tiles: int
    machines: int
    tiles_per_s: float | None
    rate_source: str
    seconds: float | None
    bytes: float
    bytes_source: str
    mbit_per_s: float | None
    usd: float | None
    price_source: str

    def lines(self) -> list[str]:
        """Return the estimate as lines of a summary."""
        size = f"{self.bytes / 1e9:,.2f} GB of images ({self.bytes_source})"
        if self.tiles_per_s is None or self.seconds is None:
            return [f"time      not known: {self.rate_source}", f"bytes     {size}"]
        return [
            f"time      {duration(self.seconds)} at {self.tiles_per_s:,.1f} tiles/s ({self.rate_source})",
            f"bytes     {size}, {self.mbit_per_s:,.1f} Mbit/s",
            f"money     ${self.usd:,.2f} ({self.price_source})",
        ]


class PlannedTiles(Part):
    """The tiles of a plan, and how their images are read.

    Attributes:
        area: Name of the area, list of tiles or dataset.
        zoom: Zoom of the tiles; None of a dataset, whose tiles need not be in the grid.
        imagery: How the images are read.
        dataset: Folder of the dataset; None of tiles of the grid.
        dataset_digest: Its digest.
        planned: Number of tiles.
        shards: Number of shards.
        shard_tiles: Tiles per shard; the last one may have fewer.
        tile_ids_digest: SHA-256 of the tile ids in the order of the plan, each followed by a newline.
        left_out: Tiles that were skipped because they are scored already.
        model: Model that the plan was made for; None where it wasn't made for one.
    """

    area: str
    zoom: int | None
    imagery: GridImagery | DatasetImages
    dataset: str | None = None
    dataset_digest: str | None = Field(None, validation_alias=AliasChoices("dataset_digest", "dataset digest"))
    planned: int = Field(ge=0)
    shards: int = Field(ge=0)
    shard_tiles: int = Field(gt=0)
    tile_ids_digest: str = Field(validation_alias=AliasChoices("tile_ids_digest", "digest of tile ids"))
    left_out: int = Field(validation_alias=AliasChoices("left_out", "left out"))
    model: ModelId | None

    @model_validator(mode="after")
    def _has_one_source(self) -> PlannedTiles:
        if self.dataset is None and (self.zoom is None or not isinstance(self.imagery, GridImagery)):
            raise ValueError("expected a dataset, or a zoom and the settings of the imagery")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """The parts of the plan that affect the scores: tiles, shards, and how images are read."""
        names = ["planned", "shards", "shard_tiles", "zoom", "tile_ids_digest"]
        if self.dataset_digest is not None:
            names.append("dataset_digest")
        return {name: getattr(self, name) for name in names} | {"imagery": self.imagery.identity()}


class BulkPlan(PlannedTiles, Document):
    """Content of `plan.json`.

    Attributes:
        estimate: Time, bytes and cost.
        config: Settings of bulk plan.
    """

    file_name: ClassVar[str] = "plan.json"
    made_by: ClassVar[str] = "bulk plan"

    estimate: Estimate
    config: dict[str, Any]


def identity_digest(identity: Mapping[str, Any], *more: object) -> str:
    """Return the SHA-256 of an identity, and of further JSON values."""
    facts = {_FIRST_NAMES.get(name, name): value for name, value in identity.items()}
    return facts_digest([facts, *more] if more else facts)


def with_present_names(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity that may be of the first version, with the keys of this one."""
    present = {first: name for name, first in _FIRST_NAMES.items()}
    return {present.get(name, name): value for name, value in identity.items()}
