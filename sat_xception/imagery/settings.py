"""Settings of imagery: what users set, and what a source of tiles gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from sat_xception.settings.config import StepConfig, shown
from sat_xception.storage.document import Part

__all__ = ["ImageryConfig", "ImagerySettings", "PixelSettings", "StoredImagery", "ends_of"]

# Pixel settings of the first version.
_FIRST = ("tms", "tile_size", "bands", "scale")


def ends_of(scale: Sequence[float]) -> tuple[float, float] | None:
    """Return the pixel values that become black and white; None of an empty scale."""
    return (scale[0], scale[1]) if scale else None


class PixelSettings(Part):
    """Settings of imagery that change its pixels. With their defaults, a plan and a run stay the same as without them.

    Attributes:
        tms: Rows are counted from the south, as TMS does. Ignored for MBTiles files, whose rows always are.
        tile_size: Width and height of a tile, in pixels; 0 is any, and 256 for tiles that are cut out of a GeoTIFF.
        bands: Bands of a GeoTIFF that are red, green and blue, or the one that is grey, from 1 on; empty if the file
            defines it.
        scale: Values of a GeoTIFF that become black and white; empty where its pixels have 8 bits.
    """

    tms: bool = False
    tile_size: int = 0
    bands: tuple[int, ...] = ()
    scale: tuple[float, ...] = ()

    @property
    def ends(self) -> tuple[float, float] | None:
        """Pixel values that become black and white; None without a scale."""
        return ends_of(self.scale)

    def later_at_default(self) -> set[str]:
        """Return the pixel settings of later versions than the first that are at their defaults.

        Names of runs and folders are made without them, so that they stay the same when a setting is added.
        """
        fields = PixelSettings.model_fields
        return {name for name in fields if name not in _FIRST and getattr(self, name) == fields[name].default}

    def later(self) -> dict[str, Any]:
        """Return the pixel settings of later versions than the first that aren't at their defaults, as JSON types."""
        names = PixelSettings.model_fields.keys() - {*_FIRST, *self.later_at_default()}
        return self.model_dump(mode="json", include=names)


class StoredImagery(PixelSettings):
    """Settings of a source that plans store.

    Attributes:
        token_env: Environment variable that fills `{token}` in a URL template.
        attribution: Attribution required by the imagery's licence; replaces the source's own.
        contact: Address or page for a tile server's owner, sent in the User-Agent.
    """

    token_env: str = ""
    attribution: str = ""
    contact: str = ""


class ImageryConfig(StoredImagery):
    """Settings of a source.

    Attributes:
        connections: Concurrent connections to a tile server; at least the number of workers, or they wait for each
            other.
        timeout_s: Deadline of a request in seconds, also while data arrives.
        max_bytes: Maximum size of an encoded tile; a larger response is not read to its end.
    """

    connections: int = 16
    timeout_s: float = 30.0
    max_bytes: int = 10_000_000


class ImagerySettings(StepConfig):
    """Where the images of tiles come from, how they are read, and how fast they are requested."""

    imagery: str = Field(
        "",
        description="Imagery of the tiles: a URL template with {z}, {x}, {y}; a folder of z/x/y.jpg files, local or "
        "in a bucket; local MBTiles; PMTiles or a GeoTIFF, local, at https:// or in a bucket.",
    )
    imagery_token_env: str = Field(
        "", description="Environment variable whose value replaces {token} in the URL template."
    )
    imagery_attribution: str = Field(
        "", description="Attribution required by the imagery's licence; stored with the results."
    )
    imagery_contact: str = Field(
        "", description="Your e-mail address or web page, sent to the tile server so that its operator can reach you."
    )
    imagery_bands: tuple[int, ...] = Field(
        (),
        description="Red, green and blue band of a GeoTIFF, or of images with other bands. Default: as the file "
        "defines them.",
    )
    imagery_scale: tuple[float, ...] = Field(
        (),
        description="Pixel values mapped to black and white, for a GeoTIFF or for images with more than 8 bits. "
        "Default: 0 and 255; images with more bits are rejected.",
    )
    imagery_tms: bool = Field(False, description="The imagery numbers tile rows from the south, as TMS does.")
    workers: int = Field(16, gt=0, le=256, description="Number of tiles fetched concurrently.")
    rate_per_s: float = Field(0.0, ge=0, description="Maximum requests per second. Default: unlimited.")
    tile_size: int = Field(0, ge=0, description="Required width and height of a tile, in pixels. Default: any.")

    @property
    def scale(self) -> tuple[float, float] | None:
        """Pixel values that become black and white; None if not given."""
        return ends_of(self.imagery_scale)

    @classmethod
    def setting_for(cls, name: str) -> str:
        """Return the name of the setting that a field of `StoredImagery` has its value of."""
        return f"imagery_{name}" if f"imagery_{name}" in cls.model_fields else name

    def stored(self) -> StoredImagery:
        """Return the settings that plans store."""
        return StoredImagery(**{name: getattr(self, self.setting_for(name)) for name in StoredImagery.model_fields})

    def source_config(self) -> ImageryConfig:
        """Return the settings of the source."""
        return ImageryConfig(**dict(self.stored()), connections=self.workers)

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON types, with keys and passwords in addresses masked."""
        return super().resolved() | {"imagery": shown(self.imagery)}

    @model_validator(mode="after")
    def _bands_and_scale_are_whole(self) -> Self:
        if self.imagery_bands and len(self.imagery_bands) not in (1, 3):
            raise ValueError(f"--imagery-bands takes one band, or red, green and blue; got {self.imagery_bands}")
        if self.imagery_scale and (len(self.imagery_scale) != 2 or self.imagery_scale[0] == self.imagery_scale[1]):
            raise ValueError(f"--imagery-scale takes two values, black and white; got {self.imagery_scale}")
        return self
