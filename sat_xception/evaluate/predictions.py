"""`predictions.parquet`: a row a tile, with its block, its slices and what a model said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sat_xception.errors import DataError

__all__ = ["PREDICTIONS_FILE", "Outcomes", "read_outcomes", "write_predictions"]

PREDICTIONS_FILE = "predictions.parquet"


@dataclass(frozen=True)
class Outcomes:
    """Which tiles of a split a model classified rightly, in stored order.

    Attributes:
        ids: Id of each tile.
        blocks: Name of its block.
        right: Whether its most probable class is its own, `bool [n]`.
    """

    ids: list[str]
    blocks: list[str]
    right: npt.NDArray[np.bool_]


def write_predictions(
    path: Path,
    ids: Sequence[str],
    blocks: Sequence[str],
    slices: Mapping[str, Sequence[str]],
    labels: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    classes: Sequence[str],
) -> None:
    """Write `tile_id`, `label`, `block`, `slice/<name>`, `predicted` and `probability_<class>` of each tile."""
    columns: dict[str, Any] = {"tile_id": ids, "label": [classes[label] for label in labels], "block": blocks}
    columns |= {f"slice/{name}": values for name, values in slices.items()}
    columns["predicted"] = [classes[place] for place in probabilities.argmax(axis=1)]
    columns |= {f"probability_{name}": probabilities[:, index] for index, name in enumerate(classes)}
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_outcomes(folder: Path) -> Outcomes:
    """Return which tiles were classified rightly, of a folder that evaluate wrote.

    Raises:
        DataError: The predictions are missing or damaged.
    """
    path = folder / PREDICTIONS_FILE
    try:
        table = pq.read_table(path, columns=["tile_id", "block", "label", "predicted"])
        right = pc.equal(table["label"], table["predicted"]).to_numpy()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {error}. Run `sat_xception evaluate` again") from None
    return Outcomes(table["tile_id"].to_pylist(), table["block"].to_pylist(), right.astype(bool))
