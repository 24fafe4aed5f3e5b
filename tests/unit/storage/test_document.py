"""Documents: what is written is read back, an older file is read, and what can't be read says why and what to do."""

import json
from typing import ClassVar

import pytest

from sat_xception.errors import DataError
from sat_xception.storage import GcsPath
from sat_xception.storage.document import Document, Part
from tests.storage_proxy import bucket_of, running_emulator


class Figure(Part):
    value: float


class Figures(Document):
    file_name: ClassVar[str] = "figures.json"
    made_by: ClassVar[str] = "evaluate"
    schema_version: ClassVar[int] = 2

    name: str
    figures: tuple[Figure, ...]


def store(folder, content):
    (folder / "figures.json").write_text(json.dumps(content))
    return folder


def test_a_document_is_read_as_it_was_written_and_its_file_has_the_version(tmp_path):
    written = Figures(name="a", figures=(Figure(value=0.1 + 0.2), Figure(value=1)))
    written.write(tmp_path)
    assert Figures.read(tmp_path) == written
    content = json.loads((tmp_path / "figures.json").read_text())
    assert content == {"schema_version": 2, "name": "a", "figures": [{"value": 0.1 + 0.2}, {"value": 1.0}]}


@pytest.mark.parametrize("version", [{}, {"schema_version": 1}, {"schema_version": 2}])
def test_a_file_of_this_version_or_an_earlier_one_is_read_and_unknown_keys_are_ignored(tmp_path, version):
    store(tmp_path, {"name": "a", "figures": [{"value": 1, "unit": "m"}], "note": "x", **version})
    assert Figures.read(tmp_path) == Figures(name="a", figures=(Figure(value=1),))


def test_a_file_of_a_newer_version_is_refused_whatever_it_holds(tmp_path):
    store(tmp_path, {"schema_version": 3, "other": "keys"})
    with pytest.raises(DataError, match=r"figures\.json has the schema_version 3.*reads up to 2.*Update sat-xception"):
        Figures.read(tmp_path)


@pytest.mark.parametrize("version", ["2", 0, -1, True, 1.5, [2]])
def test_a_version_that_is_no_version_is_refused(tmp_path, version):
    store(tmp_path, {"schema_version": version, "name": "a", "figures": []})
    with pytest.raises(DataError, match="expected a whole number from 1; run `sat_xception evaluate` again"):
        Figures.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "a"}, r"earlier version, or is damaged: figures: Field required; run `sat_xception evaluate` again"),
        ({"schema_version": 2, "name": "a"}, r"figures\.json is damaged: figures: Field required"),
        ({"schema_version": 2, "name": 1, "figures": []}, r"damaged: name: .*string"),
        (
            {"schema_version": 2, "name": "a", "figures": [{"value": 1}, {}]},
            r"damaged: figures\.1\.value: Field required",
        ),
        ({"schema_version": 2, "name": "a", "figures": [{}] * 9}, r"figures\.2\.value: Field required; and 6 more;"),
    ],
)
def test_a_file_that_lacks_what_is_needed_is_refused_by_key(tmp_path, content, message):
    store(tmp_path, content)
    with pytest.raises(DataError, match=message):
        Figures.read(tmp_path)


def test_a_missing_file_names_the_step_that_writes_it(tmp_path):
    with pytest.raises(DataError, match=r"figures\.json is missing: is .* a folder that `sat_xception evaluate` wrote"):
        Figures.read(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_cant_hold_isnt_written(tmp_path, value):
    with pytest.raises(DataError, match=r"figures\[0\]\.value is (nan|inf)"):
        Figures(name="a", figures=(Figure(value=value),)).write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_document_doesnt_change():
    with pytest.raises(ValueError, match="frozen"):
        Figure(value=1).value = 2


def test_the_schema_has_the_version_and_every_key():
    schema = Figures.json_schema()
    assert schema["properties"]["schema_version"]["const"] == 2
    assert set(schema["properties"]) == {"schema_version", "name", "figures"}


# The client library leaves the body of a refused download unread, and its connection to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_document_in_a_bucket_is_replaced_and_read_like_a_local_one(monkeypatch):
    with running_emulator("figures") as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        check_a_bucket(GcsPath("gs://figures/run/1"))


def check_a_bucket(folder):
    assert Figures.find(folder) is None
    with pytest.raises(DataError, match=r"gs://figures/run/1/figures\.json is missing"):
        Figures.read(folder)
    for value in (1.0, 2.0):
        written = Figures(name="a", figures=(Figure(value=value),))
        written.replace(folder)
        assert Figures.read(folder) == Figures.find(folder) == written
    bucket_of("figures").blob("run/1/figures.json").upload_from_string(b'{"schema_version": 3}')
    with pytest.raises(DataError, match=r"gs://figures/run/1/figures\.json has the schema_version 3"):
        Figures.find(folder)


def test_an_absent_document_is_none_and_a_replaced_one_makes_its_folder(tmp_path):
    assert Figures.find(tmp_path / "a") is None
    Figures(name="a", figures=()).replace(tmp_path / "a" / "b")
    assert Figures.find(tmp_path / "a" / "b") == Figures(name="a", figures=())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", r"the record can't be read: .*; run `sat_xception evaluate` again"),
        (b"\xff", r"the record can't be read: .*decode.*; run `sat_xception evaluate` again"),
        ("[]", "the record holds a list, expected an object; run `sat_xception evaluate` again"),
    ],
)
def test_text_that_is_no_object_is_refused_with_its_origin(text, message):
    with pytest.raises(DataError, match=message):
        Figures.from_json(text, "the record")
    assert Figures.from_json('{"name": "a", "figures": []}', "the record") == Figures(name="a", figures=())
