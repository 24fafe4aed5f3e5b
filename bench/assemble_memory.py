"""Peak memory and throughput of assemble: `python bench/assemble_memory.py 1000 10000 100000`.

Of class folders, and of labels with a folder of tiles. Every tile is another image of 64 x 64 pixels, about 2 kB; each
size runs in a process of its own.
"""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

_ZOOM, _X, _Y, _ROWS = 18, 148_000, 93_000, 500


def main() -> None:
    """Run each size that is named, or be the run of one."""
    if sys.argv[1] == "--run":
        _run(sys.argv[2], Path(sys.argv[3]))
        return
    print(f"{'source':<14} {'tiles':>9} {'tiles/s':>9} {'peak MB':>9}")
    for count in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory(prefix="bench-assemble-") as name:
            _write_tiles(Path(name), count)
            for source in ("class folders", "labels"):
                command = [sys.executable, __file__, "--run", source, name]
                seconds, peak = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
                print(f"{source:<14} {count:>9,} {count / float(seconds):>9,.0f} {float(peak):>9,.0f}", flush=True)


def _write_tiles(folder: Path, count: int) -> None:
    rows = ["x,y,z,label"]
    rng = np.random.default_rng(0)
    for index in range(count):
        x, y, label = _X + index // _ROWS, _Y + index % _ROWS, "school" if index % 2 else "not-school"
        rows.append(f"{x},{y},{_ZOOM},{label}")
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((64, 64)).save(buffer, "JPEG")
        tile = folder / "imagery" / str(_ZOOM) / str(x) / f"{y}.jpg"
        tile.parent.mkdir(parents=True, exist_ok=True)
        tile.write_bytes(buffer.getvalue())
        same = folder / "classes" / label / f"{index:07d}.jpg"
        same.parent.mkdir(parents=True, exist_ok=True)
        same.hardlink_to(tile)
    (folder / "labels.csv").write_text("\n".join(rows))


def _run(source: str, folder: Path) -> None:
    from sat_xception.dataset.assemble import assemble
    from sat_xception.dataset.settings import AssembleConfig

    started = time.perf_counter()
    if source == "labels":
        settings = {"zoom": _ZOOM, "block_zoom": 15, "imagery": str(folder / "imagery")}
        assemble(AssembleConfig(labels=folder / "labels.csv", out=folder / "out", **settings))
    else:
        assemble(AssembleConfig(data=str(folder / "classes"), out=folder / "out"))
    print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
