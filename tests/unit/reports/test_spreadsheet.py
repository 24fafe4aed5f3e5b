"""No table that is written holds a cell that a spreadsheet runs."""

import csv
import io

import pyarrow as pa
import pytest

from sat_xception.reports.spreadsheet import as_text, csv_writer, write_csv

FORMULAS = [
    '=HYPERLINK("http://x")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "=",
    "-",
    "'quoted",
    "+57 1 234",
    "-1\n",
]
TEXTS = ["school", "", "a=b", " =1", "-12", "+5", "-1.5", "1e-7", "-1E+05", "O'Brien", "Bogotá"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_gets_an_apostrophe(text):
    assert as_text(text) == f"'{text}"


@pytest.mark.parametrize("text", TEXTS)
def test_other_texts_and_numbers_stay_as_they_are(text):
    assert as_text(text) == text


def test_tables_and_rows_are_escaped_alike(tmp_path):
    texts = FORMULAS + TEXTS
    head = ["=name", "number"]
    table = pa.table({head[0]: pa.array([*texts, None]), head[1]: [-1.5] * (len(texts) + 1)})
    write_csv(table, tmp_path / "table.csv")
    rows = io.StringIO()
    write = csv_writer(rows)
    write(head)
    for text in [*texts, None]:
        write([text, -1.5])
    with (tmp_path / "table.csv").open(newline="") as file:
        found = list(csv.reader(file))
    assert found == list(csv.reader(io.StringIO(rows.getvalue(), newline="")))
    assert found == [["'=name", "number"], *([as_text(text), "-1.5"] for text in texts), ["", "-1.5"]]


def test_long_strings_and_no_rows_are_written(tmp_path):
    for kind in (pa.string(), pa.large_string(), pa.null()):
        write_csv(pa.table({"a": pa.array([], kind), "b": pa.array([], pa.int64())}), tmp_path / "none.csv")
    write_csv(pa.table({"a": pa.array(["=1"], pa.large_string())}), tmp_path / "some.csv")
    assert (tmp_path / "some.csv").read_text() == '"a"\n"\'=1"\n'
