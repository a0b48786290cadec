"""The custom value request: its URL and how its answer is read."""

from __future__ import annotations

import json

import pytest

from core.errors import Invalid
from webhooks.custom_values import build_url, clean_fields, fields_in, parse_answer


def url(callback: str, *fields: str, uid: str = "", address: str = "447717472695") -> str:
    return build_url(callback, customer_uid=uid, address=address, fields=fields)


def test_fields_are_numbered_from_one_in_order_of_first_use() -> None:
    assert url("https://a.example/u", "balance", "name", "balance") == (
        "https://a.example/u?customerUID=&outboundChannelAddress=447717472695&param1=balance&param2=name"
    )


@pytest.mark.parametrize(
    ("callback", "start"),
    [
        ("https://a.example/u?k=1&j=%20x", "https://a.example/u?k=1&j=%20x&customerUID="),
        ("https://a.example", "https://a.example/?customerUID="),
        ("https://a.example/u?", "https://a.example/u?customerUID="),
        ("https://a.example:8443/u#part", "https://a.example:8443/u?customerUID="),
    ],
)
def test_the_callback_urls_own_query_is_kept(callback: str, start: str) -> None:
    assert url(callback, "a").startswith(start)


def test_every_value_is_percent_encoded() -> None:
    made = url("https://a.example/u", "due date & sum", "größe", uid="a/b+c=d")
    assert "customerUID=a%2Fb%2Bc%3Dd" in made
    assert made.endswith("param1=due%20date%20%26%20sum&param2=gr%C3%B6%C3%9Fe")


def test_fields_of_a_text_come_in_order_without_repeats() -> None:
    assert fields_in("Dear <<name>>, you owe <<balance>>. <<name>>? << >> #x# <b>") == ["name", "balance"]


@pytest.mark.parametrize(
    "body",
    [
        {"balance": 150.5, "ok": True, "name": "Ada", "n": 7},
        [
            {"name": name, "value": value}
            for name, value in (("balance", 150.5), ("ok", True), ("n", 7), ("name", "Ada"))
        ],
    ],
)
def test_an_object_and_a_list_of_name_and_value_are_read_alike(body: object) -> None:
    answer = parse_answer(json.dumps(body).encode(), ["balance", "ok", "name", "n"])
    assert answer.values == {"balance": "150.5", "ok": "true", "name": "Ada", "n": "7"}
    assert answer.missing == ()
    assert answer.problem == ""


def test_numbers_keep_their_digits() -> None:
    answer = parse_answer(b'{"a": 150.50, "b": 12345678901234567890123, "c": 1e3}', ["a", "b", "c"])
    assert answer.values == {"a": "150.50", "b": "12345678901234567890123", "c": "1e3"}


def test_null_and_absent_fields_are_missing_and_never_text() -> None:
    answer = parse_answer(b'{"a": null, "b": ""}', ["a", "b", "c"])
    assert answer.values == {"b": ""}
    assert answer.missing == ("a", "c")


def test_a_nested_value_is_refused_and_named() -> None:
    answer = parse_answer(b'{"a": {"x": 1}, "b": [1], "c": "fine"}', ["a", "b", "c"])
    assert answer.values == {"c": "fine"}
    assert answer.missing == ("a", "b")
    assert "a, b" in answer.problem


@pytest.mark.parametrize("value", [r"x\ud800", r"x\u0000y"])
def test_text_that_cannot_be_stored_or_sent_is_refused_and_named(value: str) -> None:
    for body in ('{"a": "%s", "c": "fine"}', '[{"name": "a", "value": "%s"}, {"name": "c", "value": "fine"}]'):
        answer = parse_answer((body % value).encode(), ["a", "c"])
        assert answer.values == {"c": "fine"}
        assert answer.missing == ("a",)
        assert "a" in answer.problem


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", b"\xff\xfe", b'"text"', b"7", b"null", b"[1]", b'[{"value": 1}]', b'{"a": NaN}', b"[" * 100_000],
)
def test_an_answer_that_is_no_object_or_list_of_pairs_gives_nothing(body: bytes) -> None:
    answer = parse_answer(body, ["a"])
    assert (answer.values, answer.missing) == ({}, ("a",))
    assert answer.problem


@pytest.mark.parametrize(
    "value", [None, "a", [], [""], ["a<b"], ["a>b"], ["a\nb"], ["x" * 101], [7], ["f"] * 101, {"a": 1}]
)
def test_bad_field_names_are_refused(value: object) -> None:
    with pytest.raises(Invalid) as refusal:
        clean_fields("fields", value)
    assert list(refusal.value.errors) == ["fields"]
