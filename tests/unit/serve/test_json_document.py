from __future__ import annotations

import json
import math
import random

import pytest

from sat_xception.serve import json_document
from sat_xception.serve.json_document import parse_body
from sat_xception.serve.protocol import Code, RequestError

# Far beyond what a parser that calls itself can follow; and as many as are read at most in a few seconds.
DEEP, DEEPEST = 50_000, 500_000
NEST = b"[" * DEEP + b"]" * DEEP


def refused(body: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        parse_body(body)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [1], "instances": [2]}',
        b'{"inputs": {"x": [1], "x": [2]}}',
        b'{"instances": [{"x": 1}, {"x": 2, "x": 3}]}',
        b'{"instances": [{"b64": "AA==", "b64": "AQ=="}]}',
        b'{"signature_name": "a", "signature_name": "b", "instances": [1]}',
        rb'{"instances": [1], "inst\u0061nces": [2]}',
        b'{"instances": [NaN], "instances": [2]}',
        b'{"note": "a:b", "instances": [1], "instances": [2]}',
        b'{"instances": [1], "instances": [2], "ignored": ' + NEST + b"}",
    ],
)
def test_a_key_that_comes_twice_is_refused_and_named(body):
    assert "comes twice in one object" in refused(body)


@pytest.mark.parametrize("note", [b'"a:b"', b'{"::": [":"]}', b'"\\":"', b'[{"a": 1}, {"a": 2}]'])
def test_colons_in_strings_and_keys_of_other_objects_are_no_second_key(note):
    assert parse_body(b'{"note": %s, "instances": [1]}' % note)["instances"] == [1]


@pytest.mark.parametrize("depth", [60, 500, 1100, DEEP, pytest.param(DEEPEST, marks=pytest.mark.slow)])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a": ', b"}"), (b'[{"a":[', b"]}]")])
def test_a_key_that_is_not_read_may_be_nested_to_any_depth(depth, brackets):
    opening, closing = brackets
    nest = opening * depth + b"1" + closing * depth
    assert parse_body(b'{"instances": [1], "nested": ' + nest + b', "signature_name": "x"}')["instances"] == [1]


def test_a_signature_name_that_is_a_deep_list_is_refused_for_what_it_is():
    assert "'signature_name' key must be a string value" in refused(b'{"signature_name":' + NEST + b"}")
    assert "Is not object" in refused(NEST)


@pytest.mark.parametrize(
    "tail",
    [b"", b"]", b"]}", b"x", b'{"a" 1}', b'{"a": 1, }', b"{1: 1}", b"1 2", b'"a', b"1,", b"-", b"01", b"tru", b"]" * 9],
)
def test_what_is_broken_far_down_is_refused(tail):
    assert "JSON Parse error" in refused(b'{"instances": [1], "nested": ' + b"[" * 5000 + tail)
    assert "JSON Parse error" in refused(b'{"instances": [1], "nested": ' + b"[" * 5000 + tail + b"}" * 5001)


@pytest.mark.parametrize("most", [50_000, pytest.param(2_000_000, marks=pytest.mark.slow)])
def test_a_body_of_brackets_alone_is_given_up_early(monkeypatch, most):
    if most < json_document._MAX_STEPS:
        monkeypatch.setattr(json_document, "_MAX_STEPS", most)
    assert most == json_document._MAX_STEPS
    assert "send less of it" in refused(b'{"instances":' + b"[" * (most + most // 20))


def made(source: random.Random, depth: int) -> object:
    kind = source.randrange(9 if depth else 7)
    if kind < 7:
        text = "".join(source.choices('aé"\\:,[]{}\n\t𝄞', k=source.randint(0, 6)))
        return source.choice(
            [None, True, False, source.randint(-(2**64), 2**64), source.uniform(-1e9, 1e9), 1e-300, text]
        )
    items = [made(source, depth - 1) for _ in range(source.randint(0, 4))]
    return items if kind == 7 else {f"{number}:{item!r:.5}": item for number, item in enumerate(items)}


@pytest.mark.parametrize("seed", range(200))
def test_the_parser_without_recursion_reads_what_the_one_of_python_does(seed):
    source = random.Random(seed)
    document = {"x": made(source, 5), "nested": []}
    text = json.dumps(document, ensure_ascii=source.random() < 0.5, indent=source.choice([None, 1]))
    deep = text[: text.rindex("[]")] + "[" * 3000 + "]" * 3000 + " }"
    assert parse_body(deep.encode())["x"] == document["x"]


@pytest.mark.parametrize("nested", [b"[]", b"[" * 3000 + b"]" * 3000])
def test_every_spelling_of_nan_and_infinity_is_read(nested):
    body = b'{"x": [NaN, -NaN, Inf, -Inf, Infinity, -Infinity], "nested": %s}' % nested
    first, second, *rest = parse_body(body)["x"]
    assert math.isnan(first) and math.isnan(second)
    assert rest == [math.inf, -math.inf, math.inf, -math.inf]
    assert "JSON Parse error" in refused(b'{"x": Infinit, "nested": %s}' % nested)


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1" * 400 + b".5"])
@pytest.mark.parametrize("nested", [b"[]", b"[" * 3000 + b"]" * 3000])
def test_a_number_beyond_float64_is_refused_instead_of_infinite(number, nested):
    assert "too large" in refused(b'{"instances": [%s], "nested": %s}' % (number, nested))


def test_a_byte_order_mark_is_passed_over():
    assert parse_body(b'\xef\xbb\xbf{"instances": [1]}') == {"instances": [1]}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "document is empty"),
        (b" \n", "document is empty"),
        (b"instances = [1, 2]", "JSON Parse error"),
        (b'{"instances": [1]}X', "JSON Parse error"),
        (b'{"instances": "\xff"}', "JSON Parse error"),
        (b"[1, 2]", "Is not object"),
        (b'{"signature_name": 100}', "must be a string value"),
        (b'{"signature_name": ["hello"]}', "must be a string value"),
    ],
)
def test_a_body_that_is_no_request_is_refused_with_the_words_of_tensorflow_serving(body, reason):
    assert reason in refused(body)
