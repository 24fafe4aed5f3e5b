"""`predictions.parquet`: one row per tile, with its block, its slices and the model's prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sat_xception.errors import DataError
from sat_xception.serve.probabilities import find_flaws

__all__ = ["PREDICTIONS_FILE", "Outcomes", "read_outcomes", "write_predictions"]

PREDICTIONS_FILE = "predictions.parquet"


@dataclass(frozen=True)
class Outcomes:
    """Which tiles of a split a model classified rightly, in stored order.

    Attributes:
        ids: Id of each tile.
        blocks: Name of each tile's block.
        right: Whether each tile is classified correctly, `bool [n]`.
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
    """Write `tile_id`, `label`, `block`, `slice/<name>`, `reason`, `predicted` and `probability_<class>` of each tile.

    A tile whose probabilities aren't all numbers from 0 to 1 has a `reason` instead of probabilities and prediction.
    """
    reasons = find_flaws(probabilities)
    failed = np.array([bool(reason) for reason in reasons], dtype=bool)
    best = [classes[place] for place in probabilities.argmax(axis=1)]
    columns = {
        "tile_id": ids,
        "label": [classes[label] for label in labels],
        "block": blocks,
        **{f"slice/{name}": values for name, values in slices.items()},
        "reason": pa.array([reason or None for reason in reasons], pa.string()),
        "predicted": pa.array(best, pa.string(), mask=failed),
        **{f"probability_{name}": pa.array(probabilities[:, index], mask=failed) for index, name in enumerate(classes)},
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_outcomes(folder: Path) -> Outcomes:
    """Return which tiles were classified correctly, from a folder that evaluate wrote.

    Raises:
        DataError: The predictions are missing or damaged.
    """
    path = folder / PREDICTIONS_FILE
    try:
        table = pq.read_table(path, columns=["tile_id", "block", "label", "predicted"])
        # A tile without a prediction counts as classified wrongly.
        right = pc.fill_null(pc.equal(table["label"], table["predicted"]), False).to_numpy()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {error}. Run `sat_xception evaluate` again") from None
    return Outcomes(table["tile_id"].to_pylist(), table["block"].to_pylist(), right.astype(bool))
