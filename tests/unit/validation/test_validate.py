"""The validate step on small examples, with the real TFDV: in this process where it is installed, else in a child."""

import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import sat_xception
from sat_xception.errors import ConfigError, DataError, SatXceptionError
from sat_xception.validation.anomalies import accept_anomalies
from sat_xception.validation.findings import Anomaly, TfdvRequest
from sat_xception.validation.settings import ValidateConfig
from sat_xception.validation.tfdv_runner import PYTHON_VARIABLE, find_tfdv_python
from sat_xception.validation.validate import ValidationResult, validate
from tests.datasets import write_index
from tests.tfdv_process import Tfdv

CLASSES = ("not-school", "school")
LEFT_OUT = ("image/encoded", "tile/id", "tile/lon", "tile/lat")
Row = dict[str, object]


def rows(count: int, seed: int) -> list[Row]:
    """Draw the features of some tiles, half of them schools."""
    rng = np.random.default_rng(seed)
    drawn = []
    for index in range(count):
        label = index % 2
        image = rng.bytes(int(rng.integers(200, 400)))
        drawn.append(
            {
                "image/encoded": image,
                "image/format": b"jpeg",
                "image/height": 256 + int(rng.integers(0, 2)),
                "image/width": 256,
                "image/bytes": len(image),
                "image/mean_luma": float(rng.normal(120, 20)),
                "image/std_luma": float(rng.normal(40, 8)),
                "image/class/label": label,
                "image/class/text": CLASSES[label].encode(),
                "tile/id": f"{seed}-{index}".encode(),
                "tile/lon": float(rng.uniform(-75, -74)),
                "tile/lat": 4.5,
                "slice/setting": rng.choice([b"rural", b"urban"]),
            }
        )
    return drawn


def serialized(row: Mapping[str, object]) -> bytes:
    features = {}
    for name, value in row.items():
        if isinstance(value, bytes):
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        elif isinstance(value, float):
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        else:
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_examples(folder: Path, splits: Mapping[str, list[Row]], shards: int = 2) -> Path:
    """Write a folder of examples as convert does."""
    described = {}
    for split, drawn in splits.items():
        (folder / split).mkdir(parents=True)
        files = []
        for shard in range(shards if drawn else 0):
            path = folder / split / f"examples-{shard:05d}-of-{shards:05d}.tfrecord"
            part = drawn[shard::shards]
            with tf.io.TFRecordWriter(str(path)) as writer:
                for row in part:
                    writer.write(serialized(row))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            files.append({"file": path.name, "count": len(part), "sha256": digest})
        described[split] = (drawn, files)
    return write_index(folder, described, CLASSES, ["setting"])


@pytest.fixture(scope="module")
def clean_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawn = {"train": rows(120, 1), "valid": rows(60, 2), "test": rows(60, 3)}
    # A block of the map whose setting train doesn't have is no anomaly.
    drawn["valid"][0]["slice/setting"] = b"coast"
    return write_examples(tmp_path_factory.mktemp("clean") / "examples", drawn)


@contextmanager
def output_kept(folder: Path) -> Iterator[None]:
    """Write what this process and its children print to the files `out` and `err` in a folder."""
    kept = {1: os.dup(1), 2: os.dup(2)}
    try:
        for number, name in ((1, "out"), (2, "err")):
            with (folder / name).open("wb") as file:
                os.dup2(file.fileno(), number)
        yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


@pytest.fixture(scope="module")
def clean(has_tfdv: None, clean_examples: Path) -> ValidationResult:
    """The result of clean examples, by TFDV in this process or in a child that `validate` starts."""
    with output_kept(clean_examples.parent):
        return validate(ValidateConfig(examples=clean_examples, out=clean_examples.parent / "validation"))


def test_clean_examples_pass(clean: ValidationResult) -> None:
    assert clean.anomalies == ()
    assert (clean.examples, clean.features) == (240, 9)
    summary = clean.summary().splitlines()
    assert summary[0].startswith("validate  240 examples, 9 features | no anomalies | ")
    assert summary[1] == f"wrote     {clean.folder / 'report.html'}"


def test_the_step_prints_nothing_but_one_line_of_the_child(clean: ValidationResult, clean_examples: Path) -> None:
    assert (clean_examples.parent / "out").read_text() == ""
    if importlib.util.find_spec("tensorflow_data_validation") is None:
        lines = (clean_examples.parent / "err").read_text().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("validate  statistics of 240 examples in ")


