"""JSON from outside is read strictly."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.strictjson import INTEGER_MAX, INTEGER_MIN, JsonError, loads

pytestmark = pytest.mark.once

LIMIT = 1_000_000

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(INTEGER_MIN, INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
)
KEYS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


def refuse(data: bytes | str, **limits: int) -> JsonError:
    with pytest.raises(JsonError) as caught:
        loads(data.encode() if isinstance(data, str) else data, **{"max_bytes": LIMIT, **limits})
    return caught.value


@given(VALUES, st.booleans())
def test_what_a_writer_writes_is_read_back(value: Any, escape: bool) -> None:
    assert loads(json.dumps(value, ensure_ascii=escape).encode(), max_bytes=LIMIT) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_the_standard_parser_reads_them_or_refused(data: bytes) -> None:
    with contextlib.suppress(JsonError):
        assert loads(data, max_bytes=LIMIT) == json.loads(data)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"a": 1, "a": 1}', "a"),
        ('{"a": {"b": [0, {"c": 1, "d": 2, "c": 3}]}}', "a.b[1].c"),
        ('[{"a": 1}, {"a": 1, "\\u0061": 2}]', "[1].a"),
    ],
)
def test_a_key_given_twice_is_named(text: str, path: str) -> None:
    error = refuse(text)
    assert (error.rule, error.path) == ("duplicate_key", path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    error = refuse(f'{{"a": [{number}]}}')
    assert (error.rule, error.path) == ("number", "a[0]")


@pytest.mark.parametrize("number", [str(INTEGER_MAX + 1), str(INTEGER_MIN - 1), "9" * 100_000])
def test_whole_numbers_beyond_64_bits_are_refused(number: str) -> None:
    error = refuse(f'{{"a": {number}}}')
    assert (error.rule, error.path) == ("number", "a")


@pytest.mark.parametrize("number", [INTEGER_MAX, INTEGER_MIN, 0])
def test_whole_numbers_of_64_bits_are_read(number: int) -> None:
    assert loads(str(number).encode(), max_bytes=LIMIT) == number


@pytest.mark.parametrize(
    ("text", "rule", "path"),
    [
        (r'{"a": "x\u0000y"}', "nul", "a"),
        (r'{"a": {"b\u0000": 1}}', "nul", "a"),
        (r'{"a": "\ud800"}', "surrogate", "a"),
        (r'["fine", "\uDC00\uD800"]', "surrogate", "[1]"),
        (r'{"\udfff": 1}', "surrogate", ""),
    ],
)
def test_escapes_that_make_no_character_are_refused(text: str, rule: str, path: str) -> None:
    error = refuse(text)
    assert (error.rule, error.path) == (rule, path)


def test_a_pair_of_surrogate_escapes_is_one_character() -> None:
    assert loads(rb'{"a": "\ud83d\ude00 \\ud800"}', max_bytes=LIMIT) == {"a": "😀 \\ud800"}


@pytest.mark.parametrize("data", [b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"'])
def test_invalid_utf8_is_refused(data: bytes) -> None:
    assert refuse(data).rule == "encoding"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_refused(encoding: str) -> None:
    assert refuse('{"a": 1}'.encode(encoding)).rule == "encoding"


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", "[1,]", "{'a': 1}", '{"a" 1}', "nul", "+1", ".5", '"\t"', '"\x00"', "\x00", "// no", '"\\x"'],
)
def test_what_is_not_json_is_refused_with_its_place(text: str) -> None:
    error = refuse(text)
    assert error.rule == "syntax"
    assert "line" in str(error)


@pytest.mark.parametrize("text", ["{} {}", "1 2", "01", "{}x", "null\x00"])
def test_nothing_may_follow(text: str) -> None:
    assert refuse(text).rule == "syntax"


def test_size_is_limited() -> None:
    assert loads(b'"12345678"', max_bytes=10) == "12345678"
    assert refuse(b'"123456789"', max_bytes=10).rule == "too_large"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_is_limited(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    loads((opening * 32 + "1" + closing * 32).encode(), max_bytes=LIMIT)
    assert refuse(opening * 33 + "1" + closing * 33).rule == "depth"
    assert refuse(opening * 100_000).rule == "depth"


def test_brackets_side_by_side_or_in_strings_are_not_depth() -> None:
    value = [["[[[[{{{{\\", '"[['] for _ in range(100)]
    assert loads(json.dumps(value).encode(), max_bytes=LIMIT) == value


@pytest.mark.parametrize(
    "text",
    ["[" * 40 + '"' + '\\"' * 200_000, '"' * 400_001, "[" * 31 + '"\\' * 200_000, '{"a":' * 31 + "1" * 400_000],
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    began = time.process_time()
    refuse(text)
    assert time.process_time() - began < 1.0
