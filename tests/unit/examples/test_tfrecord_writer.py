"""TFRecord files that are written without TensorFlow are those that TensorFlow writes."""

import subprocess
import sys

import pytest
import tensorflow as tf

from sat_xception.examples.tfrecord_writer import RecordWriter, serialize_example
from sat_xception.storage import file_digest

FEATURES = {
    "b": b"\xff\x00" * 5000,
    "empty": b"",
    "f": -1.5,
    "zero": 0,
    "huge": 2**62,
    "less": -3,
    "a/é": b"x",
    "a/éa": 1,
    "a": 2,
}
RECORDS = (b"", b"one", bytes(range(256)) * 1000)


def test_an_example_has_the_bytes_that_tensorflow_gives_it():
    example = tf.train.Example()
    for name, value in FEATURES.items():
        kind = {bytes: "bytes_list", float: "float_list", int: "int64_list"}[type(value)]
        getattr(example.features.feature[name], kind).value.append(value)
    assert serialize_example(FEATURES) == example.SerializeToString(deterministic=True)
    backwards = dict(reversed(FEATURES.items()))
    assert serialize_example(backwards) == serialize_example(FEATURES)


@pytest.mark.parametrize("number", range(len(RECORDS) + 1))
def test_a_file_has_the_bytes_that_tensorflow_writes(number, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as theirs:
        for record in RECORDS[:number]:
            theirs.write(record)
    ours = RecordWriter(tmp_path / "ours")
    for record in RECORDS[:number]:
        ours.write(record)
    ours.close()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert (ours.count, ours.record_bytes) == (number, sum(map(len, RECORDS[:number])))
    assert ours.sha256() == file_digest(tmp_path / "ours")


def test_convert_does_not_import_tensorflow():
    code = "import sys, sat_xception.examples.convert; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
