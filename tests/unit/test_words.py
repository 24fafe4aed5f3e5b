"""The check of the wording: what it reads, and what it leaves alone."""

from pathlib import Path

import pytest

from tests.words import findings

_MODULE = '''
def look(path):
    """{docstring}"""
    # {comment}
    _log.warning("{log}", path)
    print("whom it is told")
    if not path:
        raise ValueError(f"{error} {{path}}")
'''
_PLAIN = {"docstring": "Return a path.", "comment": "A reason.", "log": "read     %s", "error": "no file at"}


def _found(folder: Path, name: str, content: str) -> list[str]:
    path = folder / name
    path.write_text(content)
    return list(findings(path))


def test_plain_sentences_are_left_alone(tmp_path):
    assert _found(tmp_path, "plain.py", _MODULE.format(**_PLAIN)) == []


@pytest.mark.parametrize("part", _PLAIN)
def test_a_banned_phrase_is_found_wherever_people_read_it(tmp_path, part):
    content = _MODULE.format(**{**_PLAIN, part: "nobody reads"})
    (found,) = _found(tmp_path, "module.py", content)
    assert "'nobody'; better: no one" in found


def test_a_phrase_is_found_across_lines_of_a_comment(tmp_path):
    (found,) = _found(tmp_path, "module.py", "x = 1\n# Settings that have a\n# say in the result.\n")
    assert found.startswith(f"{tmp_path}/module.py:2: 'have a say'")


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("The tile and its place.", True),
        ("Rows without a place are left out.", True),
        ("Return the place of a class in the list.", True),
        ("Name another place.", True),
        ("Tiles of schools and other places.", False),
        ("A picture without a place on the map.", False),
        ("Each line appears twice: our lines a second time.", False),
        ("Maximum lines a second.", True),
        ("What it says is logged.", True),
        ("Whoever is faster wins.", True),
    ],
)
def test_narrow_patterns_spare_the_good_uses(tmp_path, text, is_found):
    assert bool(_found(tmp_path, "page.md", text)) is is_found


def test_code_blocks_in_pages_are_not_read(tmp_path):
    assert _found(tmp_path, "page.md", "Text.\n\n```\nnobody\n```\n\nMore `nobody` text.\n") == []
