"""The endpoint against the same model called in process, and under load: `python bench/endpoint.py TILES WEIGHTS`.

TILES are images, WEIGHTS is a MobileNetV2 `.h5` file, put under a new head (what it answers doesn't matter here) and
exported as package does it. First, batches of 32 over REST and gRPC from one client in turn with the same SavedModel
called in process, each in a process of its own, in rounds; the ratio is that of the medians. Then many clients that
ask for one tile at a time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
_NAME, _PIXELS, _BATCH, _TILES = "bench", 224, 32, 256


def main() -> None:
    """Export the model, serve it, measure; or be the run of one contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of batches of 32")
    parser.add_argument("--round-seconds", type=float, default=8)
    parser.add_argument("--seconds", type=float, default=60, help="of the load")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--run", nargs=2, metavar=("CONTENDER", "ADDRESS"))
    arguments = parser.parse_args()
    if arguments.run:
        contender, address = arguments.run
        print(json.dumps(_CONTENDERS[contender](arguments, address)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-endpoint-") as name:
        root = Path(name)
        _run(arguments, "export", str(root / _NAME / "1"))
        with _server(root) as addresses:
            _compare(arguments, root, addresses)
            _load(arguments, addresses)


def _compare(arguments: argparse.Namespace, root: Path, addresses: dict[str, str]) -> None:
    rates: dict[str, list[float]] = {"in process": [], **{interface: [] for interface in addresses}}
    for _ in range(arguments.rounds):
        rates["in process"].append(_run(arguments, "in process", str(root / _NAME / "1")))
        for interface, address in addresses.items():
            rates[interface].append(_run(arguments, "batches", address))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"\n{f'batches of {_BATCH}, MobileNetV2, {_PIXELS} px':<40}{'tiles/s':>9}{'ratio':>8}   rounds")
    for name, values in rates.items():
        told = " ".join(f"{value:.0f}" for value in values)
        print(f"{name:<40}{medians[name]:>9.1f}{medians[name] / medians['in process']:>8.2f}   {told}", flush=True)


def _load(arguments: argparse.Namespace, addresses: dict[str, str]) -> None:
    title = f"{arguments.clients} clients, {arguments.seconds:.0f} s, one tile a request"
    print(f"\n{title:<40}{'tiles/s':>9}{'p50':>9}{'p95':>9}{'p99':>9}{'requests':>10}{'failed':>8}")
    for interface, address in addresses.items():
        told = _run(arguments, "load", address)
        times = "".join(f"{told[name] * 1e3:>6.0f} ms" for name in ("p50", "p95", "p99"))
        print(f"{interface:<40}{told['rate']:>9.1f}{times}{told['requests']:>10,}{told['failed']:>8}", flush=True)


def _run(arguments: argparse.Namespace, contender: str, address: str) -> Any:  # noqa: ANN401
    command = [sys.executable, __file__, str(arguments.tiles), str(arguments.weights), "--run", contender, address]
    for flag in ("round_seconds", "seconds", "clients"):
        command += [f"--{flag.replace('_', '-')}", str(getattr(arguments, flag))]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(told.splitlines()[-1])


@contextmanager
def _server(root: Path) -> Iterator[dict[str, str]]:
    """Run `sat_xception serve` with its defaults; yield its addresses."""
    command = [sys.executable, "-m", "sat_xception", "serve", "--model-root", str(root), "--name", _NAME]
    with subprocess.Popen(
        [*command, "--rest-port", "0", "--grpc-port", "0"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        said = ""
        assert process.stderr
        while "try " not in said:
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the server ended: {said}")
            said += line
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        rest, grpc = re.search(r"REST +(http://[^/]+)", said), re.search(r"gRPC +(\S+)", said)
        assert rest and grpc
        try:
            yield {"REST": rest[1], "gRPC": f"grpc://{grpc[1]}"}
        finally:
            process.terminate()


def _images(arguments: argparse.Namespace) -> list[bytes]:
    files = sorted(path for path in arguments.tiles.rglob("*") if path.is_file())[:_TILES]
    return [path.read_bytes() for path in files]


def _export(arguments: argparse.Namespace, folder: str) -> None:
    from sat_xception.model.head import head_layers
    from sat_xception.model.network import add_head, build_backbone
    from sat_xception.model.settings import TrainConfig
    from sat_xception.model.weights import find_weights, identify_weights
    from sat_xception.package.export import export_model, write_warmup

    backbone, alpha = identify_weights(arguments.weights)
    features = build_backbone(backbone, _PIXELS, alpha, find_weights(str(arguments.weights), backbone, alpha))
    model = add_head(features, head_layers(TrainConfig(examples=Path("-"), out=Path("-"), backbone=backbone), 2))
    export_model(model, ["not-school", "school"], Path(folder))
    write_warmup(Path(folder), _NAME, _images(arguments)[:8])


def _in_process(arguments: argparse.Namespace, folder: str) -> float:
    import numpy as np

    from sat_xception.serve.models import SavedModelSession

    images = _images(arguments)
    with SavedModelSession(Path(folder)) as model:
        return _rate(
            arguments, images, lambda batch: model.predict("serving_default", {"image_bytes": np.array(batch, object)})
        )


def _batches(arguments: argparse.Namespace, address: str) -> float:
    from sat_xception.serve.client import EndpointClient

    with EndpointClient(address, _NAME) as client:
        return _rate(arguments, _images(arguments), client.predict)


def _rate(arguments: argparse.Namespace, images: list[bytes], predict: Callable[[list[bytes]], Any]) -> float:
    batches = itertools.cycle(images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
    predict(next(batches))
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < arguments.round_seconds:
        batch = next(batches)
        predict(batch)
        done += len(batch)
    return done / (time.perf_counter() - started)


def _clients(arguments: argparse.Namespace, address: str) -> dict[str, float]:
    from sat_xception.serve.client import EndpointClient
    from sat_xception.serve.protocol import RequestError

    images, times, failures = _images(arguments), [], []
    end = time.perf_counter() + arguments.seconds

    def ask(place: int) -> None:
        with EndpointClient(address, _NAME) as client:
            for number in itertools.count(place):
                started = time.perf_counter()
                if started > end:
                    return
                try:
                    # Not through the client's repetitions: whatever isn't answered at once has failed.
                    client._transport.predict("serving_default", [images[number % len(images)]], 60)
                    times.append(time.perf_counter() - started)
                except RequestError as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(arguments.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(times, n=100)
    shares = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}
    return {**shares, "rate": len(times) / arguments.seconds, "requests": len(times), "failed": len(failures)}


_CONTENDERS: dict[str, Callable[[argparse.Namespace, str], Any]] = {
    "export": _export,
    "in process": _in_process,
    "batches": _batches,
    "load": _clients,
}


if __name__ == "__main__":
    main()
