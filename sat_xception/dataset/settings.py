"""Settings of the verbs that make and compare datasets."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from sat_xception.settings.config import POSITIONAL, StepConfig, second_name, shown
from sat_xception.settings.types import (
    Dataset,
    DatasetRecords,
    FileOrNone,
    FolderOrNone,
    Fraction,
    Fractions,
    LocalFolderOrNone,
    Result,
    check_layers,
    layers_of,
)
from sat_xception.storage import GcsPath, Stored

__all__ = ["AssembleConfig", "DiffConfig", "ExportFoldersConfig", "LabelsConfig"]

# What images of class folders need too.
_ALSO_FOR_FOLDERS = ("imagery_bands", "imagery_scale")


class LabelsConfig(StepConfig):
    """Labelled places on a map, the imagery that shows them, and the negatives that are drawn around them."""

    labels: FileOrNone = Field(
        None, description="Labelled places, instead of --data: GeoJSON, GeoPackage, Shapefile, CSV, Parquet."
    )
    labels_layer: tuple[str, ...] = layers_of("--labels")
    label_column: str = Field("label", description="Column of the labels that holds the class.")
    label: str = Field("", description="Class of every labelled place, instead of a column.")
    split_column: str = Field(
        "", description="Column of the labels that gives the split of a place. Default: 'split', where there is one."
    )
    slice_columns: tuple[str, ...] = Field((), description="Columns of the labels to keep with each tile, as slices.")
    zoom: int = Field(18, ge=0, le=22, description="Zoom of the tiles, with --labels.")
    imagery: str = Field(
        "",
        description="Imagery of --labels: a URL template with {z}, {x}, {y}, a folder of z/x/y.jpg here or at gs://, "
        "MBTiles; PMTiles or a GeoTIFF, here, at https:// or gs://.",
    )
    imagery_token_env: str = Field("", description="Environment variable that fills {token} in the URL template.")
    imagery_attribution: str = Field("", description="Whom the imagery's licence wants named; kept with the dataset.")
    imagery_contact: str = Field("", description="Your address or page, for the tile server's owner.")
    imagery_bands: tuple[int, ...] = Field(
        (),
        description="Bands that are red, green and blue, of a GeoTIFF or of images with other bands. "
        "Default: as the file says.",
    )
    imagery_scale: tuple[float, ...] = Field(
        (),
        description="Values that become black and white, of a GeoTIFF or of images with more than 8 bits. "
        "Default: 0 and 255, and images with more bits are refused.",
    )
    imagery_tms: bool = Field(False, description="The imagery counts rows from the south, as TMS does.")
    workers: int = Field(16, gt=0, le=256, description="Tiles in flight at once.")
    rate_per_s: float = Field(0.0, ge=0, description="Most requests a second. Default: no limit.")
    tile_size: int = Field(0, ge=0, description="Width and height that a tile must have, in pixels. Default: any.")
    tile_cache: LocalFolderOrNone = Field(
        None, description="Folder that keeps fetched tiles. Default: beside --out, until the dataset is complete."
    )
    negative_label: str = Field("", description="Class of the negatives below. Default: 'not-' and the positive label.")
    negatives_ratio: float = Field(0.0, ge=0, description="Random negatives a positive tile, with --labels.")
    negatives_within: FileOrNone = Field(
        None, description="Polygons to draw them in. Default: around the labelled places."
    )
    negatives_within_layer: tuple[str, ...] = layers_of("--negatives-within")
    negatives_distance_m: float = Field(
        10_000.0, gt=0, description="Their largest distance from a labelled place, in metres, without polygons."
    )
    negatives_buffer_m: float = Field(
        500.0,
        ge=0,
        description="Least distance of random negatives and look-alikes from any labelled place, in metres.",
    )
    negatives_lookalikes: FileOrNone = Field(
        None, description="Second layer, of things that look alike: its tiles are negatives."
    )
    negatives_lookalikes_layer: tuple[str, ...] = layers_of("--negatives-lookalikes")
    negatives_review: FileOrNone = Field(
        None, description="Reviewed tiles, with a 'verdict' of yes, no or unsure, which overrules the labels."
    )
    negatives_review_layer: tuple[str, ...] = layers_of("--negatives-review")
    negatives_review_weight: float = Field(
        1.0, gt=0, description="How much a reviewed 'no' counts in training, beside other tiles of its class."
    )

    def resolved(self) -> dict[str, Any]:
        """Return every setting as JSON types; of an address, what may be a key or a password is left out."""
        settings = super().resolved()
        settings["imagery"] = shown(self.imagery)
        return settings

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if bool(self.labels) != bool(self.imagery):
            raise ValueError("--labels and --imagery go together")
        if alone := [] if self.labels else self._given_for_labels():
            raise ValueError(
                f"{', '.join(alone)} {'goes' if len(alone) == 1 else 'go'} with --labels, which isn't given"
            )
        if self.imagery_bands and len(self.imagery_bands) not in (1, 3):
            raise ValueError(f"--imagery-bands takes one band, or red, green and blue; got {self.imagery_bands}")
        if self.imagery_scale and (len(self.imagery_scale) != 2 or self.imagery_scale[0] == self.imagery_scale[1]):
            raise ValueError(f"--imagery-scale takes two values, black and white; got {self.imagery_scale}")
        check_layers(self)
        if self.negatives_buffer_m >= self.negatives_distance_m:
            raise ValueError("--negatives-distance-m must be more than --negatives-buffer-m")
        return self

    def _given_for_labels(self) -> list[str]:
        """Return the flags of labels that have another value than their default."""
        # Not `model_fields_set`: the pipeline gives all settings, most of them with their defaults.
        fields = [item for item in LabelsConfig.model_fields.items() if item[0] not in _ALSO_FOR_FOLDERS]
        return [f"--{name.replace('_', '-')}" for name, field in fields if getattr(self, name) != field.default]


class AssembleConfig(LabelsConfig):
    """Gather labelled tiles into a dataset: Parquet shards, a manifest with a row for each tile, a digest."""

    data: Annotated[str, Stored("folder")] = Field(
        "", description="Class folders, DIR/<class>/* or DIR/{train,valid,test}/<class>/*; or 'sample'."
    )
    train: FolderOrNone = Field(None, description="Class folders of the training split, instead of --data.")
    valid: FolderOrNone = Field(None, description="Class folders of the validation split, with --train.")
    test: FolderOrNone = Field(None, description="Class folders of the test split, with --train.")
    out: Result = Field(description="Folder to write the dataset to.")
    fractions: Fractions = Field(
        (0.7, 0.15, 0.15), description="Shares of train, valid and test. A split that the folders give is kept."
    )
    # About 7 km wide at 45 degrees: wider than most towns, so few straddle two splits.
    block_zoom: int = Field(
        12, ge=0, description="Zoom of the blocks that share a split, where it is known which tiles the images are."
    )
    # Measured on UC Merced and on drawn pictures of one edge: see decision 18.
    near_duplicate_bits: int = Field(
        8,
        ge=0,
        le=9,
        description="Tiles whose perceptual hashes differ in so many of 64 bits or less look the same, if their detail "
        "does, too.",
    )
    keep_near_duplicates: bool = Field(
        False, description="Keep tiles that look the same, within a split; across splits they stop the run."
    )
    max_unplaced: Fraction = Field(
        0.05,
        description="Stop when more than this share of the images don't say where they are, though others do, "
        "which are split by block.",
    )
    seed: int = Field(0, description="Part of the hash that deals tiles to splits.")
    positive_label: str = Field(
        "", description="The class that is looked for. Default: 'school', or X where the other class is 'not-X'."
    )
    # Pillow itself refuses more than twice its MAX_IMAGE_PIXELS.
    max_pixels: int = Field(
        64_000_000, gt=0, le=178_956_970, description="Larger images are refused unread (decompression bombs)."
    )
    max_failed: Fraction = Field(0.05, description="Stop when more than this share of the tiles can't be read.")

    @model_validator(mode="after")
    def _has_one_source(self) -> AssembleConfig:
        if sum(map(bool, (self.data, self.train, self.labels))) != 1:
            raise ValueError("give either --data, or --train with --valid, or --labels with --imagery")
        if self.labels and self.tile_cache is None and isinstance(self.out, GcsPath):
            raise ValueError("--labels with an --out in a bucket need --tile-cache, a folder here for fetched tiles")
        if self.labels and self.block_zoom > self.zoom:
            raise ValueError(f"--block-zoom {self.block_zoom} is above --zoom {self.zoom}")
        if (self.valid or self.test) and not self.train:
            raise ValueError("--valid and --test go with --train")
        return self


class DiffConfig(StepConfig):
    """Say what changed between two versions of a dataset, by class and split."""

    old: DatasetRecords = Field(description="Dataset written by assemble.", json_schema_extra=POSITIONAL)
    new: DatasetRecords = Field(description="Dataset to compare it with.", json_schema_extra=POSITIONAL)
    as_json: bool = Field(False, description="Print JSON instead of a table.", json_schema_extra=second_name("--json"))


class ExportFoldersConfig(StepConfig):
    """Write a dataset back as folders of images, a folder a split and in it a folder a class."""

    dataset: Dataset = Field(description="Dataset written by assemble.", json_schema_extra=POSITIONAL)
    out: Result = Field(description="Folder to write, here or at gs://.", json_schema_extra=POSITIONAL)
