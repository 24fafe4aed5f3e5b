"""Seeded faults against the last accepted run, with the real TFDV, and clean runs that pass."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from sat_xception.errors import ConfigError, DataError
from sat_xception.examples.tfrecord_writer import RecordWriter, serialize_example
from sat_xception.settings.config import load_config
from sat_xception.storage import file_digest
from sat_xception.validation.baseline import publish_baseline, read_baseline
from sat_xception.validation.findings import Anomaly
from sat_xception.validation.settings import ValidateConfig
from sat_xception.validation.validate import ValidationResult, validate
from tests.datasets import write_index
from tests.storage_proxy import running_emulator, running_proxy
from tests.tfdv_process import Tfdv

CLASSES = ("not-school", "school")
SPLITS = ("train", "valid", "test")
Row = dict[str, bytes | float | int]


def tiles(count: int, seed: int, school: float = 0.4) -> list[Row]:
    """Draw the features of tiles in three regions; in the north schools are rare."""
    rng = np.random.default_rng(seed)
    drawn: list[Row] = []
    for index in range(count):
        region = ("east", "north", "west")[int(rng.integers(3))]
        label = int(rng.random() < (0.15 if region == "north" else school))
        size = int(rng.integers(200, 400))
        drawn.append(
            {
                "image/encoded": bytes(size),
                "image/format": b"jpeg",
                "image/height": 256,
                "image/width": 256,
                "image/bytes": size,
                "image/mean_luma": float(np.clip(rng.normal(110, 18), 0, 255)),
                "image/std_luma": float(rng.normal(40, 6)),
                "image/class/label": label,
                "image/class/text": CLASSES[label].encode(),
                "tile/id": f"{seed}-{index}".encode(),
                "slice/region": region.encode(),
            }
        )
    return drawn


def write(folder: Path, splits: Mapping[str, list[Row]]) -> Path:
    files = {}
    for split, rows in splits.items():
        (folder / split).mkdir(parents=True)
        shards = []
        if rows:
            writer = RecordWriter(folder / split / "examples-00000-of-00001.tfrecord")
            for row in rows:
                writer.write(serialize_example(row))
            writer.close()
            shards = [{"file": writer.path.name, "count": len(rows), "sha256": file_digest(writer.path)}]
        files[split] = (rows, shards)
    return write_index(folder, files, CLASSES, ["region"])


def drawn(seed: int, count: int = 400, **changes: float) -> dict[str, list[Row]]:
    return {
        "train": tiles(count, seed, **changes),
        "valid": tiles(count // 2, seed + 1, **changes),
        "test": tiles(count // 2, seed + 2, **changes),
    }


def relabel(row: Row, label: int) -> None:
    row["image/class/label"], row["image/class/text"] = label, CLASSES[label].encode()


@pytest.fixture(scope="module")
def accepted(one_tfdv: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baseline that a first run leaves."""
    folder = tmp_path_factory.mktemp("first")
    examples = write(folder / "examples", drawn(10))
    result = validate(ValidateConfig(examples=examples, out=folder / "out", baseline=folder / "baseline"))
    assert result.anomalies == ()
    return folder / "baseline"


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So few examples that nothing but their form can be wrong."""
    return write(tmp_path_factory.mktemp("few") / "examples", {"train": tiles(8, 1), "valid": tiles(8, 2)})


def found_in(folder: Path, splits: Mapping[str, list[Row]], baseline: Path) -> list[Anomaly]:
    """Return what stops a run; nothing of it may change the baseline."""
    before = {path.name: path.read_bytes() for path in baseline.iterdir()}
    with pytest.raises(DataError, match="anomal"):
        validate(ValidateConfig(examples=write(folder / "examples", splits), out=folder / "out", baseline=baseline))
    assert {path.name: path.read_bytes() for path in baseline.iterdir()} == before
    return [Anomaly.model_validate(item) for item in json.loads((folder / "out" / "anomalies.json").read_text())]


def places(anomalies: list[Anomaly]) -> set[tuple[str, str, str]]:
    return {(anomaly.split, anomaly.slice, anomaly.feature) for anomaly in anomalies}


def test_the_first_accepted_run_is_the_baseline(accepted: Path) -> None:
    assert {path.name for path in accepted.iterdir()} == {"baseline.json", "schema.pbtxt", "statistics-train.pb"}
    facts = json.loads((accepted / "baseline.json").read_text())
    assert (facts["dataset_digest"], facts["examples"]) == ("0" * 64, 400)
    assert set(facts) == {"accepted", "dataset_digest", "examples", "source", "tfdv_version"}


def test_new_data_of_the_same_kind_pass_and_the_reviewed_schema_is_kept(accepted: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline"
    baseline.mkdir()
    reviewed = "# Reviewed.\n" + (accepted / "schema.pbtxt").read_text()
    (baseline / "schema.pbtxt").write_text(reviewed)
    (baseline / "statistics-train.pb").write_bytes((accepted / "statistics-train.pb").read_bytes())
    result = validate(
        ValidateConfig(examples=write(tmp_path / "examples", drawn(50)), out=tmp_path / "out", baseline=baseline)
    )
    assert result.anomalies == ()
    assert (baseline / "schema.pbtxt").read_text() == reviewed
    assert (baseline / "statistics-train.pb").read_bytes() == (tmp_path / "out" / "statistics-train.pb").read_bytes()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<td>train/region=north</td><td>baseline</td><td>image/mean_luma</td>" in page
    assert "<th>baseline</th>" in page and page.count("not-school 8") >= 3


def test_a_small_data_set_passes_too(accepted: Path, tmp_path: Path) -> None:
    small = write(tmp_path / "examples", drawn(70, count=24))
    baseline = tmp_path / "baseline"
    publish_baseline(baseline, accepted, {})
    assert validate(ValidateConfig(examples=small, out=tmp_path / "out", baseline=baseline)).anomalies == ()


def test_a_shifted_class_balance_and_brighter_imagery_are_drift(accepted: Path, tmp_path: Path) -> None:
    splits = drawn(20, school=0.9)
    for row in (row for part in splits.values() for row in part):
        row["image/mean_luma"] = min(255.0, row["image/mean_luma"] * 1.2)
    anomalies = found_in(tmp_path, splits, accepted)
    assert {("train", "", "image/class/text"), ("train", "", "image/mean_luma")} <= places(anomalies)
    assert ("train", "region=east", "image/class/text") in places(anomalies)
    assert all(anomaly.split == "train" for anomaly in anomalies), "the splits are alike"
    assert any("train and the baseline" in anomaly.description for anomaly in anomalies)


def test_other_sizes_formats_classes_weights_and_an_empty_split_are_anomalies(accepted: Path, tmp_path: Path) -> None:
    splits = drawn(30)
    for row in splits["train"]:
        row["image/height"] = row["image/width"] = 512
    for row in splits["valid"][:6]:
        row["image/format"] = b"tiff"
    for row in splits["valid"][:4]:
        row["image/class/label"], row["image/class/text"] = 2, b"quarry"
    for row in (row for split in splits.values() for row in split):
        row["tile/weight"] = 0.5
    splits["train"][0]["tile/weight"] = 0.0  # none, which is no anomaly
    splits["valid"][0]["tile/weight"] = -0.5
    anomalies = found_in(tmp_path, splits | {"test": []}, accepted)
    assert places(anomalies) == {
        ("train", "", "image/height"),
        ("train", "", "image/width"),
        ("valid", "", "image/format"),
        ("valid", "", "image/class/text"),
        ("valid", "", "image/class/label"),
        ("valid", "", "tile/weight"),
        ("test", "", "examples"),
    }
    assert [a.kind for a in anomalies if a.feature == "tile/weight"] == ["FLOAT_TYPE_SMALL_FLOAT"]
    counts = {anomaly.feature: (anomaly.count, anomaly.share) for anomaly in anomalies if anomaly.split == "valid"}
    assert counts["image/format"] == (6, 0.03) and counts["image/class/text"] == (4, 0.02)
    assert "fetch tiles of the usual size" in next(a.advice for a in anomalies if a.feature == "image/width")


@pytest.mark.parametrize(
    "swapped",
    [pytest.param(("train",), id="in train"), pytest.param(SPLITS, id="everywhere", marks=pytest.mark.slow)],
)
def test_labels_swapped_for_one_region_are_found_there(accepted: Path, tmp_path: Path, swapped: tuple[str]) -> None:
    splits = drawn(40)
    for row in (row for split in swapped for row in splits[split]):
        if row["slice/region"] == b"north":
            relabel(row, 1 - int(row["image/class/label"]))
    anomalies = [anomaly for anomaly in found_in(tmp_path, splits, accepted) if anomaly.slice]
    expected = {("train", "region=north", "image/class/text")}
    if swapped == ("train",):
        expected |= {(split, "region=north", "image/class/text") for split in ("valid", "test")}
    assert places(anomalies) == expected


def test_what_is_meant_is_accepted_by_place_and_becomes_the_baseline(accepted: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline"
    publish_baseline(baseline, accepted, {})
    examples = write(tmp_path / "examples", drawn(20, school=0.9))
    config = ValidateConfig(
        examples=examples, out=tmp_path / "out", baseline=baseline, accept=("train*:image/class/text:COMPARATOR_*",)
    )
    first: ValidationResult = validate(config)
    assert first.anomalies and all(anomaly.accepted for anomaly in first.anomalies)
    assert validate(config.model_copy(update={"accept": ()})).anomalies == (), "compared with itself"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("statistics-train.pb", b"damaged", "can't be read as statistics of TFDV: .* Remove it from the --baseline"),
        ("statistics-train.pb", b"", "can't be read as statistics of TFDV: ValueError there are no examples in it"),
        ("schema.pbtxt", b"feature {", "isn't a schema in text form"),
    ],
)
def test_a_damaged_baseline_is_named(
    file: str, content: bytes, message: str, accepted: Path, few: Path, tmp_path: Path
) -> None:
    baseline = tmp_path / "baseline"
    publish_baseline(baseline, accepted, {})
    (baseline / file).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{baseline / file} {message}"):
        validate(ValidateConfig(examples=few, out=tmp_path / "out", baseline=baseline))
    assert (baseline / file).read_bytes() == content


def test_limits_that_a_kept_schema_overrides_are_said(
    accepted: Path, few: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    baseline, examples = tmp_path / "baseline", shutil.copytree(few, tmp_path / "examples")
    publish_baseline(baseline, accepted, {})
    # Limits are logged before the examples are read.
    next((examples / "valid").iterdir()).write_bytes(b"")
    for config in (
        ValidateConfig(examples=examples, out=tmp_path / "out", baseline=baseline, max_drift=0.01, max_skew=0.3),
        ValidateConfig(examples=examples, out=tmp_path / "first", max_drift=0.01),
    ):
        with pytest.raises(DataError, match="was cut off or changed"):
            validate(config)
    said = [record.getMessage() for record in caplog.records if "has no effect" in record.getMessage()]
    assert said == [
        f"validate  --max-drift 0.01 has no effect: the limits are those of {baseline}/schema.pbtxt; change them there"
    ]


def test_a_given_schema_allows_for_the_noise_of_small_slices(accepted: Path, tmp_path: Path) -> None:
    splits = drawn(90)
    # Three tiles of one class, and two of the other.
    for split, count in (("train", 3), ("valid", 2), ("test", 2)):
        for row in splits[split][:count]:
            row["slice/region"] = b"south"
            relabel(row, int(split != "train"))
    config = ValidateConfig(
        examples=write(tmp_path / "examples", splits), out=tmp_path / "out", schema_file=accepted / "schema.pbtxt"
    )
    assert validate(config).anomalies == ()
    assert "<td>valid/region=south</td>" in (tmp_path / "out" / "report.html").read_text()


@pytest.fixture(scope="module")
def placed() -> list[Row]:
    """Draw tiles with coordinates."""
    rows = tiles(8, 2)
    for index, row in enumerate(rows):
        row |= {"tile/x": 76_000 + index, "tile/y": 63_000, "tile/z": 17, "tile/lon": -74.1, "tile/lat": 4.6}
    return rows


def without(rows: list[Row], name: str, count: int) -> list[Row]:
    """Return the rows, the first ones without a feature."""
    return [{key: value for key, value in row.items() if key != name or i >= count} for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("lacking", "count"), [("tile/x", 1), ("tile/y", 3), ("tile/z", 8), ("tile/lon", 1), ("tile/lat", 8)]
)
def test_a_place_with_a_part_missing_is_an_error(
    tfdv: Tfdv, placed: list[Row], lacking: str, count: int, tmp_path: Path
) -> None:
    write(tmp_path / "whole", {"valid": placed})
    write(tmp_path / "examples", {"valid": without(placed, lacking, count)})
    file = Path("valid", "examples-00000-of-00001.tfrecord")
    assert tfdv.read(tmp_path / "whole" / file) == 8
    with pytest.raises(
        DataError, match=rf"{tmp_path / 'examples' / file} has examples with .*{lacking}.* Run convert again"
    ):
        tfdv.read(tmp_path / "examples" / file)


def test_a_file_that_validate_cannot_read_is_named(one_tfdv: None, placed: list[Row], tmp_path: Path) -> None:
    examples = write(tmp_path / "examples", {"train": tiles(8, 1), "valid": without(placed, "tile/x", 1)})
    file = examples / "valid" / "examples-00000-of-00001.tfrecord"
    with pytest.raises(DataError, match=rf"{file} has examples with .*tile/x.* Run convert again"):
        validate(ValidateConfig(examples=examples, out=tmp_path / "out"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text(""), "is a file; name a folder"),
        (lambda path: (path.mkdir(), (path / "notes.txt").write_text("")), "is no baseline: it holds 'notes.txt'"),
    ],
)
def test_what_is_no_baseline_is_refused(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    make(tmp_path / "baseline")
    with pytest.raises(ConfigError, match=message):
        read_baseline(tmp_path / "baseline")


def test_a_baseline_inside_the_result_is_refused() -> None:
    with pytest.raises(ConfigError, match="--baseline out/baseline is in --out"):
        load_config(ValidateConfig, None, {"examples": "e", "out": "out", "baseline": "out/baseline"})


def test_a_baseline_in_a_bucket_keeps_its_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = tmp_path / "run"
    run.mkdir()
    (run / "schema.pbtxt").write_text("first")
    (run / "statistics-train.pb").write_text("first")
    with running_emulator("tiles") as emulator, running_proxy(emulator, monkeypatch):
        address = load_config(ValidateConfig, None, {"examples": "e", "out": "o", "baseline": "gs://tiles/b"}).baseline
        empty = read_baseline(address)
        assert (empty.schema_file, empty.statistics) == (None, None)
        publish_baseline(address, run, {"examples": 3})
        (run / "schema.pbtxt").write_text("second")
        (run / "statistics-train.pb").write_text("second")
        publish_baseline(address, run, {"examples": 4})
        found = read_baseline(address)
        assert found.schema_file.read_text() == "first"
        assert found.statistics.read_text() == "second"
        assert json.loads((found.statistics.parent / "baseline.json").read_text())["examples"] == 4


def test_statistics_that_are_gone_from_a_baseline_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "schema.pbtxt").write_text("")
    with caplog.at_level("INFO"):
        assert read_baseline(tmp_path).statistics is None
    assert [record.levelname for record in caplog.records] == ["INFO"]
    (tmp_path / "baseline.json").write_text("{}")
    read_baseline(tmp_path)
    assert caplog.records[-1].levelname == "WARNING"
    assert "statistics-train.pb is missing" in caplog.text and "isn't checked for drift" in caplog.text
