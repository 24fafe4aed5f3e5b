"""Markdown that no text of the data can break."""

import pytest

from sat_xception.reports.markdown import plain, table


def test_a_table_has_a_line_a_row_and_numbers_to_the_right():
    lines = table(("split", "tiles"), [("train", 1234), ("valid", 5)], numbers_from=1)
    assert lines == ["| split | tiles |", "|---|---:|", "| train | 1,234 |", "| valid | 5 |"]


@pytest.mark.parametrize("text", ["a|b", "<script>x</script>", "[x](http://example.org)", "`c` *d* \\", "a\n\n# b"])
def test_a_text_can_neither_end_its_cell_nor_become_markup(text):
    (line,) = table(("", ""), [(text, "end")], numbers_from=2)[2:]
    assert line == f"| {plain(text)} | end |"
    assert "\n" not in line
    assert "<" not in line
    assert "](" not in line.replace("\\]", "")
