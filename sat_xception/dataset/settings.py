"""Settings of the verbs that make and compare datasets."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from sat_xception.imagery.settings import ImagerySettings
from sat_xception.settings.config import POSITIONAL, StepConfig, second_name
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
from sat_xception.storage import Stored, is_remote

__all__ = ["DEFAULT_POSITIVE_LABEL", "AssembleConfig", "DiffConfig", "ExportFoldersConfig", "LabelsConfig"]

# The positive class, where a setting and the data's class names don't decide: what the original looked for.
DEFAULT_POSITIVE_LABEL = "school"
# What images of class folders need too.
_ALSO_FOR_FOLDERS = ("imagery_bands", "imagery_scale")


class LabelsConfig(ImagerySettings):
    """Labelled sites, the imagery of their tiles, and the negatives drawn around them."""

    labels: FileOrNone = Field(
        None, description="File of labelled sites, instead of --data: GeoJSON, GeoPackage, Shapefile, CSV or Parquet."
    )
    labels_layer: tuple[str, ...] = layers_of("--labels")
    label_column: str = Field("label", description="Column of the labels that holds the class.")
    label: str = Field("", description="Class of every labelled site, instead of a column.")
    split_column: str = Field(
        "", description="Column of the labels that holds the split of a site. Default: 'split', if that column exists."
    )
    slice_columns: tuple[str, ...] = Field((), description="Columns of the labels to keep with each tile, as slices.")
    zoom: int = Field(18, ge=0, le=22, description="Zoom of the tiles, with --labels.")
    tile_cache: LocalFolderOrNone = Field(
        None,
        description="Folder that caches fetched tiles. Default: beside --out, deleted once the dataset is complete.",
    )
    negative_label: str = Field(
        "", description="Class of the negatives. Default: 'not-' followed by the positive class."
    )
    negatives_ratio: float = Field(
        0.0, ge=0, description="Number of random negatives per positive tile (needs --labels)."
    )
    negatives_within: FileOrNone = Field(
        None, description="Polygons in which random negatives are drawn. Default: around the labelled sites."
    )
    negatives_within_layer: tuple[str, ...] = layers_of("--negatives-within")
    negatives_distance_m: float = Field(
        10_000.0,
        gt=0,
        description="Maximum distance of random negatives from a labelled site, in metres, without --negatives-within.",
    )
    negatives_buffer_m: float = Field(
        500.0,
        ge=0,
        description="Minimum distance of random negatives and look-alikes from any labelled site, in metres.",
    )
    negatives_lookalikes: FileOrNone = Field(
        None, description="Second layer, of look-alikes (hard negatives): its tiles are negatives."
    )
    negatives_lookalikes_layer: tuple[str, ...] = layers_of("--negatives-lookalikes")
    negatives_review: FileOrNone = Field(
        None, description="Reviewed tiles, with a 'verdict' of yes, no or unsure, which overrides the labels."
    )
    negatives_review_layer: tuple[str, ...] = layers_of("--negatives-review")
    negatives_review_weight: float = Field(
        1.0, gt=0, description="Training weight of a tile reviewed as 'no', relative to other tiles of its class."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if bool(self.labels) != bool(self.imagery):
            raise ValueError("--labels and --imagery go together")
        if alone := [] if self.labels else self._given_for_labels():
            raise ValueError(
                f"{', '.join(alone)} {'goes' if len(alone) == 1 else 'go'} with --labels, which isn't given"
            )
        check_layers(self)
        if self.negatives_buffer_m >= self.negatives_distance_m:
            raise ValueError("--negatives-distance-m must be more than --negatives-buffer-m")
        return self

    def _given_for_labels(self) -> list[str]:
        """Return the flags that need --labels and differ from their defaults."""
        # Not `model_fields_set`: the pipeline gives all settings, most of them with their defaults.
        fields = [item for item in LabelsConfig.model_fields.items() if item[0] not in _ALSO_FOR_FOLDERS]
        return [f"--{name.replace('_', '-')}" for name, field in fields if getattr(self, name) != field.default]


class AssembleConfig(LabelsConfig):
    """Assemble labelled tiles into a dataset: Parquet shards, a manifest with one row per tile, and a digest."""

    data: Annotated[str, Stored("folder")] = Field(
        "",
        description="Class folders, DIR/<class>/* or DIR/{train,valid,test}/<class>/*; or 'sample' for the synthetic "
        "sample.",
    )
    train: FolderOrNone = Field(None, description="Class folders of the training split, instead of --data.")
    valid: FolderOrNone = Field(None, description="Class folders of the validation split, with --train.")
    test: FolderOrNone = Field(None, description="Class folders of the test split, with --train.")
    out: Result = Field(description="Folder to write the dataset to.")
    fractions: Fractions = Field(
        (0.7, 0.15, 0.15), description="Fractions of train, valid and test. A split given by the folders is kept."
    )
    # About 7 km wide at 45 degrees: wider than most towns, so few straddle two splits.
    block_zoom: int = Field(
        12,
        ge=0,
        description="Zoom of the blocks that are kept within one split, for images whose tile coordinates are known.",
    )
    # Measured on UC Merced and on drawn pictures of one edge: see decision 18.
    near_duplicate_bits: int = Field(
        8,
        ge=0,
        le=9,
        description="Tiles are near-duplicates if their perceptual hashes differ in at most this many of 64 bits and "
        "their detail matches too.",
    )
    keep_near_duplicates: bool = Field(
        False,
        description="Keep near-duplicates within a split; near-duplicates in different splits are still an error.",
    )
    max_unplaced: Fraction = Field(
        0.05,
        description="Stop if more than this fraction of the images have no tile coordinates although others do; those "
        "are split by block.",
    )
    seed: int = Field(0, description="Part of the hash that assigns tiles to splits.")
    positive_label: str = Field(
        "", description=f"The positive class. Default: '{DEFAULT_POSITIVE_LABEL}', or X if the other class is 'not-X'."
    )
    # Pillow itself refuses more than twice its MAX_IMAGE_PIXELS.
    max_pixels: int = Field(
        64_000_000,
        gt=0,
        le=178_956_970,
        description="Images with more pixels are rejected before decoding (decompression bombs).",
    )
    max_failed: Fraction = Field(0.05, description="Stop if more than this fraction of the tiles can't be read.")

    @model_validator(mode="after")
    def _has_one_source(self) -> AssembleConfig:
        if sum(map(bool, (self.data, self.train, self.labels))) != 1:
            raise ValueError("give either --data, or --train with --valid, or --labels with --imagery")
        if self.labels and self.tile_cache is None and is_remote(self.out):
            raise ValueError("--labels with an --out in a bucket need --tile-cache, a folder here for fetched tiles")
        if self.labels and self.block_zoom > self.zoom:
            raise ValueError(f"--block-zoom {self.block_zoom} is above --zoom {self.zoom}")
        if (self.valid or self.test) and not self.train:
            raise ValueError("--valid and --test go with --train")
        return self


class DiffConfig(StepConfig):
    """Report what changed between two versions of a dataset, by class and split."""

    old: DatasetRecords = Field(description="Dataset written by assemble.", json_schema_extra=POSITIONAL)
    new: DatasetRecords = Field(description="Dataset to compare it with.", json_schema_extra=POSITIONAL)
    as_json: bool = Field(False, description="Print JSON instead of a table.", json_schema_extra=second_name("--json"))


class ExportFoldersConfig(StepConfig):
    """Write a dataset as folders of images: one folder per split, with one folder per class inside."""

    dataset: Dataset = Field(description="Dataset written by assemble.", json_schema_extra=POSITIONAL)
    out: Result = Field(description="Folder to write, local or in a bucket.", json_schema_extra=POSITIONAL)