def test_every_artifact_is_written(clean: ValidationResult) -> None:
    expected = {"anomalies.json", "report.html", "schema.pbtxt"}
    for split in ("train", "valid", "test"):
        expected |= {f"statistics-{split}.pb", f"anomalies-{split}.pbtxt"}
    assert {path.name for path in clean.folder.iterdir()} == expected
    assert json.loads((clean.folder / "anomalies.json").read_text()) == []
    page = (clean.folder / "report.html").read_text()
    assert "synthetic sample" in page
    assert "Passed; no anomalies." in page
    assert page.count("<svg") > 20


def test_the_inferred_schema_is_curated(clean: ValidationResult) -> None:
    text = (clean.folder / "schema.pbtxt").read_text()
    features = {part.split('"')[1]: part for part in text.split("feature {")[1:]}
    assert set(features) == {name for name in rows(1, 0)[0] if name not in LEFT_OUT} | {"tile/weight"}
    assert "\nstring_domain {" not in text
    assert 'value: "jpeg"' in features["image/format"] and 'value: "webp"' in features["image/format"]
    assert all(f'value: "{name}"' in features["image/class/text"] for name in CLASSES)
    assert "max: 255.0" in features["image/mean_luma"] and "disallow_nan: true" in features["image/mean_luma"]
    assert "min: 0" in features["image/class/label"] and "max: 1\n" in features["image/class/label"]
    assert "min: 170" in features["image/height"] and "max: 386" in features["image/height"]
    assert all("min_fraction: 1.0" in features[name] for name in features if name.startswith("image/"))
    assert (
        "jensen_shannon_divergence" in features["image/mean_luma"] and "threshold: 0.3" in features["image/mean_luma"]
    )
    assert "infinity_norm" in features["image/class/text"]
    # One value has nearly all examples: the divergence of the histograms would be noise.
    assert "skew_comparator" not in features["image/width"] and "skew_comparator" not in features["image/height"]
    assert "min_count: 0" in features["tile/weight"] and "min: 0.0" in features["tile/weight"]
    assert features["image/class/text"].count("threshold: 0.1") == 2, "drift"
    assert "domain" not in features["slice/setting"] and "skew_comparator" in features["slice/setting"]


