"""The YAML text of `settings` is read as people mean it, and what isn't YAML is refused with its line."""

import pytest

from sat_xception.kubeflow.settings_text import read_mapping


def test_words_that_yaml_once_took_for_truth_values_and_dates_are_text():
    assert read_mapping("{xla: off, a: yes, b: 2026-01-02, c: true, d-e: 1, f: null}", "s") == {
        "xla": "off",
        "a": "yes",
        "b": "2026-01-02",
        "c": True,
        "d_e": 1,
        "f": None,
    }


@pytest.mark.parametrize("text", ["", " \n", "# only a comment", "---"])
def test_nothing_is_an_empty_mapping(text):
    assert read_mapping(text, "settings") == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gate: {a: 1\ntrain:\n b", "settings, line 2: not valid YAML: "),
        ("a: 1\nb: [", "settings, line 2: not valid YAML: "),
        ("gate: 1\ngate: 2", "settings, line 2: not valid YAML: the key 'gate' is given twice"),
        ("gate: {a: 1, a: 1}", "settings, line 1: not valid YAML: the key 'a' is given twice"),
        ("gate: {a-b: 1, a_b: 1}", "settings, line 1: not valid YAML: the key 'a_b' is given twice"),
        ("[1, 2]", "settings: expected a YAML mapping of sections, such as {gate: {min_accuracy: 0.9}}; got a list"),
        (
            "word",
            "settings: expected a YAML mapping of sections, such as {gate: {min_accuracy: 0.9}}; got a str: 'word'",
        ),
        ("12", "got a int: 12"),
        ("a: 1\n---\nb: 2", "settings, line 2: not valid YAML: "),
        ("!!python/object:os.system {}", "settings, line 1: not valid YAML: could not determine a constructor"),
        ("a: *b", "settings, line 1: not valid YAML: found undefined alias"),
        ("\x00", "settings: not valid YAML: "),
        ("{[a]: 1}", "settings, line 1: not valid YAML: found unhashable key"),
        ("a: " + "[" * 5000, "settings: not valid YAML: "),
        ("a: 2026-13-99T99:99:99\nb: '\\q': 1", "settings, line 2: not valid YAML: "),
    ],
)
def test_what_is_no_mapping_is_refused(text, told):
    with pytest.raises(ValueError, match=r"^settings") as refused:
        read_mapping(text, "settings")
    assert told in str(refused.value)
