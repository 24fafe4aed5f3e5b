"""Runs in the environment that has TFDV, which has no pytest: does what the tests ask and prints what came out as JSON.

One process, since the import alone takes ten seconds.
"""

import json
import sys
from pathlib import Path

from sat_xception.errors import SatXceptionError
from sat_xception.validation.findings import TfdvRequest
from sat_xception.validation.tfdv_runner import run_tfdv


def main(request_file: str, damaged: str, imageless: str) -> dict[str, object]:
    request = TfdvRequest.model_validate_json(Path(request_file).read_bytes())
    findings = run_tfdv(request)
    import farmhash

    from sat_xception.validation.schema import allow_for_noise, noise_divergence, noise_share
    from sat_xception.validation.statistics import parts, read_batches
    from sat_xception.validation.tfdv import find
    from sat_xception.validation.tfdv_import import tfdv

    elsewhere = Path(request_file).parent / "elsewhere"
    elsewhere.mkdir()
    few_files = {"train": request.files["test"], "valid": request.files["valid"]}
    attempts = {
        "damaged": lambda: find(request.model_copy(update={"files": {"train": (Path(damaged),)}, "out": elsewhere})),
        "counts": lambda: find(
            request.model_copy(update={"files": few_files, "counts": {"train": 60, "valid": 61}, "out": elsewhere})
        ),
        "imageless": lambda: list(read_batches(imageless)),
        "schema": lambda: find(request.model_copy(update={"schema_file": Path(request_file)})),
    }
    errors = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except SatXceptionError as error:
            errors[name] = [type(error).__name__, str(error)]
    loaded = {
        split: parts(tfdv.load_stats_binary(str(request.out / f"statistics-{split}.pb")))[""] for split in request.files
    }
    schema = tfdv.load_schema_text(str(request.out / "schema.pbtxt"))
    few = type(loaded["valid"])()
    few.CopyFrom(loaded["valid"])
    few.datasets[0].num_examples = 8
    limits = {
        name: {
            feature.name: [
                feature.skew_comparator.jensen_shannon_divergence.threshold,
                feature.skew_comparator.infinity_norm.threshold,
            ]
            for feature in allow_for_noise(schema, loaded["train"], split).feature
        }
        for name, split in (("many", loaded["valid"]), ("few", few))
    }
    try:
        hashing = ["real", "number" if isinstance(farmhash.fingerprint64("tile"), int) else "nothing"]
    except NotImplementedError as error:
        hashing = ["stand-in", "need farmhash" if "need farmhash" in str(error) else str(error)]
    return {
        "findings": findings.model_dump(mode="json"),
        "errors": errors,
        "examples": {split: statistics.datasets[0].num_examples for split, statistics in loaded.items()},
        "features": [feature.path.step[0] for feature in loaded["train"].datasets[0].features],
        "limits": limits,
        "noise": [noise_divergence(400, 50, 21), noise_divergence(5, 5, 21), noise_share(100, 100), noise_share(0, 5)],
        "farmhash": hashing,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