@pytest.fixture(scope="module")
def faulty(tfdv: Tfdv, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Examples with a fault of every kind in valid and test: the result, and the error."""
    folder = tmp_path_factory.mktemp("faulty")
    drawn = {"train": rows(120, 1), "valid": rows(60, 2), "test": rows(60, 3)}
    for index, row in enumerate(drawn["valid"]):
        row["image/mean_luma"] = min(255.0, row["image/mean_luma"] + 60)
        label = 0 if index % 10 == 0 else 1
        row["image/class/label"], row["image/class/text"] = label, CLASSES[label].encode()
        if index < 3:
            row["image/class/label"], row["image/class/text"] = 2, b"quarry"
        if index < 5:
            row["image/height"] = row["image/width"] = 512
    for index, row in enumerate(drawn["test"]):
        row["slice/setting"] = b"urban"
        if index < 6:
            del row["image/std_luma"]
        if index < 2:
            row["image/cloud"] = 0.5
    write_examples(folder / "examples", drawn)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(DataError) as caught:
        patch.setattr("sat_xception.validation.validate.run_tfdv", tfdv.run)
        validate(ValidateConfig(examples=folder / "examples", out=folder / "validation"))
    return folder / "validation", str(caught.value)


@pytest.mark.parametrize(
    ("split", "feature", "kind", "said"),
    [
        ("valid", "image/class/text", "ENUM_TYPE_UNEXPECTED_STRING_VALUES", "quarry"),
        ("valid", "image/class/label", "INT_TYPE_BIG_INT", "2"),
        ("valid", "image/mean_luma", "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", "between valid and train"),
        ("valid", "image/class/text", "COMPARATOR_L_INFTY_HIGH", "school"),
        ("valid", "image/height", "INT_TYPE_BIG_INT", "512"),
        ("valid", "image/width", "INT_TYPE_BIG_INT", "512"),
        ("test", "image/std_luma", "FEATURE_TYPE_LOW_FRACTION_PRESENT", "0.9"),
        ("test", "slice/setting", "COMPARATOR_L_INFTY_HIGH", "urban"),
        ("test", "image/cloud", "SCHEMA_NEW_COLUMN", "not in schema"),
    ],
)
def test_faults_are_anomalies(faulty: tuple[Path, str], split: str, feature: str, kind: str, said: str) -> None:
    anomalies = json.loads((faulty[0] / "anomalies.json").read_text())
    found = [a for a in anomalies if (a["split"], a["slice"], a["feature"], a["kind"]) == (split, "", feature, kind)]
    assert len(found) == 1
    assert said in found[0]["description"]
    assert not found[0]["accepted"]


def test_nothing_else_is_an_anomaly_and_the_artifacts_are_written_all_the_same(faulty: tuple[Path, str]) -> None:
    anomalies = json.loads((faulty[0] / "anomalies.json").read_text())
    assert sum(not anomaly["slice"] for anomaly in anomalies) == 9
    assert {a["feature"] for a in anomalies if a["slice"]} == {"image/class/text", "image/mean_luma"}
    assert all(a["slice"] == "setting=urban" or a["slice"] == "setting=rural" for a in anomalies if a["slice"])
    assert "12 anomalies, 12 not accepted" in (faulty[0] / "report.html").read_text()
    assert "quarry" in (faulty[0] / "anomalies-valid.pbtxt").read_text()


def test_the_error_lists_the_anomalies_and_says_how_to_accept_them(faulty: tuple[Path, str]) -> None:
    folder, message = faulty
    lines = message.splitlines()
    assert lines[0] == "12 anomalies in the examples:"
    assert sum(line.startswith("  valid: ") for line in lines) == 6
    assert (
        "  test: image/cloud: 2 (3.3%) examples: New column (column in data but not in schema) [SCHEMA_NEW_COLUMN]"
        in lines
    )
    assert sum(line.startswith("      -> ") for line in lines) == 10 and "  and 2 more" in lines
    assert str(folder / "report.html") in lines[-1]
    assert lines[-1].endswith("--accept 'valid:image/class/label:INT_TYPE_BIG_INT'")


def test_a_given_schema_is_used_as_it_is_and_what_is_accepted_does_not_stop_the_run(
    clean: ValidationResult, tfdv: Tfdv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sat_xception.validation.validate.run_tfdv", tfdv.run)
    schema = (clean.folder / "schema.pbtxt").read_text()
    before = schema.index('name: "image/mean_luma"')
    # The reviewer allows no difference in brightness (with so few examples chance alone makes one), and calls the label
    # categorical, which changes the statistics.
    strict = schema[:before] + schema[before:].replace("threshold: 0.3", "threshold: 0.0001", 1)
    label = strict.index('name: "image/class/label"')
    strict = strict[:label] + strict[label:].replace("int_domain {\n", "int_domain {\n    is_categorical: true\n", 1)
    strict = "# Reviewed by a person.\n" + strict
    (tmp_path / "reviewed.pbtxt").write_text(strict)
    examples = write_examples(tmp_path / "examples", {"train": rows(120, 1), "valid": rows(60, 2), "test": []})
    accept = ("test:examples:EMPTY_SPLIT", "*:image/mean_luma:COMPARATOR_*")
    result = validate(
        ValidateConfig(
            examples=examples,
            out=tmp_path / "out",
            schema_file=tmp_path / "reviewed.pbtxt",
            accept=accept,
            max_skew=0.3,
        )
    )
    assert [(a.split, a.feature, a.kind, a.accepted) for a in result.anomalies if not a.slice] == [
        ("valid", "image/mean_luma", "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", True),
        ("test", "examples", "EMPTY_SPLIT", True),
    ]
    assert "2 anomalies, all accepted" in result.summary(), "few examples in slices get their allowance"
    assert (tmp_path / "out" / "schema.pbtxt").read_text() == strict
    assert "</svg> 1 50.0 %" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_data_validation") is not None, reason="TFDV runs in this process here"
)
def test_the_child_is_told_what_examples_json_and_the_settings_say(
    clean_examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An interpreter that keeps its request ("python -m module request answer") and ends without an answer.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncp "$3" {tmp_path}/request.json\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setenv(PYTHON_VARIABLE, str(python))
    schema = tmp_path / "reviewed.pbtxt"
    schema.write_text("")
    out = tmp_path / "results" / "validation"
    with pytest.raises(SatXceptionError, match="TFDV stopped with exit code 1"):
        validate(ValidateConfig(examples=clean_examples, out=out, schema_file=schema, max_skew=0.2))
    request = TfdvRequest.model_validate_json((tmp_path / "request.json").read_bytes())
    assert request.counts == {"train": 120, "valid": 60, "test": 60}
    assert request.classes == CLASSES
    assert (request.schema_file, request.max_skew) == (schema, 0.2)
    assert request.out.is_absolute() and request.out.parent == out.parent
    names = [f"examples-{shard:05d}-of-00002.tfrecord" for shard in range(2)]
    assert request.files == {
        split: tuple(clean_examples / split / name for name in names) for split in ("train", "valid", "test")
    }
    assert list(out.parent.iterdir()) == []


def test_a_truncated_file_is_named(clean_examples: Path, tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", {"train": rows(8, 1), "valid": rows(8, 2)})
    path = examples / "valid" / "examples-00001-of-00002.tfrecord"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"{path} was cut off or changed"):
        validate(ValidateConfig(examples=examples, out=tmp_path / "out"))


def test_a_missing_schema_file_is_an_error_of_configuration(clean_examples: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.pbtxt is no file"):
        validate(ValidateConfig(examples=clean_examples, out=tmp_path / "out", schema_file=tmp_path / "nowhere.pbtxt"))


@pytest.mark.parametrize("pattern", ["valid", "valid:image/bytes", "valid::KIND", ":image/bytes:KIND"])
def test_an_accept_pattern_needs_three_parts(pattern: str, clean_examples: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must have the form <split>:<feature>:<kind>"):
        validate(ValidateConfig(examples=clean_examples, out=tmp_path / "out", accept=(pattern,)))


@pytest.mark.parametrize(
    ("pattern", "accepted"),
    [
        (("valid", "image/bytes", "INT_TYPE_BIG_INT"), True),
        (("*", "image/*", "*"), True),
        (("test", "image/bytes", "INT_TYPE_BIG_INT"), False),
        (("valid", "image/byte", "INT_TYPE_BIG_INT"), False),
        (("valid", "image/bytes", "int_type_big_int"), False),
    ],
)
def test_a_pattern_accepts_what_matches_in_all_three_parts(pattern: tuple[str, str, str], accepted: bool) -> None:
    anomaly = Anomaly(split="valid", feature="image/bytes", kind="INT_TYPE_BIG_INT", description="9.", severity="ERROR")
    assert [item.accepted for item in accept_anomalies([anomaly], [("no", "no", "no"), pattern])] == [accepted]


def request_for(examples: Path, out: Path) -> TfdvRequest:
    """Return what `validate` asks of TFDV about examples in three splits."""
    index = json.loads((examples / "examples.json").read_text())["splits"]
    files = {
        split: tuple(examples / split / shard["file"] for shard in index[split]["shards"])
        for split in ("train", "valid", "test")
    }
    return TfdvRequest(
        files=files,
        counts={split: index[split]["count"] for split in files},
        classes=CLASSES,
        schema_file=None,
        max_skew=0.3,
        max_drift=0.1,
        out=out,
    )


@pytest.mark.parametrize("split", [pytest.param("train", marks=pytest.mark.slow), "test"])
def test_another_count_than_that_of_the_index_is_an_error(
    split: str, tfdv: Tfdv, clean_examples: Path, tmp_path: Path
) -> None:
    request = request_for(clean_examples, tmp_path)
    counts = {**request.counts, split: request.counts[split] - 1}
    with pytest.raises(
        DataError, match=f"the {split} split holds {request.counts[split]} examples, but {counts[split]} "
    ):
        tfdv.run(request.model_copy(update={"counts": counts}))


@pytest.fixture(scope="module")
def in_tfdv_environment(
    clean: ValidationResult, clean_examples: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict]:
    """What `tfdv_environment_checks.py` found in a process that has TFDV: its folder of artifacts, its answers."""
    folder = tmp_path_factory.mktemp("in-process")
    (folder / "out").mkdir()
    request = request_for(clean_examples, folder / "out")
    (folder / "request.json").write_text(request.model_dump_json())
    with tf.io.TFRecordWriter(str(folder / "damaged.tfrecord")) as writer:
        writer.write(b"no example")
    row = rows(1, 0)[0]
    del row["image/encoded"]
    with tf.io.TFRecordWriter(str(folder / "imageless.tfrecord")) as writer:
        writer.write(serialized(row))
    here = importlib.util.find_spec("tensorflow_data_validation") is not None
    python = Path(sys.executable) if here else find_tfdv_python()
    (folder / "path").mkdir()
    (folder / "path" / "sat_xception").symlink_to(Path(sat_xception.__file__).parent)
    arguments = [folder / "request.json", folder / "damaged.tfrecord", folder / "imageless.tfrecord"]
    script = Path(__file__).with_name("tfdv_environment_checks.py")
    environment = os.environ | {"PYTHONPATH": str(folder / "path")}
    run = subprocess.run([python, script, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder / "out", json.loads(run.stdout)


@pytest.mark.slow
def test_in_process_and_in_a_child_give_the_same_artifacts(
    clean: ValidationResult, in_tfdv_environment: tuple[Path, dict]
) -> None:
    folder, _ = in_tfdv_environment
    written = sorted(path.name for path in folder.iterdir())
    assert len(written) == 7
    for name in written:
        assert (folder / name).read_bytes() == (clean.folder / name).read_bytes(), name


@pytest.mark.slow
def test_the_statistics_load_with_tfdv_and_leave_out_image_and_name(in_tfdv_environment: tuple[Path, dict]) -> None:
    _, answers = in_tfdv_environment
    assert answers["examples"] == {"train": 120, "valid": 60, "test": 60}
    assert sorted(answers["features"]) == sorted(name for name in rows(1, 0)[0] if name not in LEFT_OUT)
    luma = next(f for f in answers["findings"]["statistics"]["train"]["features"] if f["name"] == "image/mean_luma")
    values = np.array([row["image/mean_luma"] for row in rows(120, 1)])
    assert luma["mean"] == pytest.approx(values.mean(), rel=1e-6)
    assert (luma["minimum"], luma["maximum"]) == pytest.approx((values.min(), values.max()), rel=1e-6)
    assert sum(count for _, _, count in luma["histogram"]) == pytest.approx(120)


@pytest.mark.slow
def test_another_count_than_examples_json_says_is_an_error(in_tfdv_environment: tuple[Path, dict]) -> None:
    kind, message = in_tfdv_environment[1]["errors"]["counts"]
    assert kind == "DataError"
    assert message.startswith("the valid split holds 60 examples, but 61 according to examples.json.")


@pytest.mark.slow
def test_files_that_hold_no_tiles_and_schemas_that_are_none_are_named(in_tfdv_environment: tuple[Path, dict]) -> None:
    _, answers = in_tfdv_environment
    kind, message = answers["errors"]["damaged"]
    assert kind == "DataError"
    assert "damaged.tfrecord can't be read as TFRecord of tf.train.Example" in message
    kind, message = answers["errors"]["imageless"]
    assert kind == "DataError"
    assert "imageless.tfrecord has examples without image/encoded" in message
    kind, message = answers["errors"]["schema"]
    assert kind == "ConfigError"
    assert "request.json isn't a schema in text form" in message


@pytest.mark.slow
def test_limits_are_wider_where_examples_are_few(in_tfdv_environment: tuple[Path, dict]) -> None:
    _, answers = in_tfdv_environment
    many, few = answers["limits"]["many"], answers["limits"]["few"]
    used = {
        item["measure"]: item["limit"]
        for item in answers["findings"]["distances"]
        if item["feature"] == "image/class/text" and not item["slice"]
    }
    assert used == pytest.approx({"JENSEN_SHANNON_DIVERGENCE": 0.3, "L_INFTY": 2 * math.sqrt(1 / 120 + 1 / 60)})
    assert many["image/mean_luma"][0] == pytest.approx(0.3)
    assert many["image/class/text"] == pytest.approx([0.3, 2 * math.sqrt(1 / 120 + 1 / 60)])
    # The 99th percentile of chi-squared with 20 degrees of freedom is 37.57 (any table); with 1, 6.63.
    scale = (1 / 120 + 1 / 8) / (8 * math.log(2))
    assert few["image/mean_luma"][0] == pytest.approx(37.57 * scale, rel=0.01)
    assert few["image/class/text"] == pytest.approx([0.3, 2 * math.sqrt(1 / 120 + 1 / 8)])
    assert few["tile/weight"] == [0, 0]
    divergence, most, share, nothing = answers["noise"]
    assert divergence == pytest.approx(37.57 / (8 * math.log(2)) * (1 / 400 + 1 / 50), rel=0.01)
    assert (most, nothing) == (1.0, 0.0)
    assert share == pytest.approx(2 * math.sqrt(0.02))


@pytest.mark.slow
def test_farmhash_is_real_or_says_what_it_is_for(in_tfdv_environment: tuple[Path, dict]) -> None:
    assert in_tfdv_environment[1]["farmhash"] in (["real", "number"], ["stand-in", "need farmhash"])
