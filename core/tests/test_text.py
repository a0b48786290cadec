"""What text, addresses and data fields from outside may be."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import Invalid
from core.text import clean_address, clean_field_name, clean_fields, clean_text


@pytest.mark.parametrize("value", ["", " ", "x", "é" * 255, "👍🏽", "a\nb\tc", "\u202eabc"])
def test_text_within_its_limit_is_kept_as_it_is(value: str) -> None:
    assert clean_text("name", value) == value


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (5, "string"),
        (None, "string"),
        (b"x", "string"),
        ("a\x00b", "NUL"),
        ("a\ud83d", "surrogates"),
        ("x" * 256, "at most 255 characters; it has 256"),
    ],
)
def test_text_that_breaks_a_rule_is_told_which(value: Any, rule: str) -> None:
    with pytest.raises(Invalid) as refusal:
        clean_text("name", value)
    assert list(refusal.value.errors) == ["name"]
    assert rule in refusal.value.errors["name"][0]


@pytest.mark.parametrize("value", ["", " ", "\n\t"])
def test_required_text_is_more_than_spaces(value: str) -> None:
    with pytest.raises(Invalid):
        clean_text("name", value, minimum=1)


def test_length_counts_characters_not_bytes() -> None:
    assert clean_text("body", "👍" * 10_000, maximum=10_000)


@pytest.mark.parametrize(
    ("value", "digits"),
    [
        ("1234567", "1234567"),
        ("+123456789012345", "123456789012345"),
        ("+44 (7717) 472-695", "447717472695"),
        ("44.7717/472 695", "447717472695"),
        ("\u00a0447717472695\u00a0", "447717472695"),
    ],
)
def test_an_address_is_kept_as_digits(value: str, digits: str) -> None:
    assert clean_address("address", value) == digits


@pytest.mark.parametrize(
    "value",
    [
        "",
        "+",
        "123456",
        "1234567890123456",
        "++1234567",
        "1234567+",
        "12345a7",
        "mary@acme.example",
        "٤٤٧٧١٧٤٧٢٦٩٥",
        "1234567\x00",
        447717472695,
        None,
    ],
)
def test_what_is_no_address_is_refused(value: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        clean_address("address", value)
    assert list(refusal.value.errors) == ["address"]


def test_data_fields_within_their_limits_are_kept() -> None:
    fields = {f"field {number}": "v" * 1_000 for number in range(100)}
    assert clean_fields("fields", fields) == fields


@pytest.mark.parametrize(
    ("fields", "wire_name"),
    [
        ([], "fields"),
        ({str(number): "" for number in range(101)}, "fields"),
        ({"": "x"}, "fields"),
        ({"n" * 101: "x"}, "fields"),
        ({"a>b": "x"}, "fields"),
        ({"a\tb": "x"}, "fields"),
        ({"plan": 5}, "fields.plan"),
        ({"plan": None}, "fields.plan"),
        ({"plan": "v" * 1_001}, "fields.plan"),
        ({"plan": "\x00"}, "fields.plan"),
    ],
)
def test_data_fields_past_a_limit_name_the_culprit(fields: Any, wire_name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        clean_fields("fields", fields)
    assert list(refusal.value.errors) == [wire_name]


@pytest.mark.parametrize("name", ["Balance due", "naïve", "日本", "n" * 100])
def test_a_field_name_may_be_any_plain_text(name: str) -> None:
    assert clean_field_name("fields", name) == name


@pytest.mark.parametrize("name", ["क्\u200dष", "prix\u00a0net"])
def test_joiners_and_wide_spaces_are_no_control_characters(name: str) -> None:
    assert clean_field_name("fields", name) == name
