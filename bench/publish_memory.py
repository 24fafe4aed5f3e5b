"""Peak memory and throughput of bulk publish: `python bench/publish_memory.py 10000 100000 1000000`.

Square areas of tiles with 1,000 candidates each, however large; with `--known` and `--areas`. Each size runs in a
process of its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.scores import describe_scores, score_table

_ZOOM, _X, _Y, _SHARD_ROWS, _CANDIDATES = 18, 148_000, 93_000, 100_000, 1_000
_CLASSES = ("not-school", "school")


def main() -> None:
    """Run each size that is named, or be the run of one."""
    if sys.argv[1] == "--run":
        _run(Path(sys.argv[2]))
        return
    print(f"{'tiles':>10} {'tiles/s':>9} {'peak MB':>9}")
    for count in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory(prefix="bench-publish-") as name:
            _write_scores(Path(name), count)
            command = [sys.executable, __file__, "--run", name]
            seconds, peak = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
            print(f"{count:>10,} {count / float(seconds):>9,.0f} {float(peak):>9,.0f}", flush=True)


def _write_scores(folder: Path, count: int) -> None:
    side = int(np.ceil(np.sqrt(count)))
    rng = np.random.default_rng(0)
    candidates = rng.choice(count, min(_CANDIDATES, count), replace=False)
    shards = -(-count // _SHARD_ROWS)
    (folder / "scores").mkdir()
    for shard in range(shards):
        index = np.arange(shard * _SHARD_ROWS, min(count, (shard + 1) * _SHARD_ROWS))
        score = rng.uniform(0, 0.4, len(index)).astype(np.float32)
        score[np.isin(index, candidates)] = 0.9
        x, y = (_X + index // side).astype(np.int32), (_Y + index % side).astype(np.int32)
        table = score_table(x, y, np.full(len(index), _ZOOM, dtype=np.int32), score, _CLASSES)
        path = folder / "scores" / f"scores-{shard:05d}-of-{shards:05d}.parquet"
        pq.write_table(table, path, compression="zstd", row_group_size=20_000)
    (folder / "scores" / "scores.json").write_text(json.dumps(describe_scores(_CLASSES, count, 0, _ZOOM)))
    places = [_feature("Point", [23.25 + step / 500, 46.1]) for step in range(500)]
    corners = [[20.0, 40.0], [24.0, 40.0], [24.0, 50.0], [20.0, 50.0], [20.0, 40.0]]
    for name, features in (("known", places), ("areas", [_feature("Polygon", [corners])])):
        (folder / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def _feature(kind: str, coordinates: object) -> dict[str, object]:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "properties": {"name": "an area"}, "geometry": geometry}


def _run(folder: Path) -> None:
    from sat_xception.publish.publish import publish
    from sat_xception.publish.settings import PublishConfig

    started = time.perf_counter()
    publish(
        PublishConfig(
            scores=folder / "scores",
            out=folder / "out",
            known=folder / "known.geojson",
            areas=folder / "areas.geojson",
        )
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(time.perf_counter() - started, peak)


if __name__ == "__main__":
    main()
